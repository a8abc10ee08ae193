"""The three approaches to the frontier (Hoffmann 2022, section 3): estimated, written, and
compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from scaling.fit.dataset import Dataset
from scaling.fit.document import Estimate, subsample_draws
from scaling.fit.frontier.envelope import envelope
from scaling.fit.frontier.frontier import FrontierEstimate, Minimum
from scaling.fit.frontier.isoflop import isoflop
from scaling.fit.law_fit import LawFit, exponents
from scaling.fit.options import FitOptions
from scaling.fit.result import (
    Agreement,
    Approach,
    ApproachAgreement,
    BudgetMinimum,
    Curve,
    FrontierResult,
    Power,
)
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode

MAX_N_STAR_RATIO = 1.5  # N* of two approaches at the largest budget
MARGIN_OF_A = 0.025  # of an exponent without an interval
DRAWS_KEPT = 200  # of each approach, so that a prediction can show all three with intervals


def estimate_frontiers(
    data: Dataset, curves: Points | None, fit: LawFit | str, options: FitOptions
) -> dict[Approach, FrontierEstimate]:
    """All three approaches; instead of a fitted law, `fit` says why there is none."""
    if isinstance(fit, str):
        parametric = FrontierEstimate("parametric", unavailable=fit)
    elif fit.optimum is None:
        reason = f"the law {options.law} has no compute-optimal N and D"
        parametric = FrontierEstimate("parametric", unavailable=reason)
    else:
        parametric = FrontierEstimate("parametric", fit.optimum, fit.optimum_draws)
    return {
        "parametric": parametric,
        "isoflop": isoflop(data, options.minimum, options.bootstrap, options.seed),
        "envelope": envelope(data, curves, options.bootstrap, options.seed),
    }


def frontier_result(
    estimate: FrontierEstimate, points: Points, options: FitOptions
) -> FrontierResult:
    """An approach for the document; its minima carry their runs, so that a report can draw them."""
    minima = [_minimum(minimum, points) for minimum in estimate.minima]
    frontier, draws, warnings = estimate.frontier, estimate.draws, list(estimate.warnings)
    if frontier is None:
        return FrontierResult(
            unavailable=estimate.unavailable,
            minima=minima,
            warnings=tuple(warnings),
            n_points=estimate.n_points,
        )
    if draws is not None and len(draws.a) < 0.95 * options.bootstrap:
        message = f"only {len(draws.a)} of {options.bootstrap} resamples gave a frontier"
        warnings.append(ResultWarning(code=WarningCode.FAILED_RESAMPLES, message=message))
    exponent = exponents(frontier, draws, options.ci)
    return FrontierResult(
        a=exponent["a"],
        b=exponent["b"],
        powers={name: float(value) for name, value in frontier.powers().items()},
        draws=None if draws is None else subsample_draws(draws.powers(), DRAWS_KEPT),
        n_star=Power(coef=float(np.exp(frontier.log_n)), exponent=float(frontier.a)),
        d_star=Power(coef=float(np.exp(frontier.log_d)), exponent=float(frontier.b)),
        a_plus_b=float(frontier.a + frontier.b),
        minima=minima,
        warnings=tuple(warnings),
        n_points=len(points) if estimate.n_points is None else estimate.n_points,
    )


def _minimum(minimum: Minimum, points: Points) -> BudgetMinimum:
    n_params = tokens = loss = curve = None
    if minimum.index is not None and points.n is not None:
        row = minimum.index[np.argsort(points.n[minimum.index], kind="stable")]
        n_params, tokens, loss = points.n[row], np.asarray(points.d)[row], points.loss[row]
    if minimum.curve is not None:
        curve = Curve(n_params=minimum.curve[0], loss=minimum.curve[1])
    return BudgetMinimum(
        flops=minimum.flops,
        n_star=minimum.n_star,
        d_star=minimum.d_star,
        loss_star=minimum.loss_star,
        n_params=n_params,
        tokens=tokens,
        loss=loss,
        curve=curve,
        unavailable=None if minimum.fault is None else str(minimum.fault),
    )


def agreement(
    estimates: Mapping[Approach, FrontierEstimate], points: Points, ci: float
) -> ApproachAgreement:
    """Whether exponents agree within their intervals, and N* at the largest budget within 1.5
    times.
    """
    frontiers = {
        name: estimate.frontier for name, estimate in estimates.items() if estimate.frontier
    }
    if len(frontiers) < 2 or points.c is None:
        missing = "; ".join(
            f"{name}: {estimate.unavailable}"
            for name, estimate in estimates.items()
            if estimate.unavailable
        )
        return ApproachAgreement(
            verdict=Agreement.NOT_COMPARABLE,
            message=f"The approaches cannot be compared ({missing}).",
        )
    top = float(points.c.max())
    sizes = {name: float(frontier.n_star(top)) for name, frontier in frontiers.items()}
    a = {
        name: exponents(frontier, estimates[name].draws, ci)["a"]
        for name, frontier in frontiers.items()
    }
    disagreeing = [
        (first, second)
        for first, second in itertools.combinations(frontiers, 2)
        if _disagree(a[first], a[second], sizes[first] / sizes[second])
    ]
    listed = ", ".join(f"{name} {estimate.value:.3f}" for name, estimate in a.items())
    ratio = max(sizes.values()) / min(sizes.values())
    pairs = "; ".join(" and ".join(pair) for pair in disagreeing)
    verdict = f"The approaches disagree ({pairs})" if pairs else "The approaches agree"
    return ApproachAgreement(
        verdict=Agreement.DISAGREE if pairs else Agreement.AGREE,
        disagreeing=disagreeing,
        n_star_ratio=ratio,
        message=f"{verdict}: a is {listed}; N* at the largest budget differs by a factor of "
        f"{ratio:.2f}.",
    )


def _disagree(first: Estimate, second: Estimate, ratio: float) -> bool:
    """Whether the intervals of two exponents are disjoint, or the sizes lie too far apart."""
    spans = []
    for estimate in (first, second):
        value = np.nan if estimate.value is None else estimate.value
        spans.append(
            (value - MARGIN_OF_A, value + MARGIN_OF_A)
            if estimate.lo is None or estimate.hi is None
            else (estimate.lo, estimate.hi)
        )
    (low, high), (other_low, other_high) = spans
    disjoint = max(low, other_low) > min(high, other_high) + 1e-3
    return disjoint or max(ratio, 1 / ratio) > MAX_N_STAR_RATIO
