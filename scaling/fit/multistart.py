"""The global optimum of a fit, with what speaks for its being global.

A law is linear in its coefficients: over a grid of exponents these are solved for exactly (variable
projection, Golub and Pereyra 1973), which shows every basin. From the best cell of each block of
that grid the full objective is then descended to convergence, and the distinct minima are listed.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from scaling.fit.laws.formula_starts import starts as formula_starts
from scaling.fit.newton import Minima, Problem, continuation
from scaling.fit.result import ObjectiveMinimum, Starts

Array = np.ndarray
MOST_STARTS = 16
# starts that descend from a wide delta too when the others disagree: it smooths the small basins
# away
GUIDED = 4
SEARCHED = 2000  # points that the search for basins looks at
MIDDLE = 40_000  # points that choose among the basins
FINALISTS = 3
SAME_PLACE = 1e-4  # of centred coordinates: closer rows ended in one minimum
# of the least loss: floors to start from outside a root
FLOOR_SHARES = (0.0, 0.3, 0.5, 0.65, 0.8, 0.9)
SLIGHT = 1e-3  # of the mean loss: the least share of it that a start gives to a term


def multistart(problem: Problem, near: Array | None = None) -> tuple[Array, Starts, bool]:
    """The best minimum (P,) in centred coordinates, how the starts ended, and whether the best one
    converged. Where theta is known to be `near`, that is the only start.
    """
    search = problem.subsample(SEARCHED)
    begun = starts(search) if near is None else problem.centred(near)[None]
    wide = search.spread(begun[0])
    ends = continuation(search, begun, search.delta)
    places, owner = _distinct(ends.theta, ends.value)
    if len(places) > 1:
        ends = Minima.concatenate([ends, continuation(search, begun[:GUIDED], wide)])
        places, owner = _distinct(ends.theta, ends.value)
    again, converged = owner, int(ends.converged.sum())
    # a large table decides between the few best of what a part of it shows
    stages = [] if search is problem else [problem.subsample(MIDDLE), problem]
    for stage in stages[-1:] if len(problem.loss) <= MIDDLE else stages:
        ends = continuation(stage, ends.theta[places[:FINALISTS]], stage.delta)
        places, again = _distinct(ends.theta, ends.value)
        owner = again[owner[owner < FINALISTS]]
    counts = np.bincount(owner, minlength=len(places))
    reported = problem.law.values(problem.raw(ends.theta[places]))
    value = problem.penalty(ends.theta[places])
    minima = [
        ObjectiveMinimum(
            value=float(value[row]),
            params={name: float(column[row]) for name, column in reported.items()},
            starts=int(counts[row]),
        )
        for row in range(len(places))
        if row == 0 or ends.converged[again == row].any()  # else a start that crept, no minimum
    ]
    summary = Starts(tried=len(owner), converged=converged, agree=int(counts[0]), minima=minima)
    return ends.theta[places[0]], summary, bool(ends.converged[places[0]])


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


def starts(problem: Problem) -> Array:
    """Starts (R, P) in centred coordinates, the most promising first: the best cell of each block
    of the grid.
    """
    law = problem.law
    if not law.terms:
        return formula_starts(problem, MOST_STARTS)
    is_fixed = problem.lower == problem.upper
    axes = [
        (problem.lower[i],) if is_fixed[i] else param.grid or (0.0,)
        for i, param in enumerate(law.params)
    ]
    theta = np.array(list(product(*axes)))
    theta, cost = _solved(problem, theta)
    theta = np.clip(theta, problem.lower, problem.upper)
    sizes = [len(axis) for axis in axes]
    edge = next(k for k in range(1, 100) if np.prod(-(-np.array(sizes) // k)) <= MOST_STARTS)
    blocks = (np.indices(sizes) // edge).reshape(len(sizes), -1).T
    order = np.argsort(cost, kind="stable")
    _, first = np.unique(blocks[order], axis=0, return_index=True)
    return theta[order[np.sort(first)]]


def _solved(problem: Problem, theta: Array) -> tuple[Array, Array]:
    """Theta (G, P) with the coefficients that are best at its exponents, and the sum of squared
    errors there (G,), relative ones where the objective is one of logs.

    The loss, to the power 1/T under a root T, is fitted as a sum of the law's powers with
    coefficients >= 0. A floor is solved for too, but one outside a root is taken from a grid.
    """
    floors: list[float | None] = [None]
    if problem.law.floor and problem.law.root:
        floors = [share * problem.loss.min() for share in FLOOR_SHARES]
    tried, costs = zip(*(_solved_at(problem, theta.copy(), floor) for floor in floors), strict=True)
    best = np.argmin(costs, axis=0)
    return np.array(tried)[best, np.arange(len(theta))], np.min(costs, axis=0)


def _solved_at(problem: Problem, theta: Array, floor: float | None) -> tuple[Array, Array]:
    """`_solved` with the floor at a given value (None: solved for)."""
    law = problem.law
    excess = problem.loss - (floor or 0.0)
    # the unit of an error: the loss itself, or one for all where losses may be zero
    unit = excess if problem.objective.log else np.full(len(excess), excess.mean())
    temperature = theta[:, law.index(law.root), None] if law.root else np.ones((len(theta), 1))
    logs = (law.log_columns(theta, problem.inputs) - np.log(unit)) / temperature[:, None]
    largest = logs.max(2)
    columns = np.exp(logs - largest[:, :, None])
    places = [law.index(term.coefficient) for term in law.terms]
    if law.floor and floor is None:
        shape = (len(theta), 1, len(unit))
        columns = np.concatenate([columns, np.broadcast_to(1 / unit, shape)], 1)
    target = (excess / unit) ** (1 / temperature)
    weight = problem.weight * (unit / (unit + (floor or 0.0))) ** 2
    coefficients, cost = _nonnegative(columns, target, weight)
    if law.floor:
        theta[:, law.index(law.floor)] = coefficients[:, -1] if floor is None else floor
    share = np.log(np.maximum(coefficients[:, : len(places)], 1e-300)) - largest
    least = np.log(SLIGHT) + np.mean(np.log(unit)) / temperature
    theta[:, places] = temperature * np.maximum(share, least)
    return theta, cost * temperature[:, 0] ** 2


def _nonnegative(columns: Array, target: Array, weight: Array) -> tuple[Array, Array]:
    """The x >= 0 (G, K) that bring columns (G, K, n) closest to targets (G or 1, n) in weighted
    squares, and the squares left (G,).

    K is at most 3, so every set of coefficients that are not 0 is tried.
    """
    weighted = columns * weight
    gram, right = weighted @ columns.transpose(0, 2, 1), (weighted @ target[:, :, None])[:, :, 0]
    length = np.sqrt(np.einsum("gkk->gk", gram))
    scaled, side = gram / (length[:, :, None] * length[:, None, :]), right / length
    total = (target**2) @ weight
    best, cost = np.zeros_like(right), np.broadcast_to(total, len(right)).copy()
    for chosen in product((True, False), repeat=right.shape[1]):
        is_free = np.array(chosen)
        matrix = scaled * np.outer(is_free, is_free) + np.diag(np.where(is_free, 1e-12, 1.0))
        solution = np.linalg.solve(matrix, (side * is_free)[:, :, None])[:, :, 0] / length
        left = total - (solution * right).sum(1)
        better = (solution >= 0).all(1) & (left < cost)
        cost[better], best[better] = left[better], solution[better]
    return best, cost
