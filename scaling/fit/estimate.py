"""One law, one table, one objective: the fitted law with what speaks for and against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from scaling.fit import identifiability
from scaling.fit.dataset import Dataset
from scaling.fit.document import FitStatus
from scaling.fit.law_fit import LawFit
from scaling.fit.laws.law import Law
from scaling.fit.multistart import multistart
from scaling.fit.newton import Problem, problem_of
from scaling.fit.result import Starts
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray
NEARLY_AS_GOOD = 0.05
CLOSE_TO_FLOOR = 0.05
DELTA = 1e-3  # of log losses, beyond which errors count by their size and not by their square
WIDE_DELTA = 2.0  # times the noise
MIN_WITHIN_DELTA = 3.0  # points within delta for each parameter
FEW_RUNS = 100


def estimate(
    law: Law,
    data: Dataset | Points,
    objective: str = "huber-log",
    delta: float | None = DELTA,
    *,
    fixed: Mapping[str, float] | None = None,
    where: str = "",
    near: Mapping[str, float] | None = None,
) -> LawFit:
    """Fit `law` to runs, some reported parameters `fixed` if wished, from the reported parameters
    `near` alone where the optimum is known to be there.

    A delta of None is DELTA, or WIDE_DELTA times the noise where there are few runs and
    hardly any within DELTA, so that the objective would be flat. Raises ScalingError (with `where`)
    for points that cannot determine the law, an unknown objective or parameter, a delta that is not
    positive.
    """
    data, fixed = Dataset.of(data), dict(fixed or {})
    data_warnings = identifiability.check(law, data, objective, fixed, where)
    problem = problem_of(law, data, objective, delta or DELTA, fixed)
    best, starts, converged = multistart(problem, None if near is None else law.theta(near))
    warnings, status = _diagnose(problem, best, starts, converged)
    if identifiability.collinear(problem.logs) and status is FitStatus.OK:
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
            wider = estimate(law, data, objective, wide, fixed=fixed, where=where)
            return replace(wider, delta_from_noise=True)
    return fit


def refit(fit: LawFit, points: Points, near: Mapping[str, float] | None = None) -> LawFit:
    """The same law under the same objective, fitted anew to other points, from the parameters
    `near` alone where the optimum is known to be there. Raises ScalingError.
    """
    return estimate(
        fit.law,
        points,
        fit.objective,
        fit.delta,
        fixed=fit.fixed,
        near=near,
    )


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
            f"starts disagree: {len(rivals)} other minima are within {NEARLY_AS_GOOD:.0%} of the "
            f"best, the next at {', '.join(params)}"
        )
        warnings.append(warn(WarningCode.OTHER_MINIMA, message, count=len(rivals)))
    elif starts.agree < 2 <= starts.tried:
        warnings.append(starts_disagree(starts))
    if law.floor and (best[law.floor] or 0.0) > (1 - CLOSE_TO_FLOOR) * problem.loss.min():
        message = (
            f"{law.floor} lies within {CLOSE_TO_FLOOR:.0%} of the lowest loss: the data say little "
            "about what is below it"
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
