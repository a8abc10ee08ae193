"""One law, one table, one objective: Points -> the global optimum, with what speaks for its being
global.

A law is linear in its coefficients: over a grid of exponents these are solved for exactly (variable
projection, Golub and Pereyra 1973), which shows every basin. From the best cell of each block of
that grid the full objective is then descended to convergence, and the distinct minima are
listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, product

import numpy as np

from scaling.errors import ScalingError
from scaling.fit import identifiability
from scaling.fit.document import FitStatus
from scaling.fit.laws.formula import FormulaLaw
from scaling.fit.laws.law import Law
from scaling.fit.laws.objectives import objective as objective_named
from scaling.fit.newton import Problem, concatenate, continuation, problem, subsample, with_fixed
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray
MOST_STARTS = 16
# starts that descend from a wide delta too when the others disagree: it smooths the small basins
# away
GUIDED = 4
SEARCHED = 2000  # points that the search for basins looks at
MIDDLE = 40_000  # points that choose among the basins
FINALISTS = 3
SAME_PLACE = 1e-4  # of centred coordinates: closer rows ended in one minimum
NEARLY_AS_GOOD = 0.05
CLOSE_TO_FLOOR = 0.05
FLOOR_SHARES = (
    0.0,
    0.3,
    0.5,
    0.65,
    0.8,
    0.9,
)  # of the least loss: floors to start from outside a root
SLIGHT = 1e-3  # of the mean loss: the least share of it that a start gives to a term


@dataclass(frozen=True)
class LocalMinimum:
    """A local minimum: its objective, its reported parameters, and how many starts ended in it."""

    value: float
    params: Mapping[str, float]
    starts: int


@dataclass(frozen=True)
class MultistartSummary:
    """How many starts were tried, how many converged, how many agree on the best minimum; the
    minima, best first.
    """

    tried: int
    converged: int
    agree: int
    minima: tuple[LocalMinimum, ...]


@dataclass(frozen=True)
class PointEstimate:
    """A fitted law. `theta` (P,) are internal coordinates; `value` is the objective there, a sum
    over points; `status` and `warnings` say how far to trust it. `fixed` holds the reported
    parameters that were not fitted, `one_sided` the weight of runs above the law.
    """

    law: Law
    theta: Array
    objective: str
    delta: float
    value: float
    status: FitStatus
    warnings: tuple[ResultWarning, ...]
    starts: MultistartSummary
    fixed: Mapping[str, float] = field(default_factory=dict)
    one_sided: float = 1.0

    @property
    def values(self) -> dict[str, float]:
        """The reported parameters."""
        return {name: float(value) for name, value in self.law.values(self.theta).items()}

    def residuals(self, points: Points) -> Array:
        """Log losses (n,) above the law; losses where the law is signed."""
        predicted = self.law.log_predict(self.theta, points.inputs(self.law.inputs))
        return self.law.to_log(points.loss) - predicted


def estimate(
    law: Law,
    points: Points,
    objective: str = "huber-log",
    delta: float = 1e-3,
    *,
    fixed: Mapping[str, float] | None = None,
    one_sided: float = 1.0,
    where: str = "",
) -> PointEstimate:
    """Fit `law` to `points`, some reported parameters `fixed` if wished.

    Raises ScalingError (with `where`) for points that cannot determine the law, an unknown
    objective or parameter, a delta that is not positive.
    """
    fixed = dict(fixed or {})
    data_warnings = identifiability.check(law, points, fixed, where)
    task = problem_of(law, points, objective, delta, fixed, one_sided)
    best, starts, certain = _multistart(task)
    warnings, status = _diagnose(task, best, starts, certain)
    if identifiability.collinear(task.logs) and status is FitStatus.OK:
        status = FitStatus.NOT_IDENTIFIED
    return PointEstimate(
        law,
        task.raw(best),
        objective,
        delta,
        starts.minima[0].value,
        status,
        (*data_warnings, *warnings),
        starts,
        fixed,
        one_sided,
    )


def problem_of(
    law: Law,
    points: Points,
    objective: str,
    delta: float,
    fixed: Mapping[str, float] | None = None,
    one_sided: float = 1.0,
) -> Problem:
    """The problem that `estimate`, `bootstrap` and `profile` share. Raises ScalingError for unknown
    names and a bad delta.
    """
    if not (np.isfinite(delta) and delta > 0):
        raise ScalingError(
            f"delta = {delta:g} is not a positive number",
            remedy="the usual delta is 1e-3, in log loss",
        )
    if not 0 < one_sided <= 1:
        raise ScalingError(
            f"one_sided = {one_sided:g} is no weight", remedy="give a number above 0, up to 1"
        )
    penalty = replace(objective_named(objective), above=one_sided)
    task = problem(
        law,
        points.inputs(law.inputs),
        np.asarray(points.loss, float),
        points.weight,
        penalty,
        delta,
    )
    return with_fixed(task, fixed) if fixed else task


def refitted(fitted: PointEstimate, points: Points) -> PointEstimate:
    """The optimum of other points of the same kind, descended to from where these ended."""
    task = problem_of(
        fitted.law, points, fitted.objective, fitted.delta, fitted.fixed, fitted.one_sided
    )
    ends = continuation(
        task, task.centred(fitted.theta)[None], spread(task, task.centred(fitted.theta))
    )
    return replace(fitted, theta=task.raw(ends.theta[0]), value=float(ends.value[0]))


def spread(task: Problem, theta: Array) -> float:
    """The typical size of the residuals at theta (P,), from which delta is narrowed."""
    log_loss = task.law.bind(task.logs)(theta[None]).value[0]
    return float(np.median(np.abs(task.objective.residual(log_loss, task.loss, task.log_loss))))


def penalty(task: Problem, theta: Array) -> Array:
    """The objective itself (R,) at centred theta (R, P): of least absolute deviations without
    smoothing.
    """
    log_loss = task.law.bind(task.logs)(theta).value
    return (
        task.objective.rho(task.objective.residual(log_loss, task.loss, task.log_loss), task.delta)
        @ task.weight
    )


def _multistart(task: Problem) -> tuple[Array, MultistartSummary, bool]:
    """The best minimum (P,) in centred coordinates, how the starts ended, and whether the best one
    converged.
    """
    search = subsample(task, SEARCHED)
    begun = starts(search)
    wide = spread(search, begun[0])
    ends = continuation(search, begun, search.delta)
    places, owner = _distinct(ends.theta, ends.value)
    if len(places) > 1:
        ends = concatenate(ends, continuation(search, begun[:GUIDED], wide))
        places, owner = _distinct(ends.theta, ends.value)
    converged = int(ends.converged.sum())
    for stage in _stages(
        search, task
    ):  # a large table decides between the few best of what a part of it shows
        ends = continuation(stage, ends.theta[places[:FINALISTS]], stage.delta)
        places, again = _distinct(ends.theta, ends.value)
        owner = again[owner[owner < FINALISTS]]
    counts = np.bincount(owner, minlength=len(places))
    reported = task.law.values(task.raw(ends.theta[places]))
    value = penalty(task, ends.theta[places])
    minima = tuple(
        LocalMinimum(
            float(value[row]),
            {name: float(column[row]) for name, column in reported.items()},
            int(counts[row]),
        )
        for row in range(len(places))
    )
    return (
        ends.theta[places[0]],
        MultistartSummary(len(owner), converged, minima[0].starts, minima),
        bool(ends.converged[places[0]]),
    )


def _stages(search: Problem, task: Problem) -> list[Problem]:
    """What follows the search: nothing when it saw all points, else a part of them and then all."""
    if search is task:
        return []
    middle = subsample(task, MIDDLE)
    return [task] if middle is task else [middle, task]


def _distinct(theta: Array, value: Array) -> tuple[list[int], Array]:
    """One row of each place where rows (R, P) ended, the lowest first, and which of these each row
    belongs to.
    """
    places: list[int] = []
    owner = np.full(len(theta), -1)
    for row in np.argsort(value, kind="stable"):
        if owner[row] < 0:
            near = (np.abs(theta - theta[row]) <= SAME_PLACE * (1 + np.abs(theta[row]))).all(1) & (
                owner < 0
            )
            owner[near] = len(places)
            places.append(int(row))
    return places, owner


def starts(task: Problem) -> Array:
    """Starts (R, P) in centred coordinates, the most promising first: the best cell of each block
    of the grid.
    """
    law = task.law
    if isinstance(law, FormulaLaw):
        from scaling.fit.laws.formula_starts import starts as drawn

        data = task.logs, task.loss, task.weight
        return drawn(law, *data, task.lower, task.upper, MOST_STARTS)
    is_fixed = task.lower == task.upper
    axes = [
        (task.lower[i],) if is_fixed[i] else param.grid or (0.0,)
        for i, param in enumerate(law.params)
    ]
    theta = np.array(list(product(*axes)))
    theta, cost = _solved(task, theta)
    theta = np.clip(theta, task.lower, task.upper)
    edge = next(
        size
        for size in range(1, 100)
        if np.prod([-(-len(axis) // size) for axis in axes]) <= MOST_STARTS
    )
    blocks = np.stack(
        np.meshgrid(*(np.arange(len(axis)) // edge for axis in axes), indexing="ij"), -1
    ).reshape(len(theta), -1)
    order = np.argsort(cost, kind="stable")
    _, first = np.unique(blocks[order], axis=0, return_index=True)
    return theta[order[np.sort(first)]]


def _solved(task: Problem, theta: Array) -> tuple[Array, Array]:
    """Theta (G, P) with the coefficients that are best at its exponents, and the sum of squared
    relative errors there (G,).

    The loss, to the power 1/T under a root T, is fitted as a sum of the law's powers with
    coefficients >= 0. A floor is solved for too, but one outside a root is taken from a grid.
    """
    law = task.law
    if not (law.floor and law.root):
        return _solved_at(task, theta, None)
    tried = [_solved_at(task, theta.copy(), share * task.loss.min()) for share in FLOOR_SHARES]
    best, rows = np.argmin([cost for _, cost in tried], axis=0), np.arange(len(theta))
    return np.array([each for each, _ in tried])[best, rows], np.array([cost for _, cost in tried])[
        best, rows
    ]


def _solved_at(task: Problem, theta: Array, floor: float | None) -> tuple[Array, Array]:
    """`_solved` with the floor at a given value (None: solved for)."""
    law = task.law
    excess = task.loss - (floor or 0.0)
    warmth = theta[:, law.index(law.root), None] if law.root else np.ones((len(theta), 1))
    logs = (law.log_columns(theta, task.logs) - np.log(excess)) / warmth[:, None]
    largest = logs.max(2)
    columns = np.exp(logs - largest[:, :, None])
    places = [law.index(term.coefficient) for term in law.terms]
    if law.floor and floor is None:
        columns = np.concatenate(
            [columns, np.broadcast_to(1 / task.loss, (len(theta), 1, len(task.loss)))], 1
        )
    coefficients, cost = _nonnegative(columns, task.weight * (excess / task.loss) ** 2)
    if law.floor:
        theta[:, law.index(law.floor)] = coefficients[:, -1] if floor is None else floor
    share = np.log(np.maximum(coefficients[:, : len(places)], 1e-300)) - largest
    theta[:, places] = warmth * np.maximum(share, np.log(SLIGHT) + np.mean(np.log(excess)) / warmth)
    return theta, cost * warmth[:, 0] ** 2


def _nonnegative(columns: Array, weight: Array) -> tuple[Array, Array]:
    """The x >= 0 (G, K) that bring columns (G, K, n) closest to 1 in weighted squares, and the
    squares left (G,).

    K is at most 3, so every set of coefficients that are not 0 is tried.
    """
    weighted = columns * weight
    gram, right = weighted @ columns.transpose(0, 2, 1), weighted.sum(2)
    best, cost = np.zeros_like(right), np.full(len(right), weight.sum())
    count = right.shape[1]
    for chosen in chain.from_iterable(
        combinations(range(count), size) for size in range(1, count + 1)
    ):
        rows = list(chosen)
        part, target = gram[:, rows][:, :, rows], right[:, rows]
        length = np.sqrt(np.einsum("gkk->gk", part))
        scaled = part / (length[:, :, None] * length[:, None, :]) + 1e-12 * np.eye(len(rows))
        solution = np.linalg.solve(scaled, (target / length)[:, :, None])[:, :, 0] / length
        left = weight.sum() - (solution * target).sum(1)
        better = (solution >= 0).all(1) & (left < cost)
        cost = np.where(better, left, cost)
        best[better] = 0.0
        best[np.ix_(better, rows)] = solution[better]
    return best, cost


def _diagnose(
    task: Problem, theta: Array, tried: MultistartSummary, certain: bool
) -> tuple[list[ResultWarning], FitStatus]:
    """Warnings, and the status they add up to."""
    law, best = task.law, tried.minima[0]
    at_bound = _at_bounds(task, theta)
    moving = [i for i in range(len(theta)) if task.lower[i] < task.upper[i] and i not in at_bound]
    condition = identifiability.condition(
        task.law.bind(task.logs)(theta[None]).gradient[0, moving].T, task.weight
    )
    rivals = [one for one in tried.minima[1:] if one.value <= best.value * (1 + NEARLY_AS_GOOD)]
    warnings = []
    for name in (law.names[i] for i in at_bound):
        message = f"{name} = {best.params[name]:.4g} is at its bound: the data do not determine it"
        warnings.append(warn(WarningCode.AT_BOUND, message, param=name))
    if condition > identifiability.CONDITION:
        message = (
            "not identified: parameters trade against each other "
            f"(condition number {condition:.2g})"
        )
        warnings.append(warn(WarningCode.ILL_CONDITIONED, message))
    if rivals:
        params = ", ".join(
            f"{name} {value:.4g}"
            for name, value in rivals[0].params.items()
            if name not in best.params or value != best.params[name]
        )
        message = (
            f"starts disagree: {len(rivals)} other minima are within {NEARLY_AS_GOOD:.0%} of the "
            f"best, the next at {params}"
        )
        warnings.append(warn(WarningCode.OTHER_MINIMA, message, count=len(rivals)))
    elif tried.agree < 2 <= tried.tried:
        message = f"starts disagree: only {tried.agree} of {tried.tried} reached the best minimum"
        warnings.append(warn(WarningCode.STARTS_DISAGREE, message, agree=tried.agree))
    if law.floor and best.params[law.floor] > (1 - CLOSE_TO_FLOOR) * task.loss.min():
        message = (
            f"{law.floor} lies within {CLOSE_TO_FLOOR:.0%} of the lowest loss: the data say little "
            "about what is below it"
        )
        warnings.append(warn(WarningCode.NEAR_FLOOR, message))
    if at_bound or condition > identifiability.CONDITION or rivals:
        return warnings, FitStatus.NOT_IDENTIFIED
    if certain:
        return warnings, FitStatus.OK
    warnings.append(warn(WarningCode.NOT_CONVERGED, "the best start did not converge"))
    return warnings, FitStatus.NOT_CONVERGED


def _at_bounds(task: Problem, theta: Array) -> list[int]:
    """The free parameters that ended at a bound."""
    return [
        i
        for i in range(len(theta))
        if task.lower[i] < task.upper[i] and not task.lower[i] < theta[i] < task.upper[i]
    ]
