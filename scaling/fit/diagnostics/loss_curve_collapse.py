"""Do the loss curves of compute-optimal runs fall on one another? A free check of the recipe: an
untuned size does not.

With tuned hyper-parameters and data in proportion, (L(t) - E) / (L(T) - E) against the share t / T
of a run is one curve for all sizes, closer than seeds are to each other (Qiu 2025,
"supercollapse"). Here t ends before the cooldown.
"""

from __future__ import annotations

import numpy as np

from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics.results import CurveCollapse, NormalizedCurve
from scaling.fit.diagnostics.runs_above_law import best_of_budgets
from scaling.fit.noise import ROBUST
from scaling.formatting import format_count
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray

SHARES = (0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.65, 0.78)
MIN_RUNS = 3
FLOOR = 0.9  # of the lowest loss: a floor closer than that would divide by next to nothing
TRIED = 40  # floors
OUTLIER_SIGMAS = 3.0  # robust standard deviations
MIN_DEVIATION = 0.03  # below this no curve is flagged


def collapse(
    data: Dataset, loss_curves: Points, floor: float
) -> tuple[CurveCollapse | None, list[ResultWarning]]:
    """The curves of the best run of each budget, their spread, and a warning for each that lies
    off; None with fewer than three.

    `loss_curves` holds every evaluation with the run as its group, `floor` the law's E in nats.
    Where E is not identified, the floor at which the curves lie closest (`closest_floor`,
    `closest_spread`) is the fairer judge.
    """
    if not data.has("NDC") or loss_curves.group is None:
        return None, []
    best = {row: _curve(data, loss_curves, row) for row in best_of_budgets(data)}
    curves = {row: curve for row, curve in best.items() if curve is not None}
    if len(curves) < MIN_RUNS:
        return None, []
    rows = list(curves)
    losses, last = np.array([curve for _, curve in curves.values()]), data.points.loss[rows, None]

    def normalised(floor: float) -> Array:
        """(L(t) - E) / (L(T) - E) of each run at each of SHARES."""
        return (losses - floor) / (last - floor)

    def deviation(floor: float) -> Array:
        """Relative distances (runs, shares) of the curves from their middle."""
        y = normalised(floor)
        return y / np.median(y, 0) - 1

    def spread(floor: float) -> float:
        return float(np.sqrt((deviation(floor) ** 2).mean()))

    highest = FLOOR * data.points.loss.min()
    used = float(np.clip(floor, 0.0, highest)) if np.isfinite(floor) else 0.0
    closest = min(np.linspace(0.0, highest, TRIED).tolist(), key=spread)
    deviations = deviation(closest).mean(1)
    scale = max(ROBUST * float(np.median(np.abs(deviations))), MIN_DEVIATION / OUTLIER_SIGMAS)
    result = CurveCollapse(
        floor=used,
        shares=list(SHARES),
        median=np.median(normalised(used), 0),
        spread=spread(used),
        closest_floor=closest,
        closest_spread=spread(closest),
        curves=[
            NormalizedCurve(
                run_id=curves[row][0],
                n_params=data.n[row],
                tokens=data.d[row],
                y=y,
                deviation=away,
                flagged=bool(abs(away) > OUTLIER_SIGMAS * scale),
            )
            for row, y, away in zip(rows, normalised(used), deviations, strict=True)
        ],
    )
    return result, _warnings(result)


def _warnings(result: CurveCollapse) -> list[ResultWarning]:
    return [
        warn(
            WarningCode.CURVE_DEVIATES,
            f"run {curve.run_id} (N = {format_count(curve.n_params)}): its loss curve lies "
            f"{100 * (curve.deviation or 0.0):+.0f} % off the others; check its learning rate",
            run_id=curve.run_id,
        )
        for curve in result.curves
        if curve.flagged
    ]


def _curve(data: Dataset, loss_curves: Points, row: int) -> tuple[str, Array] | None:
    """The id of the run that a point is the end of, and its losses at SHARES, interpolated in log
    t; None where it was measured too seldom.
    """
    n, d, group = (np.asarray(each) for each in (loss_curves.n, loss_curves.d, loss_curves.group))
    tokens, loss = data.d[row], data.points.loss[row]
    ends = (n == data.n[row]) & (d == tokens) & (loss_curves.loss == loss)
    if not ends.any():
        return None
    run_id = group[ends.argmax()]
    share, loss = d[group == run_id] / tokens, loss_curves.loss[group == run_id]
    order = np.argsort(share)
    share, loss = share[order], loss[order]
    if share[0] > SHARES[0] * 1.5 or len(share) < 5:
        return None
    return str(run_id), np.exp(np.interp(np.log(SHARES), np.log(share), np.log(loss)))
