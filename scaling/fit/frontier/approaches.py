"""The three approaches to the frontier (Hoffmann 2022, section 3), estimated and compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from scaling.fit.dataset import Dataset
from scaling.fit.estimate import LawFit
from scaling.fit.fit_options import FitOptions
from scaling.fit.frontier.envelope import envelope
from scaling.fit.frontier.estimate import FrontierEstimate
from scaling.fit.frontier.isoflop import isoflop
from scaling.fit.result import Agreement, Approach, ApproachAgreement
from scaling.points.points import Points

MAX_N_STAR_RATIO = 1.5  # N* of two approaches at the largest budget
MARGIN_OF_A = 0.025  # of an exponent without an interval


def estimate_frontiers(
    data: Dataset, curves: Points | None, fit: LawFit | str, options: FitOptions
) -> dict[Approach, FrontierEstimate]:
    """All three approaches; instead of a fitted law, `fit` says why there is none."""
    if isinstance(fit, str):
        parametric = FrontierEstimate(unavailable=fit)
    elif fit.optimum is None:
        reason = f"the law {options.law} has no compute-optimal N and D"
        parametric = FrontierEstimate(unavailable=reason)
    else:
        parametric = FrontierEstimate(fit.optimum, fit.optimum_draws, n_points=len(data))
    return {
        "parametric": parametric,
        "isoflop": isoflop(data, options.minimum, options.bootstrap, options.seed),
        "envelope": envelope(data, curves, options.bootstrap, options.seed),
    }


def agreement(
    estimates: Mapping[Approach, FrontierEstimate], points: Points, ci: float
) -> ApproachAgreement:
    """Whether exponents agree within their intervals, and N* at the largest budget within 1.5
    times; an approach that gives no exponent, or no N* there, is not compared.
    """
    top = math.nan if points.c is None else float(points.c.max())
    a, sizes, spans, missing = {}, {}, {}, []
    for name, one in estimates.items():
        if one.frontier is None:
            missing += [f"{name}: {one.unavailable}"]
            continue
        value, size = float(one.frontier.a), float(one.frontier.n_star(top))
        if not (math.isfinite(value) and 0 < size < math.inf):
            missing += [f"{name}: its law gives no compute-optimal N with an exponent"]
            continue
        interval = one.exponents(ci)["a"]
        lo, hi = interval.lo, interval.hi
        no_interval = value - MARGIN_OF_A, value + MARGIN_OF_A
        spans[name] = no_interval if lo is None or hi is None else (lo, hi)
        a[name], sizes[name] = value, size
    if len(a) < 2:
        return ApproachAgreement(
            verdict=Agreement.NOT_COMPARABLE,
            message=f"The approaches cannot be compared ({'; '.join(missing)}).",
        )
    disagreeing = []
    for first, second in itertools.combinations(a, 2):
        (low, high), (other_low, other_high) = spans[first], spans[second]
        disjoint = max(low, other_low) > min(high, other_high) + 1e-3
        ratio = sizes[first] / sizes[second]
        if disjoint or max(ratio, 1 / ratio) > MAX_N_STAR_RATIO:
            disagreeing.append((first, second))
    listed = ", ".join(f"{name} {value:.3f}" for name, value in a.items())
    ratio = max(sizes.values()) / min(sizes.values())
    pairs = "; ".join(" and ".join(pair) for pair in disagreeing)
    verdict = (
        f"The approaches disagree ({pairs})"
        if pairs
        else "The approaches agree within their intervals"
    )
    return ApproachAgreement(
        verdict=Agreement.DISAGREE if pairs else Agreement.AGREE,
        disagreeing=disagreeing,
        n_star_ratio=ratio,
        message=f"{verdict}: a is {listed}; their N* at the largest budget lie within a factor "
        f"of {ratio:.2f}.",
    )
