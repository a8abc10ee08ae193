"""Do the loss curves of compute-optimal runs fall on one another? A free check of the recipe: an
untuned size does not.

With tuned hyper-parameters and data in proportion, (L(t) - E) / (L(T) - E) against the share t / T
of a run is one curve for all sizes, closer than seeds are to each other (Qiu 2025,
"supercollapse"). Here t ends before the cooldown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics.results import CurveCollapse, NormalizedCurve
from scaling.fit.noise import ROBUST
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

SHARES = (0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.65, 0.78)
MIN_RUNS = 3
FLOOR = 0.9  # of the lowest loss: a floor closer than that would divide by next to nothing
TRIED = 40  # floors
OUTLIER_SIGMAS = 3.0  # robust standard deviations
MIN_DEVIATION = 0.03  # below this no curve is flagged


@dataclass(frozen=True)
class Curve:
    """A run's losses at each of SHARES, and at its end."""

    run_id: str
    n: float
    d: float
    losses: np.ndarray
    last: float

    def normalised(self, floor: float) -> np.ndarray:
        """(L(t) - E) / (L(T) - E)."""
        return np.asarray((self.losses - floor) / (self.last - floor))


def collapse(data: Dataset, loss_curves: Points, floor: float) -> CurveCollapse | None:
    """The curves of the best run of each budget, their spread, and which lie off; None with fewer
    than three.

    `loss_curves` holds every evaluation with the run as its group, `floor` the law's E in nats.
    Where the law does not settle E, the floor at which the curves lie closest (`closest_floor`,
    `closest_spread`) is the fairer judge.
    """
    points = data.points
    if points.n is None or points.d is None or points.c is None or loss_curves.group is None:
        return None
    best = [index[int(np.argmin(points.loss[index]))] for index in data.budgets]
    used = float(np.clip(floor, 0.0, FLOOR * points.loss.min())) if np.isfinite(floor) else 0.0
    curves = [curve for row in best if (curve := _curve(points, loss_curves, row)) is not None]
    if len(curves) < MIN_RUNS:
        return None
    tried = np.linspace(0.0, FLOOR * points.loss.min(), TRIED)
    closest = float(tried[int(np.argmin([_spread(curves, each) for each in tried]))])
    median = np.median([curve.normalised(used) for curve in curves], 0)
    deviations = _relative_deviation(curves, closest).mean(1)
    scale = max(ROBUST * float(np.median(np.abs(deviations))), MIN_DEVIATION / OUTLIER_SIGMAS)
    return CurveCollapse(
        floor=used,
        shares=list(SHARES),
        median=median.tolist(),
        spread=_spread(curves, used),
        closest_floor=closest,
        closest_spread=_spread(curves, closest),
        curves=[
            NormalizedCurve(
                run_id=curve.run_id,
                n_params=curve.n,
                tokens=curve.d,
                y=curve.normalised(used).tolist(),
                deviation=float(deviation),
                flagged=bool(abs(deviation) > OUTLIER_SIGMAS * scale),
            )
            for curve, deviation in zip(curves, deviations, strict=True)
        ],
    )


def _relative_deviation(curves: Sequence[Curve], floor: float) -> np.ndarray:
    """Relative distances (curves, shares) of the normalised curves from their middle."""
    y = np.array([curve.normalised(floor) for curve in curves])
    return np.asarray(y / np.median(y, 0) - 1)


def _spread(curves: Sequence[Curve], floor: float) -> float:
    return float(np.sqrt((_relative_deviation(curves, floor) ** 2).mean()))


def _curve(points: Points, loss_curves: Points, row: int) -> Curve | None:
    """The losses of the run that a point is the end of, interpolated in log t; None where it was
    measured too seldom.
    """
    n, d, loss = (
        float(np.asarray(points.n)[row]),
        float(np.asarray(points.d)[row]),
        float(points.loss[row]),
    )
    same_size = (np.asarray(loss_curves.n) == n) & (np.asarray(loss_curves.d) == d)
    ends = same_size & (loss_curves.loss == loss)
    if not ends.any():
        return None
    run_id = str(np.asarray(loss_curves.group)[int(np.flatnonzero(ends)[0])])
    mine = np.asarray(loss_curves.group) == run_id
    share, value = np.asarray(loss_curves.d)[mine] / d, loss_curves.loss[mine]
    order = np.argsort(share)
    share, value = share[order], value[order]
    if share[0] > SHARES[0] * 1.5 or len(share) < 5:
        return None
    at = np.interp(np.log(SHARES), np.log(share), np.log(value))
    return Curve(run_id, n, d, np.exp(at), loss)


def warnings(result: CurveCollapse | None) -> list[ResultWarning]:
    """A warning for each curve that lies off the others."""
    return [
        warn(
            WarningCode.CURVE_DEVIATES,
            f"the curve of run {curve.run_id} (N = {curve.n_params:.3g}) lies "
            f"{100 * (curve.deviation or 0.0):+.0f} % off the others: its size is not "
            "tuned as they are",
            run_id=curve.run_id,
        )
        for curve in (result.curves if result else ())
        if curve.flagged
    ]
