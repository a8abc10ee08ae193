"""What a repeated token is worth: the fresh tokens D' on which a run of the same size reaches a
repeated run's loss.

D' is read off the fresh runs of the size, so no law of the loss is assumed; what a law says stands
next to it. Muennighoff et al. 2023, eq. 5: D' = U (1 + R_D (1 - exp(-(D/U - 1) / R_D))). Read off,
D' also holds what that law books on N' (R_N).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics.results import RepeatedRuns
from scaling.fit.laws.laws import LAWS
from scaling.fit.noise import seed_noise
from scaling.fit.significance import student
from scaling.warning import ResultWarning, WarningCode, warn

LAW = "data-constrained"
REPEATED = 1.01  # D / U from which a run counts as repeated
SAME = 1e-3  # of a log: sizes and tokens this close are one

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
    # amounts that were pooled are one point of the curve
    block = np.cumsum(np.r_[0, np.diff(pooled.x) < 0])
    weight = np.bincount(block, counts)
    knots = [np.bincount(block, counts * values) / weight for values in (log_d, pooled.x)]
    return FreshCurve(knots[0], knots[1], float(counts.mean())) if len(weight) > 1 else None


def effective_epochs(epochs: Array | float, r_d: float) -> Any:
    """D'/U after a number of epochs on the unique tokens (Muennighoff 2023, eq. 5)."""
    return 1.0 - r_d * np.expm1(-(np.asarray(epochs, float) - 1.0) / r_d)


def repeated_runs(data: Dataset, ci: float, r_d: float | None = None) -> list[RepeatedRuns]:
    """Each repeated size, U and D, seeds averaged, with its D'; `ratio` D'/U with an interval where
    seeds were replicated, `predicted_ratio` by the fitted R_D where there is one.

    `effective_tokens` is None for a size without fresh runs at two amounts; `extrapolated` where D'
    lies beyond them.
    """
    repeats, repeated = [], is_repeated(data)
    if not repeated.any() or not data.has("N"):
        return []
    reach = None  # half the interval of one run's log loss
    if data.replicates is not None:
        reach = seed_noise(data.replicates)[0] * student(ci, data.replicates.freedom)
    sizes = np.stack([data.n, data.points.others["U"], data.d], 1)
    cells = np.round(np.log(sizes) / SAME)
    for cell in np.unique(cells[repeated], axis=0):
        runs = np.flatnonzero(repeated & (cells == cell).all(1))
        fresh = ~repeated & (cells[:, 0] == cell[0])
        curve = fresh_curve(data.d[fresh], data.points.loss[fresh])
        (n, u, d), log_loss = sizes[runs[0]].tolist(), float(data.log_loss[runs].mean())
        effective = lo = hi = extrapolated = None
        if curve is not None:
            log_d, extrapolated = curve.log_tokens(log_loss)
            effective = math.exp(log_d)
            if reach is not None:
                width = reach * math.sqrt(1 / len(runs) + 1 / curve.runs)
                ends = (curve.log_tokens(log_loss + move)[0] for move in (width, -width))
                lo, hi = (math.exp(end) / u for end in ends)
        repeats.append(
            RepeatedRuns(
                n_params=n,
                unique_tokens=u,
                epochs=d / u,
                tokens=d,
                loss=math.exp(log_loss),
                runs=len(runs),
                effective_tokens=effective,
                ratio=None if effective is None else effective / u,
                lo=lo,
                hi=hi,
                extrapolated=extrapolated,
                predicted_ratio=r_d and float(effective_epochs(d / u, r_d)),
            )
        )
    return repeats


def is_repeated(data: Dataset) -> Array:
    """Which runs (n,) repeat their data: D > U."""
    unique = data.points.others.get("U")
    if unique is None or not data.has("D"):
        return np.zeros(len(data), bool)
    return data.d > REPEATED * unique


def repeat_warning(data: Dataset, law: str) -> list[ResultWarning]:
    """A warning when runs repeat their data and the law counts every token as new."""
    count = int(is_repeated(data).sum())
    if not count or "U" in LAWS[law].inputs:
        return []
    message = (
        f"{count} runs repeat their data (D > U), and {law} counts every token as new: --law {LAW}"
    )
    return [warn(WarningCode.REPEATED_DATA, message, runs=count)]
