"""A law fitted to points and carried to its frontier: what heads a parametric document, and what is fitted beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.fit.bootstrap import Draws, bootstrap
from scaling.fit.estimate import Estimate, estimate
from scaling.fit.fit_document import interval, subsample_draws
from scaling.fit.frontier.frontier import CLOSED, Cost, Frontier, fit_cost, frontier
from scaling.fit.laws.laws import LAWS
from scaling.fit.options import FitOptions
from scaling.fit.profile import profile
from scaling.points.points import Points


@dataclass(frozen=True)
class LawFit:
    """A law fitted to points, with its draws as reported parameters and the frontier that follows (None: it has none)."""

    estimate: Estimate
    draws: Draws | None
    drawn: Mapping[str, np.ndarray] | None
    cost: Cost
    optimum: Frontier | None
    optimum_draws: Frontier | None


def fit_law(points: Points, law: str, options: FitOptions, resamples: int | None = None) -> LawFit:
    """A law fitted to points, bootstrapped, and carried to its frontier. Raises ScalingError when it cannot be identified."""
    fixed = options.fixed() if law == options.law else {}
    found = estimate(
        LAWS[law],
        points,
        options.objective,
        options.delta,
        fixed=fixed,
        one_sided=options.one_sided,
    )
    count = options.bootstrap if resamples is None else min(resamples, options.bootstrap)
    draws = (
        bootstrap(found, points, count, options.seed, points.group, options.resample)
        if count
        else None
    )
    drawn = LAWS[law].values(draws.theta) if draws is not None and len(draws.theta) > 1 else None
    cost = fit_cost(points)
    optimum = frontier(law, _arrays(found.values), cost) if law in CLOSED else None
    return LawFit(
        found,
        draws,
        drawn,
        cost,
        optimum,
        frontier(law, drawn, cost) if drawn and optimum else None,
    )


def _arrays(values: Mapping[str, float]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in values.items()}


def parametric_head(fitted: LawFit, points: Points, options: FitOptions) -> dict[str, Any]:
    """What heads a document of approach 3: parameters, what follows from them, and how well the data settle them."""
    found = fitted.estimate
    profiles = profile(found, points, options.ci)
    loose = [name for name, each in profiles.items() if not each.identified]
    warnings = list(found.warnings)
    if loose and not any("not identified" in text for text in warnings):
        warnings.append(
            f"not identified by these data: {', '.join(loose)}: values far outside their intervals fit about as well"
        )
    drawn, draws = fitted.drawn or {}, fitted.draws
    if draws is not None and draws.failed > 0.05 * draws.resamples:
        warnings.append(
            f"{draws.failed} of {draws.resamples} refits failed: the intervals are too narrow"
        )
    return {
        "objective": {"name": found.objective, "delta": found.delta, "value": found.value},
        "params": {
            name: interval(value, None if name in found.fixed else drawn.get(name), options.ci)
            for name, value in found.values.items()
        },
        "derived": _derived(fitted, options.ci),
        "status": "not-identified" if loose and found.status == "ok" else found.status,
        "warnings": warnings,
        "identification": {
            "profile": {
                name: {"lo": each.lo, "hi": each.hi, "identified": each.identified}
                for name, each in profiles.items()
            },
            "starts": found.starts.summary(),
        },
        **(
            {"bootstrap": bootstrap_of(draws.kind, draws.resamples, draws.failed, options, drawn)}
            if draws is not None
            else {}
        ),
    }


def bootstrap_of(
    kind: str, resamples: int, failed: int, options: FitOptions, drawn: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The document's `bootstrap`: how the draws were made, how many failed, and the draws themselves."""
    return {
        "kind": kind,
        "resamples": resamples,
        "seed": options.seed,
        "failed": failed,
        "draws": subsample_draws(drawn),
    }


def _derived(fitted: LawFit, ci: float) -> dict[str, Any]:
    """The exponents a and b under the runs' own cost, and what else the law derives at C = 6 N D (G, ...)."""
    law, drawn = fitted.estimate.law, fitted.drawn
    more = (
        law.derived(_arrays(fitted.estimate.values))
        if law.derived and fitted.cost == Cost()
        else {}
    )
    spread = law.derived(drawn) if law.derived and drawn else {}
    found = {name: interval(float(value), spread.get(name), ci) for name, value in more.items()}
    return {**found, **exponents(fitted.optimum, fitted.optimum_draws, ci)}


def exponents(optimum: Frontier | None, draws: Frontier | None, ci: float) -> dict[str, Any]:
    """The exponents {a, b} of a frontier with their intervals; empty without a frontier."""
    if optimum is None:
        return {}
    return {
        name: interval(float(getattr(optimum, name)), getattr(draws, name) if draws else None, ci)
        for name in ("a", "b")
    }
