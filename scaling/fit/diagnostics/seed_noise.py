"""The noise of a run: what seeds alone change, from replicates, and whether the law misses more
than that.

Runs that differ in nothing but their seed are a cell; the pooled variance within cells is pure
error, and the scatter of the cells about the law beyond it is lack of fit (Draper and Smith 1998,
section 2.1). Of losses in logs, as the fit sees them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.fit.diagnostics.results import LackOfFit, NoiseResult
from scaling.fit.estimate import PointEstimate
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

MAX_LACK_OF_FIT_P = 0.01  # below it a warning is due
# times the median distance of a normal variable from its median is its standard deviation
ROBUST = 1.4826


@dataclass(frozen=True)
class Noise:
    """The standard deviation `sd` of a run's log loss over seeds, its interval, and from how many
    cells and degrees of freedom.
    """

    sd: float
    lo: float
    hi: float
    cells: int
    freedom: int


def seed_noise(points: Points, ci: float = 0.95) -> Noise | None:
    """The noise that replicates show; None without any."""
    if points.cell is None:
        return None
    squares, freedom, cells = _within(points)
    if not freedom:
        return None
    from scipy.special import chdtri  # 0.15 s, needed where there are replicates only

    low, high = (squares / float(chdtri(freedom, tail)) for tail in ((1 - ci) / 2, (1 + ci) / 2))
    return Noise(
        float(np.sqrt(squares / freedom)), float(np.sqrt(low)), float(np.sqrt(high)), cells, freedom
    )


def _within(points: Points) -> tuple[float, int, int]:
    """(sum of squares of log losses about the means of their cells, its degrees of freedom, cells
    with more than one run).
    """
    logs, cell = np.log(points.loss), np.unique(np.asarray(points.cell), return_inverse=True)[1]
    counts = np.bincount(cell)
    means = np.bincount(cell, logs) / counts
    return (
        float(((logs - means[cell]) ** 2).sum()),
        int((counts - 1).sum()),
        int((counts > 1).sum()),
    )


def report(points: Points, fitted: PointEstimate, ci: float) -> NoiseResult:
    """The noise of one run about the law and, with replicates, of seeds alone, with the test of
    lack of fit.
    """
    residual = fitted.residuals(points)
    free = int(fitted.theta.size) - len(fitted.fixed)
    left = np.sort(np.abs(residual))[
        min(free, len(points) - 1) :
    ]  # the fit passes through about as many points as it has parameters
    scatter = ROBUST * float(np.median(left))
    noise = None if fitted.law.signed else seed_noise(points, ci)
    if noise is None:
        return NoiseResult(residual_sd=scatter, sd=scatter, basis="residuals")
    return NoiseResult(
        residual_sd=scatter,
        sd=noise.sd,
        lo=noise.lo,
        hi=noise.hi,
        cells=noise.cells,
        degrees_of_freedom=noise.freedom,
        basis="seeds",
        lack_of_fit=_lack_of_fit(points, residual, free),
    )


def _lack_of_fit(points: Points, residual: np.ndarray, free: int) -> LackOfFit | None:
    """The variance of the cells about the law over that within cells (F), and how often chance
    alone gives more.
    """
    from scipy.special import fdtrc

    within, freedom, _ = _within(points)
    cell = np.unique(np.asarray(points.cell), return_inverse=True)[1]
    counts = np.bincount(cell)
    means = np.bincount(cell, residual) / counts
    left = len(counts) - free
    if left < 1 or not within:
        return None
    ratio = float((counts * means**2).sum()) / left / (within / freedom)
    return LackOfFit(ratio=ratio, p=float(fdtrc(left, freedom, ratio)))


def warnings(noise: NoiseResult) -> list[ResultWarning]:
    """A warning where the law misses more than seeds explain."""
    test = noise.lack_of_fit
    if test is None or test.p is None or test.ratio is None or test.p > MAX_LACK_OF_FIT_P:
        return []
    message = (
        f"the runs scatter {np.sqrt(test.ratio):.1f} times as far about the law as seeds do "
        f"(p = {test.p:.1g}): the law's form, or the tuning of some runs, is at fault"
    )
    return [warn(WarningCode.LACK_OF_FIT, message, ratio=test.ratio, p=test.p)]
