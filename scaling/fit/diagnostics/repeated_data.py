"""What a repeated token is worth: the fresh tokens D' on which a run of the same size reaches a
repeated run's loss.

D' is read off the fresh runs of the size, so no law of the loss is assumed; what a law says stands
next to it. Muennighoff et al. 2023, eq. 5: D' = U (1 + R_D (1 - exp(-(D/U - 1) / R_D))). Read off,
D' also holds what that law books on N' (R_N).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.bootstrap import fit_law
from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics.results import RepeatedDataLaw, RepeatedRuns
from scaling.fit.document import Estimate
from scaling.fit.frontier.frontier import cap_resamples
from scaling.fit.law_fit import LawFit
from scaling.fit.laws.laws import LAWS
from scaling.fit.noise import seed_noise
from scaling.fit.options import FitOptions
from scaling.fit.significance import student
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

LAW = "data-constrained"
LAW_RESAMPLES = 100  # of the law where another one heads the result
REPEATED = 1.01  # D / U from which a run counts as repeated
SAME = 1e-3  # of a log: sizes and tokens this close are one
R_RANGE = (1e-2, 1e4)

Array = np.ndarray


@dataclass(frozen=True)
class FreshCurve:
    """The loss of fresh runs of one size, falling: log loss (k,) descending at log D (k,)
    ascending, and the runs at each.
    """

    log_d: Array
    log_loss: Array
    runs: float

    def log_tokens(self, log_loss: float) -> tuple[float, bool]:
        """The log of the fresh tokens with this log loss, and whether they lie beyond the fresh
        runs.

        Between the runs monotone and smooth (PCHIP, Fritsch and Carlson 1980); beyond them a power
        law through the last two.
        """
        from scipy.interpolate import PchipInterpolator

        if self.log_loss[-1] <= log_loss <= self.log_loss[0]:
            return float(PchipInterpolator(-self.log_loss, self.log_d)(-log_loss)), False
        one, two = (0, 1) if log_loss > self.log_loss[0] else (-2, -1)
        slope = (self.log_d[two] - self.log_d[one]) / (self.log_loss[two] - self.log_loss[one])
        return float(self.log_d[one] + slope * (log_loss - self.log_loss[one])), True


def fresh_curve(tokens: Array, loss: Array) -> FreshCurve | None:
    """The curve of fresh runs: mean log loss over seeds, made to fall by pooling what rises; None
    for fewer than two amounts.
    """
    from scipy.optimize import isotonic_regression

    amounts, at = np.unique(np.round(np.log(tokens) / SAME), return_inverse=True)
    if len(amounts) < 2:
        return None
    counts = np.bincount(at)
    log_d, log_loss = (
        np.bincount(at, values) / counts for values in (np.log(tokens), np.log(loss))
    )
    pooled = isotonic_regression(log_loss, weights=counts, increasing=False)
    block = np.cumsum(
        np.r_[0, np.diff(pooled.x) < 0]
    )  # amounts that were pooled are one point of the curve
    weight = np.bincount(block, counts)
    knots = [np.bincount(block, counts * values) / weight for values in (log_d, pooled.x)]
    return FreshCurve(knots[0], knots[1], float(counts.mean())) if len(weight) > 1 else None


def repeated_data(
    data: Dataset, fit: LawFit | None, options: FitOptions
) -> tuple[list[RepeatedRuns] | None, RepeatedDataLaw | None]:
    """A row for each repeated size, U and D, and the law of repeated data; None where no run
    repeats.
    """
    repeats = rows(data, options.ci)
    if not repeats:
        return None, None
    r_d, status, unavailable = None, None, None
    try:
        if fit is None or options.law != LAW:
            fit = fit_law(data, LAWS[LAW], options, cap_resamples(LAW_RESAMPLES, len(data)))
        r_d = Estimate.of(fit.values["R_D"], fit.drawn.get("R_D"), options.ci)
        status = fit.status
    except ScalingError as error:
        unavailable = error.what
    if r_d is not None and r_d.value:
        repeats = [
            row.model_copy(
                update={"predicted_ratio": float(effective_epochs(row.epochs, r_d.value))}
            )
            for row in repeats
        ]
    law = RepeatedDataLaw(
        law=LAW, R_D=r_d, status=status, unavailable=unavailable, R_D_from_runs=read_off(repeats)
    )
    return repeats, law


def effective_epochs(epochs: Array | float, r_d: float) -> Any:
    """D'/U after a number of epochs on the unique tokens (Muennighoff 2023, eq. 5)."""
    return 1.0 - r_d * np.expm1(-(np.asarray(epochs, float) - 1.0) / r_d)


def rows(data: Dataset, ci: float = 0.95) -> list[RepeatedRuns]:
    """Each repeated size, U and D, seeds averaged, with its D'; `ratio` D'/U with an interval where
    seeds were replicated.

    `effective_tokens` is None for a size without fresh runs at two amounts; `extrapolated` where D'
    lies beyond them.
    """
    points = data.points
    unique = points.others.get("U")
    if unique is None or points.n is None or points.d is None:
        return []
    repeated = points.d > REPEATED * unique
    replicates, repeats, reach = data.replicates, [], None
    if replicates is not None:
        reach = seed_noise(replicates)[0] * student(ci, replicates.freedom)
    for n in np.unique(_key(points.n)):
        size = _key(points.n) == n
        curve = (
            fresh_curve(points.d[size & ~repeated], points.loss[size & ~repeated])
            if (size & ~repeated).any()
            else None
        )
        cells = np.stack([_key(unique), _key(points.d)], 1)
        for cell in np.unique(cells[size & repeated], axis=0):
            mine = size & repeated & (cells == cell).all(1)
            repeats.append(_row(points, np.flatnonzero(mine), curve, reach))
    return repeats


def _key(values: Array) -> Array:
    return np.round(np.log(values) / SAME).astype(np.int64)


def _row(
    points: Points, mine: Array, curve: FreshCurve | None, reach: float | None
) -> RepeatedRuns:
    """One row; `reach` is half the interval of one run's log loss."""
    assert points.n is not None
    assert points.d is not None
    n, d, unique = (float(values[mine[0]]) for values in (points.n, points.d, points.others["U"]))
    log_loss = float(np.log(points.loss[mine]).mean())
    row = RepeatedRuns(
        n_params=n,
        unique_tokens=unique,
        epochs=d / unique,
        tokens=d,
        loss=math.exp(log_loss),
        runs=len(mine),
        effective_tokens=None,
        ratio=None,
        lo=None,
        hi=None,
        extrapolated=None,
        predicted_ratio=None,
    )
    if curve is None:
        return row
    log_d, beyond = curve.log_tokens(log_loss)
    width = None if reach is None else reach * math.sqrt(1 / len(mine) + 1 / curve.runs)
    ends = (
        [None, None]
        if width is None
        else [math.exp(curve.log_tokens(log_loss + move)[0]) / unique for move in (width, -width)]
    )
    return row.model_copy(
        update={
            "effective_tokens": math.exp(log_d),
            "ratio": math.exp(log_d) / unique,
            "lo": ends[0],
            "hi": ends[1],
            "extrapolated": beyond,
        }
    )


def read_off(repeats: Sequence[RepeatedRuns]) -> float | None:
    """R_D from the D'/U themselves, by least squares in their logs; None without two rows inside
    the fresh runs.
    """
    from scipy.optimize import minimize_scalar

    kept = [row for row in repeats if row.ratio and not row.extrapolated]
    if len(kept) < 2:
        return None
    epochs, ratio = (np.array([getattr(row, name) for row in kept]) for name in ("epochs", "ratio"))

    def miss(log_r: float) -> float:
        return float(
            ((np.log(effective_epochs(epochs, math.exp(log_r))) - np.log(ratio)) ** 2).sum()
        )

    return math.exp(minimize_scalar(miss, bounds=tuple(np.log(R_RANGE)), method="bounded").x)


def uncounted(data: Dataset, law: str) -> list[ResultWarning]:
    """A warning when runs repeat their data and the law counts every token as new."""
    points = data.points
    unique = points.others.get("U")
    if unique is None or points.d is None or "U" in LAWS[law].inputs:
        return []
    count = int((np.asarray(points.d) > REPEATED * unique).sum())
    if not count:
        return []
    message = (
        f"{count} runs repeat their data (D > U), and {law} counts every token as new: --law {LAW}"
    )
    return [warn(WarningCode.REPEATED_DATA, message, runs=count)]
