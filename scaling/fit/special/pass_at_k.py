"""Test-time sampling: how the share of problems solved grows with the number of samples, -log
pass@k = a k^-b.

Two routes to b. The direct one fits the line through the unbiased estimates of pass@k (Brown et al.
2024, eq. 1; Chen et al. 2021, eq. 1). The other fits a beta distribution to the problems' success
rates by maximum likelihood and follows from it (Schaeffer et al. 2025, How Do Large Language
Monkeys Get Their Power (Laws)?): it needs fewer samples a problem.
"""

from __future__ import annotations

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import Estimate, r_squared
from scaling.fit.frontier.frontier import fit_power
from scaling.fit.special.results import BetaBinomial, CoverageGroup
from scaling.tasks.answer_metrics import ks, pass_at_k

Array = np.ndarray
MOST_K = 10_000
MIN_PROBLEMS = 10


def line(k: Array, coverage: Array) -> tuple[Array, Array]:
    """(a, b) of -log pass@k = a k^-b by least squares in logs; `coverage` (..., K), what is 0 or 1
    weighs nothing.
    """
    inside = (coverage > 0) & (coverage < 1)
    logs = np.log(-np.log(np.where(inside, coverage, 0.5)))
    slope, log_a = fit_power(np.log(k), np.where(inside, logs, np.nan))
    return np.exp(log_a), -slope


def beta_binomial(n: Array, c: Array) -> tuple[float, float]:
    """The beta distribution (alpha, beta) of success rates that makes c right of n samples (P,)
    most likely.

    Raises ScalingError when no count differs from another: then there is no distribution to see.
    """
    from scipy.optimize import minimize
    from scipy.stats import betabinom

    if len(np.unique(c / n)) < 2:
        raise ScalingError(
            "all problems have the same success rate",
            remedy="draw more samples, or use more problems",
        )
    (n, c), often = np.unique(np.stack([n, c]), axis=1, return_counts=True)

    def loss(log_shape: Array) -> float:
        return -float(often @ betabinom.logpmf(c, n, *np.exp(log_shape)))

    bounds, starts = [(-12.0, 12.0)] * 2, ((-1.0, 1.0), (-1.0, 4.0), (0.0, 0.0))
    ends = [minimize(loss, start, method="Nelder-Mead", bounds=bounds) for start in starts]
    alpha, beta = np.exp(min(ends, key=lambda end: float(end.fun)).x)
    return float(alpha), float(beta)


def expected_coverage(alpha: float, beta: float, k: Array | int) -> Array:
    """Mean pass@k (K,) when success rates are Beta(alpha, beta)."""
    from scipy.stats import betabinom

    return np.asarray(-np.expm1(betabinom.logpmf(0, k, alpha, beta)))


def fit_coverage(
    model: str, n: Array, c: Array, resamples: int = 1000, seed: int = 0, ci: float = 0.95
) -> CoverageGroup:
    """Both routes for one model with c right of n samples (P,) of each problem, with intervals of
    resampled problems. Raises ScalingError for too few problems or samples.
    """
    if len(n) < MIN_PROBLEMS:
        raise ScalingError(
            f"{len(n)} problems of {model}: at least {MIN_PROBLEMS} are needed",
            remedy="add problems",
        )
    k = ks(min(MOST_K, int(n.min())))
    each = pass_at_k(n, c, k)
    mean = each.mean(0)
    inside = (mean > 0) & (mean < 1)
    if len(k) < 3 or inside.sum() < 3:
        raise ScalingError(
            f"pass@k of {model} is 0 or 1 for nearly all k",
            remedy="draw more samples, or use harder problems",
        )
    picks = np.random.default_rng(seed).multinomial(
        len(each), np.full(len(each), 1 / len(each)), resamples
    )
    fitted, drawn = line(k, mean), line(k, picks @ each / len(each))
    a, b = (
        Estimate.of(float(value), draws, ci) for value, draws in zip(fitted, drawn, strict=True)
    )
    alpha, beta = beta_binomial(n, c)
    by_shape = line(k, expected_coverage(alpha, beta, k))[1]
    return CoverageGroup(
        model=model,
        problems=len(n),
        a=a,
        b=b,
        r2=r_squared(
            np.log(-np.log(mean[inside])), np.log(fitted[0]) - fitted[1] * np.log(k[inside])
        ),
        beta_binomial=BetaBinomial(alpha=alpha, beta=beta, b=float(by_shape)),
    )
