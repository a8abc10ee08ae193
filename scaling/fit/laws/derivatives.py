"""Laws in log space with first and second derivatives, for the minimiser of `newton`.

R parameter vectors at once, at n points; no law is named here, `laws` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Inputs = Mapping[str, Array]
AT_ONCE = 10_000  # numbers in a gradient, up to which all coordinates are nudged in one call
NUDGE = 1e-6  # of a coordinate, where a second derivative is a difference of first ones


@dataclass(frozen=True)
class Expansion:
    """A law at R parameter vectors and n points: log L (R, n), its gradient (R, P, n), and
    `second(a, b)` = sum_i a_i g_i g_i' + b_i H_i (R, P, P), the Hessian of an objective with
    weights a, b (R, n).
    """

    value: Array
    gradient: Array
    second: Callable[[Array, Array], Array]


Bound = Callable[[Array], Expansion]


def product(gradient: Array, weight: Array) -> Array:
    """sum_i weight_i g_i g_i' (R, P, P)."""
    return np.matmul(gradient * weight[:, None], gradient.transpose(0, 2, 1))


def sum_of_powers(design: Array, floor: int | None, root: int | None) -> Bound:
    """log(E + sum exp z), or T log sum exp(z / T): d/dz_k is the share p_k, d/dT the entropy of the
    shares.

    z_k = theta @ design[k], `design` (K, P, n); `floor` and `root` are the places of E and T among
    the P parameters; with both, the floor stands outside the root.
    """
    if floor is not None and root is not None:
        return above_floor(sum_of_powers(design, None, root), floor)
    size, n = design.shape[1:]
    outer = []  # of each term the places in a matrix (P, P), flat, of what it moves
    for x in design:
        moved = np.flatnonzero(x.any(1))
        pairs = x[moved, None] * x[moved]
        outer.append(((size * moved[:, None] + moved).ravel(), pairs.reshape(len(moved) ** 2, n).T))

    def at(theta: Array) -> Expansion:
        temperature = theta[:, root, None] if root is not None else 1.0
        scaled = theta @ design / temperature
        top = scaled.max(0)
        powers = np.exp(scaled - top)
        total = powers.sum(0)
        if floor is not None:
            total = total + theta[:, floor, None] * np.exp(-top)
        value, shares = (top + np.log(total)) * temperature, powers / total

        def spread(weight: Array) -> Array:
            """sum_i weight_i sum_k p_k x_k x_k' (R, P, P), x_k the gradient of z_k."""
            matrix = np.zeros((len(theta), size * size))
            for one, (places, pairs) in zip(weight * shares, outer, strict=True):
                matrix[:, places] += one @ pairs
            return matrix.reshape(-1, size, size)

        gradient_of_terms = shares[0, :, None] * design[0]
        for one, x in zip(shares[1:], design[1:], strict=True):
            gradient_of_terms += one[:, None] * x
        if root is None:
            if floor is not None:
                gradient_of_terms[:, floor] = np.exp(-value)
            return Expansion(
                value, gradient_of_terms, lambda a, b: product(gradient_of_terms, a - b) + spread(b)
            )
        mean = (shares * scaled).sum(0)
        gradient = gradient_of_terms.copy()
        gradient[:, root] += value / temperature - mean

        def second(a: Array, b: Array) -> Array:
            scaled_weight = b / temperature
            tilt = scaled_weight * shares * (scaled - mean)
            matrix = (
                product(gradient, a)
                - product(gradient_of_terms, scaled_weight)
                + spread(scaled_weight)
            )
            # what involves T: -p_k (y_k - mean) / T with z_k, the variance of y = z / T with T
            cross = (tilt @ design.transpose(0, 2, 1)).sum(0)
            matrix[:, :, root] -= cross
            matrix[:, root, :] -= cross
            matrix[:, root, root] += (tilt * scaled).sum((0, 2))
            return matrix

        return Expansion(value, gradient, second)

    return at


def above_floor(excess: Bound, floor: int) -> Bound:
    """log(E + X) for a law whose log X is `excess`, E at the place `floor`: L'' = p X'' + p x x' -
    g g', p = X / (E + X).
    """

    def at(theta: Array) -> Expansion:
        inner = excess(theta)
        value = np.logaddexp(np.log(np.maximum(theta[:, floor, None], 1e-300)), inner.value)
        share = np.exp(inner.value - value)
        gradient = inner.gradient * share[:, None]
        gradient[:, floor] = np.exp(-value)

        def second(a: Array, b: Array) -> Array:
            return product(gradient, a - b) + inner.second(b * share, b * share)

        return Expansion(value, gradient, second)

    return at


def by_differences(value_and_gradient: Callable[[Array], tuple[Array, Array]]) -> Bound:
    """A law from its value (R, n) and gradient (R, P, n); second derivatives are differences of
    first ones.
    """

    def at(theta: Array) -> Expansion:
        value, gradient = value_and_gradient(theta)

        def second(a: Array, b: Array) -> Array:
            here = (gradient * b[:, None]).sum(2)
            size, moved = theta.shape[1], []
            nudge = NUDGE * np.maximum(np.abs(theta), 1.0)  # 1e-6 is nothing to 1e9
            for axes in np.array_split(np.eye(size), min(size, 1 + gradient.size // AT_ONCE)):
                nudged = (theta + nudge * axes[:, None]).reshape(-1, size)
                slopes = value_and_gradient(nudged)[1].reshape(len(axes), *gradient.shape)
                moved.append((slopes * b[:, None]).sum(3))
            bend = (np.concatenate(moved) - here).transpose(1, 0, 2) / nudge[:, :, None]
            return product(gradient, a) + (bend + bend.transpose(0, 2, 1)) / 2

        return Expansion(value, gradient, second)

    return at
