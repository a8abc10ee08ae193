"""Damped Newton steps with exact second derivatives, for many starts or many resamples at once.

Each row is a fit of its own, with its own parameters, weights and damping; rows leave as they
converge. A step solves (H + lambda D) p = -g: H is the Hessian, or where that is not positive
definite the curvature M of a parabola that lies above the penalty, and D the diagonal of M. lambda
= 0 is Newton's step, and a row has converged when that is tiny: with a Huber delta far below the
residuals the curvature sits in the few points inside delta, and a test of the value alone would
stop early.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from scaling.errors import ScalingError, unknown_choice
from scaling.fit.dataset import Dataset
from scaling.fit.laws.derivatives import Bound, Inputs, product
from scaling.fit.laws.law import Law
from scaling.fit.laws.objectives import Objective
from scaling.fit.laws.objectives import objective as objective_named

Array = np.ndarray
BLOCK = 8192  # numbers in one array of the inner loop: what stays in a core's own cache
# of the last full Newton step, relative to 1 + |theta|; what is left after it is far less
TOLERANCE = 1e-7
MAX_STEPS = 400
ROUNDING = 1e-15  # of a log loss
# damping: the first that is tried, the least that is not none, where a row gives up
INITIAL_DAMPING, MIN_DAMPING, MAX_DAMPING = 1e-3, 1e-7, 1e12
MAX_DAMPING_CUT = 5.0  # the most that one good step divides the damping by


@dataclass(frozen=True)
class Problem:
    """A law on a table under an objective, in centred units. `lower` and `upper` are (P,), the
    weights and losses (n,), or (R, n) where each of R fits has its own; `centre` takes raw
    theta to centred theta.
    """

    law: Law
    objective: Objective
    delta: float
    inputs: Inputs
    loss: Array
    log_loss: Array
    weight: Array
    centre: Array
    lower: Array
    upper: Array

    @cached_property
    def bound(self) -> Bound:
        """The law at these inputs."""
        return self.law.bind(self.inputs)

    @cached_property
    def rounding(self) -> float:
        """The rounding error of a log loss."""
        return ROUNDING * max(1.0, float(np.abs(self.log_loss).max()) / 10)

    @property
    def free(self) -> Array:
        """The places of the parameters that are fitted."""
        return np.flatnonzero(self.lower < self.upper)

    def centred(self, theta: Array) -> Array:
        """Theta (..., P) in centred units."""
        return theta @ self.centre.T

    def raw(self, theta: Array) -> Array:
        """Theta (..., P) in the units of the table."""
        return theta @ np.linalg.inv(self.centre).T

    def residual(self, theta: Array) -> Array:
        """Predicted minus observed (R, n) at centred theta (R, P), or (n,) at (P,)."""
        predicted = self.bound(np.atleast_2d(theta)).value
        residual = self.objective.residual(predicted, self.loss, self.log_loss)
        return residual if theta.ndim == 2 else residual[0]

    def spread(self, theta: Array) -> float:
        """The typical size of the residuals at theta (P,), from which delta is narrowed."""
        return float(np.median(np.abs(self.residual(theta))))

    def penalty(self, theta: Array) -> Array:
        """The objective (R,) at theta (R, P), that of least absolute deviations not smoothed."""
        delta = 1e-300 if self.objective.kind == "lad" else self.delta
        return self.objective.smooth(self.residual(theta), delta)[0] @ self.weight

    def resampled(self, counts: Array | float = 1.0, shift: Array | float = 0.0) -> Problem:
        """R fits in one: `counts` (R, n) multiply the weights, `shift` (R, n) moves log losses."""
        return replace(
            self,
            weight=self.weight * counts,
            loss=self.loss * np.exp(shift),
            log_loss=self.log_loss + shift,
        )

    def subsample(self, keep: int) -> Problem:
        """Every k-th point in order of loss, at most `keep` of them: enough to find a basin."""
        if len(self.loss) <= keep:
            return self
        rows = np.argsort(self.loss, kind="stable")[:: -(-len(self.loss) // keep)]
        return replace(
            self,
            inputs={letter: column[rows] for letter, column in self.inputs.items()},
            loss=self.loss[rows],
            log_loss=self.log_loss[rows],
            weight=self.weight[rows],
        )


def problem_of(
    law: Law, data: Dataset, objective: str, delta: float, fixed: Mapping[str, float] | None = None
) -> Problem:
    """The problem of fitting a law to runs, some reported parameters `fixed`. Raises
    ScalingError for unknown names and values out of range.
    """
    if not (np.isfinite(delta) and delta > 0):
        what = f"delta = {delta:g} is not a positive number"
        raise ScalingError(what, remedy="the usual delta is 1e-3, in log loss")
    penalty = objective_named(objective)
    if law.signed:  # residuals are differences of what `bind` gives, as those of logs are
        penalty = replace(penalty, log=True)
    inputs = data.points.inputs(law.inputs)
    units = law.units(inputs)
    loss, typical = np.asarray(data.points.loss, float), data.log_loss.mean()
    shift = np.array([typical if param.of_loss else 0.0 for param in law.params])
    lower, upper = np.array([param.bounds for param in law.params]).T + shift
    problem = Problem(
        law,
        penalty,
        delta,
        {letter: column / units[letter] for letter, column in inputs.items()},
        loss,
        loss if law.signed else data.log_loss,
        data.weight,
        law.centring(units),
        lower,
        upper,
    )
    return _with_fixed(problem, fixed) if fixed else problem


def _with_fixed(problem: Problem, fixed: Mapping[str, float]) -> Problem:
    """Raises ScalingError for an unknown name, and for a coefficient whose exponent is free: its
    value has no meaning alone.
    """
    law = problem.law
    for name in fixed:
        if name not in law.names:
            raise unknown_choice(f"parameter of {law.name}", name, law.names)
    is_fixed = np.isin(law.names, list(fixed))
    needed = {law.names[j] for j in np.flatnonzero(problem.centre[is_fixed].any(0))}
    for name in fixed:
        param = law.params[law.index(name)]
        needed |= {param.scaled_by} - {""}
    loose = [name for name in law.names if name in needed and name not in fixed]
    if loose:
        raise ScalingError(
            f"{', '.join(fixed)} cannot be fixed while {loose[0]} is free",
            remedy=f"fix {loose[0]} too",
        )
    inner = law.theta({name: fixed.get(name, 1.0) for name in law.names})
    at = problem.centred(np.where(is_fixed, inner, 0.0))
    lower, upper = (np.where(is_fixed, at, bound) for bound in (problem.lower, problem.upper))
    return replace(problem, lower=lower, upper=upper)


class Rows:
    """The base of dataclasses of arrays whose first axis is one: that of R fits."""

    def take(self, rows: Array) -> Self:
        """Some rows, as copies."""
        return type(self)(*(array[rows] for array in vars(self).values()))

    def put(self, rows: Array, other: Self) -> None:
        """Replace some rows by those of another."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[rows] = theirs

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        """The rows of several, one after another."""
        return cls(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))


@dataclass(frozen=True)
class QuadraticModel(Rows):
    """Expansion of the objective at R parameter vectors: value and its rounding error (R,),
    gradient (R, P), Hessian and majorant (R, P, P).
    """

    value: Array
    noise: Array
    gradient: Array
    hessian: Array
    majorant: Array


def expand(
    problem: Problem, theta: Array, fits: Array | None = None, delta: float | None = None
) -> QuadraticModel:
    """The objective's expansion at theta (R, P), in blocks that fit the cache; `fits` (R,) says
    which of the problem's fits each row belongs to.
    """
    delta = problem.delta if delta is None else delta
    step, blocks = max(1, BLOCK // problem.log_loss.shape[-1]), []
    for start in range(0, max(len(theta), 1), step):
        rows = slice(start, start + step)
        own = rows if fits is None else fits[rows]
        loss, log_loss, weight = (
            values if values.ndim == 1 else values[own]
            for values in (problem.loss, problem.log_loss, problem.weight)
        )
        law = problem.bound(theta[rows])
        residual = problem.objective.residual(law.value, loss, log_loss)
        rho, slope, curve, above = problem.objective.smooth(residual, delta)
        if not problem.objective.log:
            grown = np.exp(law.value)
            slope, curve, above = slope * grown, curve * grown**2 + slope * grown, above * grown**2
        slope = weight * slope
        value = (weight * rho).sum(1)
        noise = problem.rounding * (np.abs(slope).sum(1) + value)
        gradient = np.matmul(law.gradient, slope[:, :, None])[:, :, 0]
        hessian, majorant = law.second(weight * curve, slope), product(law.gradient, weight * above)
        blocks.append(QuadraticModel(value, noise, gradient, hessian, majorant))
    return QuadraticModel.concatenate(blocks)


@dataclass(frozen=True)
class Minima(Rows):
    """Where R rows ended: theta (R, P) in centred units, value (R,), converged (R,)."""

    theta: Array
    value: Array
    converged: Array


def minimise(
    problem: Problem,
    start: Array,
    fits: Array | None = None,
    pins: Array | None = None,
    delta: float | None = None,
) -> Minima:
    """Descend from `start` (R, P), centred, to the minimum of each row.

    `fits` (R,) are the rows' places among the problem's fits; `pins` (R, P) are directions along
    which a row does not move; `delta` replaces the problem's. A row that has not converged after
    MAX_STEPS says so.
    """
    rows, theta = np.arange(len(start)), np.clip(start, problem.lower, problem.upper)
    ends = Minima(theta.copy(), np.empty(len(rows)), np.zeros(len(rows), bool))
    own = rows if fits is None else fits
    damping, caution = np.zeros(len(rows)), np.full(len(rows), 2.0)
    here = expand(problem, theta, own, delta)
    for left in reversed(range(MAX_STEPS)):
        step, damp, predicted = _step(problem, here, theta, pins, damping)
        small = (damp == 0) & (np.abs(step) <= TOLERANCE * (1 + np.abs(theta))).all(1)
        going = ~small & (damp < MAX_DAMPING)
        if not (left and len(rows) and going.all()):  # some rows end here
            ends.theta[rows] = theta + small[:, None] * step
            ends.value[rows], ends.converged[rows] = here.value, small
            if not (left and going.any()):
                break
            rows, own, theta, caution, step, damp, predicted = (
                each[going] for each in (rows, own, theta, caution, step, damp, predicted)
            )
            here, pins = here.take(going), None if pins is None else pins[going]
        tried = np.minimum(np.maximum(theta + step, problem.lower), problem.upper)
        there = expand(problem, tried, own, delta)
        gain, noise = here.value - there.value, here.noise
        ratio = np.where(
            predicted <= noise,
            np.where(gain >= -noise, 1.0, -1.0),
            gain / np.maximum(predicted, 1e-300),
        )
        better = np.isfinite(there.value) & (ratio > 1e-4)
        # Nielsen 1999: less the better the model predicted, quickly more after failures in a row
        less = damp * np.maximum(1 / MAX_DAMPING_CUT, 1 - (2 * np.minimum(ratio, 1.0) - 1) ** 3)
        more = np.maximum(damp * caution, INITIAL_DAMPING)
        damping = np.where(better, np.where(less < MIN_DAMPING, 0.0, less), more)
        caution = np.where(better, 2.0, 2 * caution)
        if better.all():
            theta, here = tried, there
        else:
            theta = np.where(better[:, None], tried, theta)
            here.put(better, there.take(better))
    return ends


def continuation(
    problem: Problem, start: Array, spread: float, fits: Array | None = None
) -> Minima:
    """Descend with delta narrowing from `spread`, the size of the residuals, to the objective's
    own; the minimum is traced.
    """
    minima, before = None, 0.0
    for delta in problem.objective.path(problem.delta, spread, problem.log_loss.shape[-1]):
        if minima is not None:
            # where the minimum at delta `before` moves to, to first order: -H^-1 (dg/d delta)
            wide, near = (
                expand(problem, minima.theta, fits, before * (1 - nudge)) for nudge in (0.0, 1e-6)
            )
            drift = (wide.gradient - near.gradient) / (1e-6 * before) * (delta - before)
            model = replace(wide, gradient=drift)
            step, damping, _ = _step(problem, model, minima.theta, None, np.zeros(len(start)))
            start = np.where((damping == 0)[:, None], minima.theta + step, minima.theta)
        minima, before = minimise(problem, start, fits, delta=delta), delta
    assert minima is not None
    return minima


def _step(
    problem: Problem, here: QuadraticModel, theta: Array, pins: Array | None, damping: Array
) -> tuple[Array, Array, Array]:
    """Step (R, P), its damping (R,), at least INITIAL_DAMPING where the Hessian is not positive
    definite, and the fall (R,) that the quadratic model predicts.

    A coordinate at its bound that would leave it stays; a step that would cross a bound ends there.
    """
    gradient = here.gradient
    at_lower, at_upper = theta <= problem.lower, theta >= problem.upper
    free = ~((at_lower & (gradient >= 0)) | (at_upper & (gradient <= 0)))
    step, damped = _solve(here, free, pins, damping)
    while (outward := free & ((at_lower & (step < 0)) | (at_upper & (step > 0)))).any():
        rows = np.flatnonzero(outward.any(1))
        free &= ~outward
        pin = None if pins is None else pins[rows]
        step[rows], damped[rows] = _solve(here.take(rows), free[rows], pin, damping[rows])
    distance = np.where(step > 0, problem.upper - theta, theta - problem.lower)
    crosses = np.abs(step) > distance
    share = np.divide(distance, np.abs(step), out=np.ones_like(step), where=crosses)
    shortened = share.min(1)
    fall = -(gradient * step).sum(1)
    curved = fall - damped * (step**2 * np.einsum("rpp->rp", here.majorant)).sum(1)
    return step * shortened[:, None], damped, shortened * fall - shortened**2 * curved / 2


def _solve(
    here: QuadraticModel, free: Array, pins: Array | None, damping: Array
) -> tuple[Array, Array]:
    """-(H + damping D)^-1 g on the free coordinates across the pins (R, P), with M in place of H
    where that is not positive definite, and the damping.
    """
    diagonal = np.einsum("rpp->rp", here.majorant)
    scale = 1 / np.sqrt(np.maximum(diagonal, 1e-100 * diagonal.max(1, keepdims=True) + 1e-300))
    scale = np.where(free, scale, 0.0)
    vector, across = -here.gradient * scale, None
    if pins is not None:
        pin = pins * scale
        pin = pin / np.maximum(np.sqrt((pin**2).sum(1, keepdims=True)), 1e-300)
        across = np.eye(pin.shape[1]) - pin[:, :, None] * pin[:, None, :]
        vector = np.matmul(across, vector[:, :, None])[:, :, 0]

    def solved(rows: Array | slice, curvature: Array, damping: Array) -> tuple[Array, Array]:
        matrix = curvature[rows] * (scale[rows, :, None] * scale[rows, None, :])
        if across is not None:  # and one along the pin
            matrix = across[rows] @ matrix @ across[rows] + np.eye(matrix.shape[1]) - across[rows]
        np.einsum("rpp->rp", matrix)[:] += np.where(free[rows], damping[rows, None], 1.0)
        return _eliminated(matrix, vector[rows])

    solution, definite = solved(slice(None), here.hessian, damping)
    if not definite.all():
        damping = np.where(definite, damping, np.maximum(damping, INITIAL_DAMPING))
        bad = np.flatnonzero(~definite)
        solution[bad], _ = solved(bad, here.majorant, damping)
    return solution * scale, damping


def _eliminated(matrix: Array, vector: Array) -> tuple[Array, Array]:
    """Solve R symmetric systems at once by Gauss-Jordan elimination; zeros and False where a pivot
    is not positive.
    """
    rows = np.concatenate([matrix, vector[:, :, None]], 2).transpose(1, 2, 0).copy()
    for j in range(len(rows)):
        pivot = np.where(rows[j, j] > 1e-13, rows[j, j], np.nan)  # which spreads
        row = rows[j, j + 1 :] / pivot
        rows[:, j + 1 :] -= rows[:, j, None] * row
        rows[j, j + 1 :] = row
    definite = ~np.isnan(rows[-1, -1])
    return np.where(definite, rows[:, -1], 0.0).T, definite
