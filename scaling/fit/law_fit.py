"""A law fitted to points, with its bootstrap, and carried to its compute-optimal frontier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.fit.bootstrap import Draws, bootstrap
from scaling.fit.document import Estimate, FitStatus, estimates, subsample_draws
from scaling.fit.estimate import PointEstimate, estimate
from scaling.fit.frontier.frontier import Cost, Frontier, fit_cost
from scaling.fit.options import FitOptions
from scaling.fit.profile import Profile, profile
from scaling.fit.result import (
    Bootstrap,
    Goodness,
    Identification,
    Objective,
    ObjectiveMinimum,
    ProfileInterval,
    Starts,
)
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

MAX_FAILED = 0.05  # of the refits, before a warning


@dataclass(frozen=True)
class LawFit:
    """A law fitted to points; `drawn` are its draws (R,) as reported parameters, `optimum` its
    frontier where it has one.
    """

    estimate: PointEstimate
    draws: Draws | None
    drawn: Mapping[str, np.ndarray]
    cost: Cost
    optimum: Frontier | None
    optimum_draws: Frontier | None

    def params(self, ci: float) -> dict[str, Estimate]:
        """The reported parameters with their intervals; fixed ones have none."""
        free = {
            name: draws for name, draws in self.drawn.items() if name not in self.estimate.fixed
        }
        return estimates(self.estimate.values, free, ci)

    def objective(self) -> Objective:
        """What was minimised, and its value."""
        fitted = self.estimate
        return Objective(name=fitted.objective, delta=fitted.delta, value=fitted.value)

    def derived(self, ci: float) -> dict[str, Estimate]:
        """The exponents a and b under the runs' own cost, and what the law derives at C = 6 N D (G,
        ...).
        """
        law = self.estimate.law
        if law.derived is None or self.cost != Cost():
            return exponents(self.optimum, self.optimum_draws, ci)
        spread = law.derived(self.drawn) if self.drawn else {}
        values = law.derived(_arrays(self.estimate.values))
        return estimates(values, spread, ci) | exponents(self.optimum, self.optimum_draws, ci)

    def goodness(self, points: Points) -> Goodness:
        """RMSE of the loss in percent, and R2 of the loss above the fitted floor (above 0 without
        one).
        """
        fitted = self.estimate
        predicted = fitted.law.predict(fitted.theta, points.inputs(fitted.law.inputs))
        if fitted.law.signed:
            left = float(np.mean((predicted - points.loss) ** 2) / np.var(points.loss))
            return Goodness(rmse_percent=None, r2_excess=1 - left)
        relative = predicted / points.loss - 1
        floor = fitted.values.get(fitted.law.floor, 0.0) if fitted.law.floor else 0.0
        excess = points.loss > floor
        log_excess = np.log(points.loss[excess] - floor)
        missed = np.log(np.maximum(predicted[excess] - floor, 1e-300)) - log_excess
        scatter = float(np.sum((log_excess - log_excess.mean()) ** 2)) if excess.any() else 0.0
        r2 = 1 - float(np.sum(missed**2)) / scatter if scatter else None
        return Goodness(rmse_percent=100 * float(np.sqrt(np.mean(relative**2))), r2_excess=r2)


def fit_law(points: Points, law: str, options: FitOptions, resamples: int | None = None) -> LawFit:
    """A law fitted to points, bootstrapped, and carried to its frontier. Raises ScalingError when
    it cannot be identified.
    """
    fixed = options.fixed() if law == options.law else {}
    chosen = options.law_named(law)
    fitted = estimate(
        chosen,
        points,
        options.objective,
        options.delta,
        fixed=fixed,
        one_sided=options.one_sided,
    )
    count = options.bootstrap if resamples is None else min(resamples, options.bootstrap)
    draws = (
        bootstrap(fitted, points, count, options.seed, points.group, options.resample)
        if count
        else None
    )
    drawn = chosen.values(draws.theta) if draws is not None and len(draws.theta) > 1 else {}
    cost = fit_cost(points)
    has_frontier = chosen.closed_frontier is not None
    optimum = chosen.frontier(fitted.values, cost) if has_frontier else None
    return LawFit(
        estimate=fitted,
        draws=draws,
        drawn=drawn,
        cost=cost,
        optimum=optimum,
        optimum_draws=chosen.frontier(drawn, cost) if drawn and optimum else None,
    )


def _arrays(values: Mapping[str, float]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in values.items()}


def parametric_fields(fit: LawFit, points: Points, options: FitOptions) -> dict[str, Any]:
    """The fields of a FitResult that approach 3 fills: parameters, and how well the data settle
    them.
    """
    fitted, draws = fit.estimate, fit.draws
    profiles = profile(fitted, points, options.ci)
    open_names = [name for name, interval in profiles.items() if not interval.identified]
    status = fitted.status
    if open_names and status is FitStatus.OK:
        status = FitStatus.NOT_IDENTIFIED
    bootstrap_part = None
    if draws is not None:
        bootstrap_part = bootstrap_result(
            draws.kind, draws.resamples, draws.failed, options, fit.drawn
        )
    return {
        "objective": fit.objective(),
        "goodness": fit.goodness(points),
        "params": {
            name: _without_open_se(value, profiles.get(name))
            for name, value in fit.params(options.ci).items()
        },
        "derived": fit.derived(options.ci),
        "status": status,
        "warnings": [*fitted.warnings, *_warnings(fit, open_names)],
        "identification": Identification(
            profile={
                name: ProfileInterval(lo=each.lo, hi=each.hi, identified=each.identified)
                for name, each in profiles.items()
            },
            starts=Starts(
                tried=fitted.starts.tried,
                converged=fitted.starts.converged,
                agree=fitted.starts.agree,
                minima=[
                    ObjectiveMinimum(value=each.value, params=dict(each.params), starts=each.starts)
                    for each in fitted.starts.minima
                ],
            ),
        ),
        "bootstrap": bootstrap_part,
    }


def _without_open_se(value: Estimate, interval: Profile | None) -> Estimate:
    """A standard error says nothing where the profile interval is open on a side."""
    is_open = interval is not None and (interval.lo is None or interval.hi is None)
    return value.model_copy(update={"se": None}) if is_open else value


def _warnings(fit: LawFit, open_names: list[str]) -> list[ResultWarning]:
    warnings, draws = [], fit.draws
    codes = {warning.code for warning in fit.estimate.warnings}
    if open_names and WarningCode.ILL_CONDITIONED not in codes:
        message = (
            f"not identified by these data: {', '.join(open_names)}: values far outside their "
            "intervals fit about as well"
        )
        warnings.append(warn(WarningCode.NOT_IDENTIFIED, message, params=open_names))
    if draws is not None and draws.failed > MAX_FAILED * draws.resamples:
        message = f"{draws.failed} of {draws.resamples} refits failed: the intervals are too narrow"
        warnings.append(warn(WarningCode.FAILED_RESAMPLES, message, failed=draws.failed))
    return warnings


def bootstrap_result(
    kind: str, resamples: int, failed: int, options: FitOptions, drawn: Mapping[str, np.ndarray]
) -> Bootstrap:
    """How the draws were made, how many failed, and the draws themselves."""
    return Bootstrap(
        kind=kind,
        resamples=resamples,
        seed=options.seed,
        failed=failed,
        draws=subsample_draws(drawn),
    )


def exponents(optimum: Frontier | None, draws: Frontier | None, ci: float) -> dict[str, Estimate]:
    """The exponents {a, b} of a frontier with their intervals; empty without a frontier."""
    if optimum is None:
        return {}
    values = {"a": float(optimum.a), "b": float(optimum.b)}
    return estimates(values, {"a": draws.a, "b": draws.b} if draws else None, ci)
