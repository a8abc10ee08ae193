"""The noise of a run: one estimate for intervals, outliers and replicates.

About a law, noise is what least squares leaves per degree of freedom, without outliers: the fit
uses up as many points as it has parameters, and what it passes through is no evidence of precision.
Outliers are sought by the generalised extreme studentised deviate test (Rosner 1983) of residuals
with their leverage, so that normal noise is accused in about ALPHA of the tables, whatever their
size. With replicates, the pooled variance within cells is pure error, and the scatter of the cells
about the law beyond it is lack of fit (Draper and Smith 1998, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.fit.dataset import Dataset, Replicates
from scaling.fit.diagnostics.results import LackOfFit, NoiseResult
from scaling.fit.significance import f_tail, student
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray
ALPHA = 0.01  # chance that any point of a table without outliers is accused
SUSPECTS = 0.25  # of the degrees of freedom: so many points at most are outliers
MAX_SUSPECTS = 200
EXACT = 1e-10  # residuals below this are rounding
MAX_LEVERAGE = 1 - 1e-6  # of a run that may be an outlier
MAX_LACK_OF_FIT_P = 0.01  # below it a warning is due


@dataclass(frozen=True)
class Noise:
    """The standard deviation `sd` of one run, its degrees of `freedom`, and the outliers (n,), a
    mask.
    """

    sd: float
    freedom: int
    outliers: Array

    def excess(self, runs: int) -> float:
        """How far the highest of `runs` runs is above the law by chance in ALPHA of the tables."""
        return self.sd * student(1 - 2 * ALPHA / max(runs, 1), self.freedom)


def deviates(residual: Array, design: Array) -> Noise:
    """Noise and outliers of residuals about the span of a design (n, P), whose columns that add
    nothing to the others cost no degree of freedom; runs of full leverage are no outliers: they
    decide the fit themselves.
    """
    lengths = np.linalg.norm(design, axis=0)
    scaled = design[:, lengths > 0] / lengths[lengths > 0]
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    basis = left[:, singular > 1e-8 * singular.max(initial=0.0)]
    n, p = basis.shape
    kept, significant = np.ones(n), 0
    order: list[int] = []
    most = min(max(1, int(SUSPECTS * (n - p - 1))), MAX_SUSPECTS)
    estimates: list[tuple[float, int]] = []
    while True:
        rows = basis * kept[:, None]
        inverse = np.linalg.pinv(rows.T @ basis, hermitian=True)
        error = residual - basis @ (inverse @ (rows.T @ residual))
        freedom, squares = n - p - len(order), float(kept @ error**2)
        estimates.append((np.sqrt(squares / max(freedom, 1)), freedom))
        if len(order) == most or freedom < 2 or squares < EXACT**2 * n:
            break
        leverage = ((rows @ inverse) * basis).sum(1)
        squared = kept * error**2 / np.where(leverage < MAX_LEVERAGE, 1 - leverage, np.inf)
        row = int(np.argmax(squared))
        order.append(row)
        variance = max(squares - squared[row], 1e-300) / (freedom - 1)
        limit = student(1 - ALPHA / (freedom + p), freedom - 1)
        if squared[row] > limit**2 * variance:
            significant = len(order)
        kept[row] = 0.0
    outliers = np.zeros(n, bool)
    outliers[order[:significant]] = True
    sd, freedom = estimates[significant]
    return Noise(float(sd), freedom, outliers)


def noise_result(
    data: Dataset, residual: Array, noise: Noise, n_free: int, ci: float
) -> NoiseResult:
    """The noise of one run about the law and, with replicates, of seeds alone, with the test of
    lack of fit.
    """
    replicates = data.replicates
    if replicates is None or (data.points.loss <= 0).any():
        return NoiseResult(
            residual_sd=noise.sd, sd=noise.sd, degrees_of_freedom=noise.freedom, basis="residuals"
        )
    (sd, lo, hi), lack = seed_noise(replicates, ci), None
    if (left := len(replicates.counts) - n_free) > 0 and replicates.squares:
        # the variance of the cells about the law over that within cells (F), and how often chance
        # alone gives more
        between = float((np.bincount(replicates.cell, residual) ** 2 / replicates.counts).sum())
        ratio = between / left / (replicates.squares / replicates.freedom)
        lack = LackOfFit(ratio=ratio, p=f_tail(left, replicates.freedom, ratio))
    return NoiseResult(
        residual_sd=noise.sd,
        sd=sd,
        lo=lo,
        hi=hi,
        cells=replicates.cells,
        degrees_of_freedom=replicates.freedom,
        basis="seeds",
        lack_of_fit=lack,
    )


def seed_noise(replicates: Replicates, ci: float = 0.95) -> tuple[float, float, float]:
    """The standard deviation of a run's log loss over seeds, with its interval."""
    from scipy.special import chdtri  # 0.15 s, needed where there are replicates only

    squares, freedom = replicates.squares, replicates.freedom
    lo, hi = (squares / float(chdtri(freedom, tail)) for tail in ((1 - ci) / 2, (1 + ci) / 2))
    return float(np.sqrt(squares / freedom)), float(np.sqrt(lo)), float(np.sqrt(hi))


def noise_warnings(noise: NoiseResult) -> list[ResultWarning]:
    """A warning where the law misses more than seeds explain."""
    test = noise.lack_of_fit
    if test is None or test.p is None or test.ratio is None or test.p > MAX_LACK_OF_FIT_P:
        return []
    message = (
        f"the runs scatter {np.sqrt(test.ratio):.1f} times as far about the law as seeds do "
        f"(p = {test.p:.1g}): the law's form, or the tuning of some runs, is at fault"
    )
    return [warn(WarningCode.LACK_OF_FIT, message, ratio=test.ratio, p=test.p)]
