"""Test-time sampling: how the share of problems solved grows with the number of samples, -log
pass@k = a k^-b.

Two routes to b. The direct one fits the line through the unbiased estimates of pass@k (Brown et al.
2024, eq. 1; Chen et al. 2021, eq. 1). The other fits a beta distribution to the problems' success
rates by maximum likelihood and follows from it (Schaeffer et al. 2025, How Do Large Language
Monkeys Get Their Power (Laws)?): it needs fewer samples a problem.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import Estimate
from scaling.fit.frontier.frontier import fit_power
from scaling.fit.special.results import (
    BetaBinomial,
    CoverageCurve,
    CoverageForecast,
    CoverageGroup,
)
from scaling.tasks.answer_metrics import ks, pass_at_k

Array = np.ndarray
MOST_K = 10_000
MIN_PROBLEMS = 10
FORECAST_FROM = 64


@dataclass(frozen=True)
class Counts:
    """Of one model: `n` samples drawn and `c` of them right, for each problem (P,)."""

    model: str
    n: Array
    c: Array


def line(k: Array, coverage: Array) -> tuple[Array, Array]:
    """(a, b) of -log pass@k = a k^-b by least squares in logs; `coverage` (..., K), what is 0 or 1
    weighs nothing.
    """
    inside = (coverage > 0) & (coverage < 1)
    logs = np.log(-np.log(np.where(inside, coverage, 0.5)))
    slope, log_a = fit_power(np.log(k), np.where(inside, logs, np.nan))
    return np.exp(log_a), -slope


def r_squared(k: Array, coverage: Array) -> float:
    """How much of the variance of log(-log pass@k) the line explains."""
    a, b = line(k, coverage)
    logs = np.log(-np.log(coverage))
    return float(
        1 - np.sum((logs - np.log(a) + b * np.log(k)) ** 2) / np.sum((logs - logs.mean()) ** 2)
    )


def _most_likely(
    n: Array, c: Array, log_likelihood: Callable[..., Array], starts: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """The two numbers that make the counts most likely; `log_likelihood` takes them with n and c.

    Raises ScalingError when no count differs from another: then there is no distribution to see.
    """
    from scipy.optimize import minimize

    if len(np.unique(c / n)) < 2:
        raise ScalingError(
            "all problems have the same success rate",
            remedy="draw more samples, or use more problems",
        )
    (n, c), often = np.unique(np.stack([n, c]), axis=1, return_counts=True)

    def loss(shape: Array) -> float:
        return -float(often @ log_likelihood(*shape, n, c))

    bounds = [(-12.0, 12.0)] * 2
    ends = [minimize(loss, start, method="Nelder-Mead", bounds=bounds) for start in starts]
    best = min(ends, key=lambda end: float(end.fun))
    return float(best.x[0]), float(best.x[1])


def beta_binomial(n: Array, c: Array) -> tuple[float, float]:
    """The beta distribution (alpha, beta) of success rates that makes the counts most likely."""
    from scipy.special import betaln

    def log_likelihood(log_alpha: float, log_beta: float, n: Array, c: Array) -> Array:
        alpha, beta = np.exp(log_alpha), np.exp(log_beta)
        return betaln(c + alpha, n - c + beta) - betaln(alpha, beta)

    shape = _most_likely(n, c, log_likelihood, ((-1.0, 1.0), (-1.0, 4.0), (0.0, 0.0)))
    return float(np.exp(shape[0])), float(np.exp(shape[1]))


def expected_coverage(alpha: float, beta: float, k: Array) -> Array:
    """Mean pass@k (K,) when success rates are Beta(alpha, beta): 1 - B(alpha, beta + k) / B(alpha,
    beta).
    """
    from scipy.special import betaln

    return -np.expm1(betaln(alpha, beta + k) - betaln(alpha, beta))


def logit_normal(n: Array, c: Array) -> tuple[float, float]:
    """Mean and standard deviation of log odds of success over problems, normal, that make the
    counts most likely (by Gauss-Hermite).

    An answer of several tokens is right with the product of their probabilities, so that chances
    spread over decades as no beta distribution does.
    """
    from scipy.special import logsumexp

    place_Q, log_weight_Q = _normal_nodes()

    def log_likelihood(mean: float, log_spread: float, n: Array, c: Array) -> Array:
        odds_Q = mean + np.exp(log_spread) * place_Q
        right_Q, wrong_Q = -np.logaddexp(0.0, -odds_Q), -np.logaddexp(0.0, odds_Q)
        logs = np.outer(c, right_Q) + np.outer(n - c, wrong_Q) + log_weight_Q
        return logsumexp(logs, axis=1)

    mean, log_spread = _most_likely(n, c, log_likelihood, ((-5.0, 1.0), (-1.0, 0.5)))
    return mean, float(np.exp(log_spread))


def normal_coverage(mean: float, spread: float, k: Array) -> Array:
    """Mean pass@k (K,) when log odds of success are normal."""
    place_Q, log_weight_Q = _normal_nodes()
    wrong_Q = -np.logaddexp(0.0, mean + spread * place_Q)
    return -np.expm1(np.outer(k, wrong_Q)) @ np.exp(log_weight_Q)


def _normal_nodes() -> tuple[Array, Array]:
    """Places and log weights with which a standard normal is integrated."""
    place, weight = np.polynomial.hermite_e.hermegauss(96)
    return place, np.log(weight / weight.sum())


def forecast(
    counts: Counts, k: int, samples: int = FORECAST_FROM, seed: int = 0
) -> CoverageForecast:
    """pass@k as forecast from `samples` of each problem, and as measured.

    The samples are drawn from those at hand without replacement.
    """
    few = np.minimum(counts.n, samples)
    seen = np.random.default_rng(seed).hypergeometric(counts.c, counts.n - counts.c, few)
    reach = ks(int(few.min()))
    a, b = line(reach, pass_at_k(few, seen, reach).mean(0))
    shape = beta_binomial(few, seen)
    return CoverageForecast(
        k=k,
        samples=samples,
        beta_binomial=float(expected_coverage(*shape, np.array([k]))[0]),
        logit_normal=float(normal_coverage(*logit_normal(few, seen), np.array([k]))[0]),
        line=float(np.exp(-a * float(k) ** -b)),
        measured=float(pass_at_k(counts.n, counts.c, np.array([k])).mean()),
    )


def fit_coverage(
    counts: Counts, resamples: int = 1000, seed: int = 0, ci: float = 0.95
) -> tuple[CoverageGroup, CoverageCurve]:
    """Both routes for one model, with intervals of resampled problems, and its curve. Raises
    ScalingError for too few problems or samples.
    """
    if len(counts.n) < MIN_PROBLEMS:
        raise ScalingError(
            f"{len(counts.n)} problems of {counts.model}: at least {MIN_PROBLEMS} are needed",
            remedy="add problems",
        )
    k = ks(min(MOST_K, int(counts.n.min())))
    each = pass_at_k(counts.n, counts.c, k)
    mean = each.mean(0)
    inside = (mean > 0) & (mean < 1)
    if len(k) < 3 or inside.sum() < 3:
        raise ScalingError(
            f"pass@k of {counts.model} is 0 or 1 for nearly all k",
            remedy="draw more samples, or use harder problems",
        )
    picks = np.random.default_rng(seed).multinomial(
        len(each), np.full(len(each), 1 / len(each)), resamples
    )
    powers = zip(line(k, mean), line(k, picks @ each / len(each)), strict=True)
    a, b = (Estimate.of(float(value), draws, ci) for value, draws in powers)
    alpha, beta = beta_binomial(counts.n, counts.c)
    by_shape = expected_coverage(alpha, beta, k)
    group = CoverageGroup(
        model=counts.model,
        problems=len(counts.n),
        a=a,
        b=b,
        r2=r_squared(k[inside], mean[inside]),
        beta_binomial=BetaBinomial(alpha=alpha, beta=beta, b=float(line(k, by_shape)[1])),
        forecast=forecast(counts, int(k[-1]), seed=seed),
    )
    curves = {"k": k.tolist(), "pass_at_k": mean.tolist(), "beta_binomial": by_shape.tolist()}
    return group, CoverageCurve(model=counts.model, **curves)
