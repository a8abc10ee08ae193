"""One law, one table, one objective: the fitted law with what speaks for and against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from scaling.fit import identifiability
from scaling.fit.dataset import Dataset
from scaling.fit.document import Estimate, FitStatus, estimates, r_squared
from scaling.fit.frontier.frontier import Cost, Frontier
from scaling.fit.laws.law import Law
from scaling.fit.multistart import multistart
from scaling.fit.newton import Problem, problem_of
from scaling.fit.noise import Noise, deviates
from scaling.fit.result import Goodness, Starts
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray
NEARLY_AS_GOOD = 0.05
CLOSE_TO_FLOOR = 0.05
DELTA = 1e-3  # of log losses, beyond which errors count by their size and not by their square
WIDE_DELTA = 2.0  # times the noise
MIN_WITHIN_DELTA = 3.0  # points within delta for each parameter
FEW_RUNS = 100


class Draws(NamedTuple):
    """Refitted parameters `theta` (R, P), internal; `kind` pairs, clusters or residual. Refits that
    did not converge, and resamples with fewer distinct points than parameters, are not in it.
    """

    theta: Array
    kind: str


@dataclass(frozen=True, eq=False)
class LawFit:
    """A law fitted to `data`. `theta` (P,) are internal coordinates; `value` is the objective
    there, a sum over points; `status` and `warnings` say how far to trust it. `fixed` holds the
    reported parameters that were not fitted, `draws` its bootstrap.
    """

    law: Law
    data: Dataset
    objective: str
    delta: float
    theta: Array
    value: float
    status: FitStatus
    warnings: tuple[ResultWarning, ...]
    starts: Starts
    fixed: Mapping[str, float] = field(default_factory=dict)
    draws: Draws | None = None
    delta_from_noise: bool = False

    @property
    def values(self) -> dict[str, float]:
        """The reported parameters."""
        return {name: float(value) for name, value in self.law.values(self.theta).items()}

    @property
    def n_free(self) -> int:
        """How many parameters were fitted."""
        return len(self.law.params) - len(self.fixed)

    def predict(self, points: Points, theta: Array | None = None) -> Array:
        """Log losses (..., n) of points by the law, at its own parameters or at `theta` (..., P);
        losses where the law is signed.
        """
        at = self.theta if theta is None else theta
        return self.law.log_predict(at, points.inputs(self.law.inputs))

    @cached_property
    def residuals(self) -> Array:
        """Log losses (n,) above the law; losses where the law is signed."""
        loss = self.data.points.loss if self.law.signed else self.data.log_loss
        return loss - self.predict(self.data.points)

    @cached_property
    def problem(self) -> Problem:
        """What was minimised."""
        return problem_of(self.law, self.data, self.objective, self.delta, self.fixed)

    @cached_property
    def noise(self) -> Noise:
        """The noise of one run about the law and the outliers: of log losses, or of losses relative
        to their mean where the objective is one of losses.
        """
        problem = self.problem
        at = problem.centred(self.theta)
        residual, expansion = problem.residual(at), problem.bound(at[None])
        design = expansion.gradient[0, problem.free].T
        if not problem.objective.log:
            mean = float(problem.loss.mean())
            residual = residual / mean
            design = design * (np.exp(expansion.value[0]) / mean)[:, None]
        root = np.sqrt(problem.weight / problem.weight.mean())  # `sd` is that of a mean weight
        return deviates(residual * root, design * root[:, None])

    @cached_property
    def drawn(self) -> dict[str, Array]:
        """The draws as reported parameters (R,); empty without draws."""
        few = self.draws is None or len(self.draws.theta) < 2
        return {} if few or self.draws is None else self.law.values(self.draws.theta)

    @cached_property
    def optimum(self) -> Frontier | None:
        """The compute-optimal frontier under the runs' own cost, where the law has one."""
        if not self.law.has_frontier:
            return None
        return self.law.frontier(self.values, self.data.cost)

    @cached_property
    def optimum_draws(self) -> Frontier | None:
        """The frontier of the draws."""
        if self.optimum is None or not self.drawn:
            return None
        return self.law.frontier(self.drawn, self.data.cost)

    def params(self, ci: float) -> dict[str, Estimate]:
        """The reported parameters with their intervals; fixed ones have none."""
        free = {name: draws for name, draws in self.drawn.items() if name not in self.fixed}
        return estimates(self.values, free, ci)

    def derived(self, ci: float) -> dict[str, Estimate]:
        """The exponents a and b under the runs' own cost, and what the law derives at C = 6 N D (G,
        ...).
        """
        optimum, powers = self.optimum, {}
        if optimum is not None and np.isfinite(optimum.a):
            powers = optimum.exponents(self.optimum_draws, ci)
        if self.law.derived is None or self.data.cost != Cost():
            return powers
        spread = self.law.derived(self.drawn) if self.drawn else {}
        return powers | estimates(self.law.derived(self.law.values(self.theta)), spread, ci)

    def goodness(self) -> Goodness:
        """How well the law fits: relative errors, R2 of the loss above the fitted floor (above 0
        without one), the correlation of the draws, and information criteria of normal log losses.
        """
        loss, predicted = self.data.points.loss, self.law.from_log(self.predict(self.data.points))
        if self.law.signed:
            return Goodness(rmse_percent=None, r2_excess=r_squared(loss, predicted))
        weight, positive = self.data.weight, loss > 0
        relative = predicted[positive] / loss[positive] - 1
        floor = self.values.get(self.law.floor, 0.0)
        excess = loss > floor
        above, by_law = loss[excess] - floor, np.maximum(predicted[excess] - floor, 1e-300)
        correlation = aic = bic = None
        names = [name for name in self.law.names if name not in self.fixed]
        if self.draws is not None and len(self.draws.theta) > self.n_free and len(names) > 1:
            free = self.draws.theta[:, [self.law.index(name) for name in names]]
            with np.errstate(invalid="ignore", divide="ignore"):
                rows = np.corrcoef(free, rowvar=False).tolist()
            pairs = zip(names, rows, strict=True)
            correlation = {name: dict(zip(names, row, strict=True)) for name, row in pairs}
        squares = float(np.average(self.residuals**2, weights=weight)) if positive.all() else 0.0
        if squares > 0:
            count, free_count = int((weight > 0).sum()), self.n_free + 1  # and the variance
            log_likelihood = -count / 2 * (np.log(2 * np.pi * squares) + 1)
            aic = 2 * free_count - 2 * log_likelihood
            bic = free_count * np.log(count) - 2 * log_likelihood
        return Goodness(
            rmse_percent=100 * float(np.sqrt(np.mean(relative**2))),
            r2_excess=r_squared(np.log(above), np.log(by_law)),
            correlation=correlation,
            aic=aic,
            bic=bic,
        )


def estimate(
    law: Law,
    data: Dataset | Points,
    objective: str = "huber-log",
    delta: float | None = DELTA,
    *,
    fixed: Mapping[str, float] | None = None,
    near: Mapping[str, float] | None = None,
) -> LawFit:
    """Fit `law` to runs, some reported parameters `fixed` if wished, from the reported parameters
    `near` alone where the optimum is known to be there.

    A delta of None is DELTA, or WIDE_DELTA times the noise where there are few runs and
    hardly any within DELTA, so that the objective would be flat. Raises ScalingError for
    points that cannot determine the law, an unknown objective or parameter, a delta that is not
    positive.
    """
    data, fixed = Dataset.of(data), dict(fixed or {})
    data_warnings = identifiability.check(law, data, objective, fixed)
    problem = problem_of(law, data, objective, delta or DELTA, fixed)
    best, starts, converged = multistart(problem, None if near is None else law.theta(near))
    warnings, status = _diagnose(problem, best, starts, converged)
    has_one_ratio = any(each.code is WarningCode.ONE_RATIO for each in data_warnings)
    if has_one_ratio and status is FitStatus.OK:
        status = FitStatus.NOT_IDENTIFIED
    fit = LawFit(
        law=law,
        data=data,
        objective=objective,
        delta=problem.delta,
        theta=problem.raw(best),
        value=float(starts.minima[0].value or 0.0),
        status=status,
        warnings=(*data_warnings, *warnings),
        starts=starts,
        fixed=fixed,
    )
    if delta is None and problem.objective.kind == "huber" and len(data) < FEW_RUNS:
        inside = int((np.abs(problem.residual(best)) <= DELTA).sum())
        wide = WIDE_DELTA * fit.noise.sd
        wide *= 1.0 if problem.objective.log else float(problem.loss.mean())
        if inside < MIN_WITHIN_DELTA * fit.n_free and wide > DELTA:
            wider = estimate(law, data, objective, wide, fixed=fixed)
            return replace(wider, delta_from_noise=True)
    return fit


def refit(fit: LawFit, points: Points, near: Mapping[str, float] | None = None) -> LawFit:
    """The same law under the same objective, fitted anew to other points, from the parameters
    `near` alone where the optimum is known to be there. Raises ScalingError.
    """
    return estimate(fit.law, points, fit.objective, fit.delta, fixed=fit.fixed, near=near)


def _diagnose(
    problem: Problem, theta: Array, starts: Starts, converged: bool
) -> tuple[list[ResultWarning], FitStatus]:
    """Warnings, and the status they add up to."""
    law, warnings, (minimum, *others) = problem.law, [], starts.minima
    best, limit = minimum.params, (minimum.value or 0.0) * (1 + NEARLY_AS_GOOD)
    rivals = [one.params for one in others if (one.value or 0.0) <= limit]
    is_inside = (problem.lower < theta) & (theta < problem.upper)
    at_bound = [i for i in problem.free if not is_inside[i]]
    for name in (law.names[i] for i in at_bound):
        message = f"{name} = {best[name]:.4g} is at its bound: the data do not determine it"
        warnings.append(warn(WarningCode.AT_BOUND, message, param=name))
    moving = problem.bound(theta[None]).gradient[0, is_inside].T
    condition = identifiability.condition(moving, problem.weight)
    if is_ill := condition > identifiability.CONDITION:
        message = f"parameters trade against each other (condition number {condition:.2g})"
        warnings.append(warn(WarningCode.ILL_CONDITIONED, f"not identified: {message}"))
    if rivals:
        params = [f"{k} {value:.4g}" for k, value in rivals[0].items() if value != best.get(k)]
        message = (
            f"starts disagree: {len(rivals)} other minima are within {100 * NEARLY_AS_GOOD:.0f} % "
            f"of the best, the next at {', '.join(params)}"
        )
        warnings.append(warn(WarningCode.OTHER_MINIMA, message, count=len(rivals)))
    elif starts.agree < 2 <= starts.tried:
        warnings.append(starts_disagree(starts))
    if law.floor and (best[law.floor] or 0.0) > (1 - CLOSE_TO_FLOOR) * problem.loss.min():
        message = (
            f"{law.floor} lies within {100 * CLOSE_TO_FLOOR:.0f} % of the lowest loss: the data "
            "say little about what is below it"
        )
        warnings.append(warn(WarningCode.NEAR_FLOOR, message))
    if at_bound or is_ill or rivals:
        return warnings, FitStatus.NOT_IDENTIFIED
    if converged:
        return warnings, FitStatus.OK
    warnings.append(warn(WarningCode.NOT_CONVERGED, "the best start did not converge"))
    return warnings, FitStatus.NOT_CONVERGED


def starts_disagree(starts: Starts) -> ResultWarning:
    """The warning that one start alone reached the best minimum."""
    message = f"starts disagree: only {starts.agree} of {starts.tried} reached the best minimum"
    return warn(WarningCode.STARTS_DISAGREE, message, agree=starts.agree)
