"""The minimiser: damped Newton steps with exact second derivatives, for many starts or many
resamples at once.

Each row is a fit of its own, with its own parameters, weights and damping; rows leave as they
converge. A step solves (H + lambda D) p = -g: H is the Hessian, or where that is not positive
definite the curvature M of a parabola that lies above the penalty, and D the diagonal of M. lambda
= 0 is Newton's step, and a row has converged when that is tiny: with a Huber delta far below the
residuals the curvature sits in the few points inside delta, and a test of the value alone would
stop early.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from scaling.errors import ScalingError, unknown_choice
from scaling.fit.laws.derivatives import Inputs
from scaling.fit.laws.law import Law, units
from scaling.fit.laws.objectives import Objective

Array = np.ndarray
BLOCK = 8192  # numbers in one array of the inner loop: what stays in a core's own cache
# of the last full Newton step, relative to 1 + |theta|; what is left after it is far less
TOLERANCE = 1e-7
MAX_STEPS = 400
ROUNDING = 1e-15  # of a log loss
# damping: the first that is tried, the least that is not none, where a row gives up
FIRST, LEAST, HARD = 1e-3, 1e-7, 1e12
SOFTER = 5.0  # the most that one good step divides the damping by


@dataclass(frozen=True)
class Problem:
    """A law on a table under an objective, in centred units. `weight` is (n,), `lower` and `upper`
    (P,); `centre` and `offset` take raw theta to centred theta.
    """

    law: Law
    objective: Objective
    delta: float
    logs: Inputs
    loss: Array
    log_loss: Array
    weight: Array
    centre: Array
    offset: Array
    lower: Array
    upper: Array

    def centred(self, theta: Array) -> Array:
        """Theta (..., P) in centred units."""
        return theta @ self.centre.T - self.offset

    def raw(self, theta: Array) -> Array:
        """Theta (..., P) in the units of the table."""
        return np.linalg.solve(
            self.centre, (theta + self.offset).reshape(-1, theta.shape[-1]).T
        ).T.reshape(theta.shape)


def problem(
    law: Law, x: Inputs, loss: Array, weight: Array | None, objective: Objective, delta: float
) -> Problem:
    """The problem of fitting `law` to losses (n,) at inputs {letter: (n,)}."""
    logs = law.logs(x)
    means = units(law, logs)
    if law.signed:  # residuals are differences of what `bind` gives, as those of logs are
        objective = replace(objective, log=True)
    weight = np.ones(len(loss)) if weight is None else np.asarray(weight, float)
    centred = {letter: log - means[letter] for letter, log in logs.items()}
    log_loss = np.log(np.maximum(loss, 1e-300))
    shift = np.array([log_loss.mean() if param.of_loss else 0.0 for param in law.params])
    lower, upper = np.array([param.bounds for param in law.params]).T + shift
    return Problem(
        law,
        objective,
        delta,
        centred,
        loss,
        loss if law.signed else log_loss,
        weight,
        law.centring(means),
        law.offset(means),
        lower,
        upper,
    )


def with_fixed(task: Problem, fixed: Mapping[str, float]) -> Problem:
    """The problem with some reported parameters fixed at given values.

    Raises ScalingError for an unknown name, and for a coefficient whose exponent is free: its value
    has no meaning alone.
    """
    law = task.law
    for name in fixed:
        if name not in law.names:
            raise unknown_choice(f"parameter of {law.name}", name, law.names)
    places = [law.index(name) for name in fixed]
    inner = law.theta({name: fixed.get(name, 1.0) for name in law.names})
    needed = [int(j) for i in places for j in np.flatnonzero(task.centre[i])]
    scales = [law.params[i].crossing or law.params[i].scaled_by for i in places]
    needed += [law.index(scale) for scale in scales if scale]
    loose = [law.names[j] for j in needed if j not in places]
    if loose:
        raise ScalingError(
            f"{', '.join(fixed)} cannot be fixed while {loose[0]} is free",
            remedy=f"fix {loose[0]} too",
        )
    is_fixed = np.isin(np.arange(len(inner)), places)
    at = task.centred(np.where(is_fixed, inner, 0.0))
    return replace(
        task, lower=np.where(is_fixed, at, task.lower), upper=np.where(is_fixed, at, task.upper)
    )


def subsample(task: Problem, keep: int) -> Problem:
    """The problem on every k-th point in order of loss, at most `keep` of them: enough to find a
    basin.
    """
    if len(task.loss) <= keep:
        return task
    rows = np.argsort(task.loss, kind="stable")[:: -(-len(task.loss) // keep)]
    fewer = {letter: log[rows] for letter, log in task.logs.items()}
    return replace(
        task,
        logs=fewer,
        loss=task.loss[rows],
        log_loss=task.log_loss[rows],
        weight=task.weight[rows],
    )


@dataclass(frozen=True)
class Resample:
    """What makes R fits of one problem different: weights (R, n) that multiply the problem's own,
    shifts (R, n) of the log loss.
    """

    weights: Array | None = None
    shift: Array | None = None

    def take(self, rows: Array | slice) -> Resample:
        """Those of some rows."""
        return Resample(
            *(None if array is None else array[rows] for array in (self.weights, self.shift))
        )


ONCE = Resample()


@dataclass(frozen=True)
class QuadraticModel:
    """Expansion of the objective at R parameter vectors: value and its rounding error (R,),
    gradient (R, P), Hessian and majorant (R, P, P).
    """

    value: Array
    noise: Array
    gradient: Array
    hessian: Array
    majorant: Array

    def put(self, rows: Array, other: QuadraticModel) -> None:
        """Replace some rows by another expansion's."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[rows] = theirs

    def take(self, rows: Array) -> QuadraticModel:
        """The expansion of some rows."""
        return QuadraticModel(*(array[rows] for array in vars(self).values()))


def expand(task: Problem, theta: Array, resample: Resample, delta: float) -> QuadraticModel:
    """The objective's expansion at theta (R, P), in blocks that fit the cache."""
    bound, size, n = task.law.bind(task.logs), theta.shape[1], len(task.loss)
    shapes = [(len(theta),)] * 2 + [theta.shape] + [(*theta.shape, size)] * 2
    out = QuadraticModel(*(np.empty(shape) for shape in shapes))
    step = max(1, BLOCK // n)
    rounding = ROUNDING * max(1.0, float(np.abs(task.log_loss).max()) / 10)
    for start in range(0, len(theta), step):
        rows = slice(start, start + step)
        law = bound(theta[rows])
        mine = resample.take(rows)
        weight = task.weight if mine.weights is None else task.weight * mine.weights
        log_loss = task.log_loss if mine.shift is None else task.log_loss + mine.shift
        loss = (
            task.loss
            if mine.shift is None or task.objective.log
            else task.loss * np.exp(mine.shift)
        )
        residual = task.objective.residual(law.value, loss, log_loss)
        rho, slope, curve, above = task.objective.smooth(residual, delta)
        if not task.objective.log:
            grown = np.exp(law.value)
            slope, curve, above = slope * grown, curve * grown**2 + slope * grown, above * grown**2
        slope = weight * slope
        out.value[rows] = (weight * rho).sum(1)
        out.noise[rows] = rounding * (np.abs(slope).sum(1) + out.value[rows])
        out.gradient[rows] = np.matmul(law.gradient, slope[:, :, None])[:, :, 0]
        out.hessian[rows] = law.second(weight * curve, slope)
        out.majorant[rows] = np.matmul(
            law.gradient * (weight * above)[:, None], law.gradient.transpose(0, 2, 1)
        )
    return out


@dataclass(frozen=True)
class Minima:
    """Where R rows ended: theta (R, P) in centred units, value (R,), converged (R,), the steps
    taken.
    """

    theta: Array
    value: Array
    converged: Array
    steps: int


def concatenate(*parts: Minima) -> Minima:
    """The rows of several descents, one after another."""
    theta, value, converged = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("theta", "value", "converged")
    )
    return Minima(theta, value, converged, max(part.steps for part in parts))


def minimise(
    task: Problem,
    start: Array,
    resample: Resample = ONCE,
    pins: Array | None = None,
    delta: float | None = None,
    most: int = MAX_STEPS,
) -> Minima:
    """Descend from `start` (R, P), centred, to the minimum of each row.

    Row i is fitted to the i-th `resample`; `pins` (R, P) are directions along which a row does not
    move; `delta` replaces the problem's. A row that has not converged after `most` steps says so.
    """
    delta = task.delta if delta is None else delta
    theta = np.clip(start, task.lower, task.upper)
    here = expand(task, theta, resample, delta)
    damping, caution = np.zeros(len(start)), np.full(len(start), 2.0)
    converged, going = np.zeros(len(start), bool), np.arange(len(start))
    steps = 0
    while len(going) and steps < most:
        steps += 1
        step, damp, predicted = _direction(
            task,
            here.take(going),
            theta[going],
            None if pins is None else pins[going],
            damping[going],
        )
        small = (damp == 0) & (np.abs(step) <= TOLERANCE * (1 + np.abs(theta[going]))).all(1)
        theta[going[small]] += step[small]
        converged[going[small]] = True
        moving = ~small & (damp < HARD)
        going, step, damp, predicted = going[moving], step[moving], damp[moving], predicted[moving]
        if not len(going):
            break
        tried = np.clip(theta[going] + step, task.lower, task.upper)
        there = expand(task, tried, resample.take(going), delta)
        gain, noise = here.value[going] - there.value, here.noise[going]
        ratio = np.where(
            predicted <= noise,
            np.where(gain >= -noise, 1.0, -1.0),
            gain / np.maximum(predicted, 1e-300),
        )
        better = np.isfinite(there.value) & (ratio > 1e-4)
        theta[going[better]] = tried[better]
        here.put(going[better], there.take(np.flatnonzero(better)))
        # Nielsen 1999: less the better the model predicted, quickly more after failures in a row
        less = damp * np.maximum(1 / SOFTER, 1 - (2 * np.minimum(ratio, 1.0) - 1) ** 3)
        more = np.maximum(damp * caution[going], FIRST)
        damping[going] = np.where(better, np.where(less < LEAST, 0.0, less), more)
        caution[going] = np.where(better, 2.0, 2 * caution[going])
    return Minima(theta, here.value, converged, steps)


def continuation(task: Problem, start: Array, spread: float, resample: Resample = ONCE) -> Minima:
    """Descend with delta narrowing from `spread`, the size of the residuals, to the objective's
    own; the minimum is traced.
    """
    minima, before = None, 0.0
    for delta in task.objective.path(task.delta, spread, len(task.loss)):
        if minima is not None:
            # where the minimum at delta `before` moves to, to first order: -H^-1 (dg/d delta)
            here, near = (
                expand(task, minima.theta, resample, before * (1 - nudge)) for nudge in (0.0, 1e-6)
            )
            drift = (here.gradient - near.gradient) / (1e-6 * before) * (delta - before)
            step, damping, _ = _direction(
                task, replace(here, gradient=drift), minima.theta, None, np.zeros(len(start))
            )
            start = np.where((damping == 0)[:, None], minima.theta + step, minima.theta)
        minima, before = minimise(task, start, resample, delta=delta), delta
    assert minima is not None
    return minima


def _direction(
    task: Problem, here: QuadraticModel, theta: Array, pins: Array | None, damping: Array
) -> tuple[Array, Array, Array]:
    """Step (R, P), the damping (R,) that made it a descent, and the fall (R,) that the quadratic
    model predicts.

    A coordinate at its bound that would leave it stays; a step that would cross a bound ends there.
    """
    gradient = here.gradient
    at_lower, at_upper = theta <= task.lower, theta >= task.upper
    free = ~((at_lower & (gradient >= 0)) | (at_upper & (gradient <= 0)))
    step, damping, curvature = np.zeros_like(theta), damping.copy(), here.hessian.copy()
    bent, open_rows = np.zeros(len(theta), bool), np.arange(len(theta))
    while len(open_rows):
        pin = None if pins is None else pins[open_rows]
        solution, definite = _solve(
            curvature[open_rows], here.take(open_rows), free[open_rows], pin, damping[open_rows]
        )
        bad = open_rows[~definite]
        curvature[bad], damping[bad] = (
            here.majorant[bad],
            np.maximum(damping[bad] * np.where(bent[bad], 10.0, 1.0), FIRST),
        )
        bent[bad] = True
        step[open_rows] = solution
        outward = (
            free[open_rows]
            & ((at_lower[open_rows] & (solution < 0)) | (at_upper[open_rows] & (solution > 0)))
            & definite[:, None]
        )
        free[open_rows] &= ~outward
        open_rows = open_rows[(~definite & (damping[open_rows] < HARD)) | outward.any(1)]
    distance = np.where(step > 0, task.upper - theta, theta - task.lower)
    share = np.min(
        np.where(np.abs(step) > distance, distance / np.maximum(np.abs(step), 1e-300), 1.0), axis=1
    )
    step *= share[:, None]
    curved = np.einsum("rp,rpq,rq->r", step, curvature, step)
    return step, damping, -(gradient * step).sum(1) - curved / 2


def _solve(
    curvature: Array, here: QuadraticModel, free: Array, pins: Array | None, damping: Array
) -> tuple[Array, Array]:
    """-(H + damping M)^-1 g on the free coordinates across the pins (R, P), and where that matrix
    is positive definite.
    """
    diagonal = np.einsum("rpp->rp", here.majorant)
    scale = 1 / np.sqrt(np.maximum(diagonal, 1e-30 * diagonal.max(1, keepdims=True) + 1e-300))
    scale = np.where(free, scale, 0.0)
    both = scale[:, :, None] * scale[:, None, :]
    matrix = curvature * both
    vector = -here.gradient * scale
    if pins is not None:
        pin = pins * scale
        pin = pin / np.maximum(np.sqrt((pin**2).sum(1, keepdims=True)), 1e-300)
        across = np.eye(pin.shape[1]) - pin[:, :, None] * pin[:, None, :]
        matrix = across @ matrix @ across + pin[:, :, None] * pin[:, None, :]
        vector = np.matmul(across, vector[:, :, None])[:, :, 0]
    matrix = matrix + np.eye(matrix.shape[1]) * np.where(free, damping[:, None], 1.0)[:, None, :]
    solution, definite = _cholesky_solve(matrix, vector)
    return solution * scale, definite


def _cholesky_solve(matrix: Array, vector: Array) -> tuple[Array, Array]:
    """Solve R symmetric systems side by side; False where a pivot is not positive, and the solution
    then means nothing.
    """
    a, y = matrix.transpose(1, 2, 0).copy(), vector.T.copy()
    definite = np.ones(a.shape[2], bool)
    for j in range(len(a)):
        definite &= a[j, j] > 1e-13
        a[j, j] = np.sqrt(np.where(definite, a[j, j], 1.0))
        a[j + 1 :, j] /= a[j, j]
        y[j] /= a[j, j]
        a[j + 1 :, j + 1 :] -= a[j + 1 :, None, j] * a[None, j + 1 :, j]
        y[j + 1 :] -= a[j + 1 :, j] * y[j]
    for j in reversed(range(len(a))):
        y[j] = (y[j] - (a[j + 1 :, j] * y[j + 1 :]).sum(0)) / a[j, j]
    return np.where(definite, y, 0.0).T, definite
