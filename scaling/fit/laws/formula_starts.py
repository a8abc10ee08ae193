"""Where the fit of a formula begins: many drawn parameter vectors, of which the best are kept.

Parameters in which the law is affine are solved for (variable projection); the others are drawn by
the place where they stand: as an exponent, a slope inside exp, a factor of something of known size,
or an offset added to it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np

from scaling.fit.laws.derivatives import Array, Inputs
from scaling.fit.laws.expression import FUNCTIONS, PRODUCT, SUM, flatten, names_of, value_of
from scaling.fit.laws.law import Law
from scaling.fit.newton import Problem

DRAWS = 600
EXPONENTS = (0.03, 1.5)
DECADES = 1.5  # of a factor, about the size of what it multiplies
NEGATIVE = 0.25  # share of the draws of a factor below zero
RIDGE = 1e-12
BOUNDED = ("exp", "tanh")  # an argument of these is of order one


class ParameterPosition(IntEnum):
    """Where a parameter stands in its formula, in the order in which they are drawn."""

    EXPONENT = auto()
    SLOPE = auto()
    FACTOR = auto()
    OFFSET = auto()


@dataclass(frozen=True)
class ParameterRole:
    """A parameter, its place, the sign that the formula gives it (0: either), and what it
    multiplies, is added to or is the power of; `rest` are the terms added to that product.
    """

    name: str
    place: ParameterPosition
    sign: int
    partner: ast.expr
    rest: ast.expr | None = None


def starts(task: Problem, count: int) -> Array:
    """Starts (count, P), the most promising first."""
    law, lower, upper = task.law, task.lower, task.upper
    theta, given = draw(law, task.inputs, np.random.default_rng(0), DRAWS), law.start or {}
    for name, value in given.items():  # of half: the user's start need not lie near a minimum
        theta[: DRAWS // 2, law.index(name)] = value
    theta = np.clip(theta, lower, upper)
    theta, cost = solve_linear(law, theta, task.inputs, task.loss, task.weight, lower, upper)
    best = np.argsort(cost, kind="stable")[:count]
    if given:
        written = theta[best[0]].copy()
        written[[law.index(name) for name in given]] = list(given.values())
        theta[best[-1]] = np.clip(written, lower, upper)
    return theta[best]


def solve_linear(
    law: Law,
    theta: Array,
    x: Inputs,
    loss: Array,
    weight: Array,
    lower: Array,
    upper: Array,
    ridge: float = RIDGE,
) -> tuple[Array, Array]:
    """Theta (G, P) with the affine parameters that are best at the others, and the sum of squared
    errors there (G,), relative ones unless a loss is not above 0.
    """
    theta = theta.copy()
    free = [i for i in map(law.index, law.linear) if lower[i] < upper[i]]
    is_relative = not law.signed and bool((loss > 0).all())
    scale = weight / loss**2 if is_relative else weight
    theta[:, free] = 0.0
    with np.errstate(all="ignore"):
        base, gradient = law.gradient(theta, x)
        if free:
            columns = gradient[:, free]
            length = np.sqrt((columns**2 * scale).sum(2))
            usable = np.isfinite(columns).all((1, 2)) & np.isfinite(base).all(1)
            usable &= (length > 0).all(1)
            unit = np.where(usable[:, None, None], columns / length[..., None], 0.0)
            gram = (unit * scale) @ unit.transpose(0, 2, 1) + ridge * np.eye(len(free))
            right = np.where(usable[:, None], loss - base, 0.0) * scale
            gram[~usable] = np.eye(len(free))
            solved = np.linalg.solve(gram, unit @ right[:, :, None])[:, :, 0] / length
            solved = np.clip(solved, lower[free], upper[free])
            theta[:, free] = np.where(usable[:, None], solved, 0.0)
            base = law.gradient(theta, x)[0]
        bad = ~np.isfinite(base).all(1) | (np.asarray(is_relative) & (base <= 0).any(1))
        cost = ((base - loss) ** 2 * scale).sum(1)
    return theta, np.where(bad, np.inf, cost)


def draw(law: Law, x: Inputs, rng: np.random.Generator, count: int) -> Array:
    """Drawn parameter vectors (count, P) that give what stands inside the formula a size of one."""
    values: dict[str, Array] = {name: np.ones((count, 1)) for name in law.names}
    first: dict[str, ParameterRole] = {}
    for role in _roles(law.expressions["loss"], law, False, 1, None):
        first.setdefault(role.name, role)
    for role in sorted(first.values(), key=lambda role: role.place):
        with np.errstate(all="ignore"):
            values[role.name] = _drawn(role, {**x, **values}, rng, count)
    for name in set(law.names) - {*law.linear, *first}:
        values[name] = rng.uniform(-3, 3, (count, 1))
    with np.errstate(all="ignore"):
        theta = law.theta({name: values[name][:, 0] for name in law.names})
    return np.where(np.isfinite(theta), theta, 0.0)


def _drawn(
    role: ParameterRole, values: Mapping[str, Array], rng: np.random.Generator, count: int
) -> Array:
    sign = rng.choice([-1.0, 1.0], (count, 1)) if role.sign == 0 else float(role.sign)
    uniform = rng.uniform(-1, 1, (count, 1))
    partner = value_of(role.partner, values)
    if role.place is ParameterPosition.EXPONENT:
        low, high = np.log(EXPONENTS)
        if role.sign == 0:  # zero has no negative power
            sign = np.where((partner == 0).any(), 1.0, sign)
        return sign * np.exp(low + (high - low) * (uniform + 1) / 2)
    partner = np.broadcast_to(partner, (count, len(values[next(iter(values))])))
    middle, width = (f(partner, axis=1)[:, None] for f in (np.median, np.std))
    if role.place is ParameterPosition.OFFSET:
        near = -role.sign * middle + 2 * np.maximum(width, 0.5) * uniform
        small = np.abs(middle) * 10 ** (2 * uniform - 1)
        return np.where(rng.random((count, 1)) < 0.5, near, small)
    size = 10 ** (DECADES * uniform)
    if role.place is ParameterPosition.SLOPE:
        return sign * size / np.maximum(width, 1e-300)
    rest: Array | float = 1.0
    if role.rest is not None:
        offset = np.median(np.abs(value_of(role.rest, values) + 0 * partner), axis=1)[:, None]
        rest = np.where(np.isfinite(offset) & (offset > 0), offset, 1.0)
    signs = np.where(rng.random((count, 1)) < NEGATIVE, -1.0, 1.0)
    typical = np.where(middle == 0, np.mean(np.abs(partner), axis=1)[:, None], np.abs(middle))
    return signs * size * (rest / typical if role.sign > 0 else typical / rest)


def _joined(parts: list[tuple[ast.expr, int]], ops: tuple[type, type], unit: float) -> ast.expr:
    node: ast.expr = ast.Constant(unit)
    for part, sign in parts:
        node = ast.BinOp(node, ops[0]() if sign > 0 else ops[1](), part)
    return node


def _roles(
    node: ast.expr, law: Law, bounded: bool, power: int, rest: ast.expr | None
) -> Iterator[ParameterRole]:
    """The role of each parameter that has to be drawn. `bounded` says that the expression is of
    order one, `power` whether it stands above or below a division, `rest` what is added to it.
    """
    drawn = {name for name in law.names if name not in law.linear}
    terms = flatten(node, SUM)
    if len(terms) > 1:
        for i, (term, sign) in enumerate(terms):
            others = _joined(terms[:i] + terms[i + 1 :], SUM, 0.0)
            if isinstance(term, ast.Name) and term.id in drawn:
                yield ParameterRole(term.id, ParameterPosition.OFFSET, sign, others)
            yield from _roles(term, law, bounded, power, others)
        return
    factors = flatten(node, PRODUCT)
    if len(factors) > 1:
        for i, (factor, sign) in enumerate(factors):
            others = _joined(factors[:i] + factors[i + 1 :], PRODUCT, 1.0)
            if isinstance(factor, ast.Name) and factor.id in drawn:
                place = ParameterPosition.SLOPE if bounded else ParameterPosition.FACTOR
                yield ParameterRole(factor.id, place, 0 if bounded else sign, others, rest)
            yield from _roles(factor, law, bounded, power * sign, None)
        return
    if isinstance(node, ast.UnaryOp):
        yield from _roles(node.operand, law, bounded, power, rest)
    elif isinstance(node, ast.Call):
        name = node.func.id  # type: ignore[attr-defined]
        for i, argument in enumerate(node.args):
            other = node.args[i - 1] if len(node.args) > 1 else None
            yield from _roles(argument, law, bounded or name in BOUNDED, power, other)
    elif isinstance(node, ast.BinOp):
        yield from _roles(node.left, law, False, power, None)
        names = names_of(node.right)
        if names & {*law.inputs, *FUNCTIONS}:
            yield from _roles(node.right, law, True, power, None)
            return
        minus = isinstance(node.right, ast.UnaryOp) and isinstance(node.right.op, ast.USub)
        decays = minus or power < 0
        has_inputs = bool(names_of(node.left) & set(law.inputs))
        for name in names & drawn:
            sign = 1 if decays or not has_inputs else 0
            yield ParameterRole(name, ParameterPosition.EXPONENT, sign, node.left)
