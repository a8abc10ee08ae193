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
    """log(E + (sum exp(z / T))^T), E = 0 without a floor and T = 1 without a root: d/dz_k is the
    share p_k of a term, d/dT inside the root log sum exp(z / T) - sum_k p_k z_k / T.

    z_k = theta @ design[k], `design` (K, P, n); `floor` and `root` are the places of E and T among
    the P parameters.
    """
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
        excess, log_unit = total, top
        if root is not None:
            excess, log_unit = total**temperature, top * temperature
        loss = excess if floor is None else excess + theta[:, floor, None] * np.exp(-log_unit)
        value = log_unit + np.log(loss)
        shares = powers / loss if root is None else powers / total

        def spread(weight: Array) -> Array:
            """sum_i weight_i sum_k p_k x_k x_k' (R, P, P), x_k the gradient of z_k."""
            matrix = np.zeros((len(theta), size * size))
            for one, (places, pairs) in zip(weight * shares, outer, strict=True):
                matrix[:, places] += one @ pairs
            return matrix.reshape(-1, size, size)

        gradient = shares[0, :, None] * design[0]
        for one, x in zip(shares[1:], design[1:], strict=True):
            gradient += one[:, None] * x
        if root is None:
            if floor is not None:
                gradient[:, floor] = np.exp(-value)
            return Expansion(value, gradient, lambda a, b: product(gradient, a - b) + spread(b))
        of_terms, mean, part = gradient, (shares * scaled).sum(0), excess / loss
        inner = of_terms.copy()
        inner[:, root] += top + np.log(total) - mean
        gradient = inner * part[:, None]
        if floor is not None:
            gradient[:, floor] = np.exp(-value)

        def second(a: Array, b: Array) -> Array:
            b_inside = b * part
            weight = b_inside / temperature
            tilt = weight * shares * (scaled - mean)
            matrix = product(gradient, a - b) + product(inner, b_inside)
            matrix += spread(weight) - product(of_terms, weight)
            # what involves T: -p_k (y_k - mean) / T with z_k, the variance of y = z / T with T
            cross = (tilt @ design.transpose(0, 2, 1)).sum(0)
            matrix[:, :, root] -= cross
            matrix[:, root, :] -= cross
            matrix[:, root, root] += (tilt * scaled).sum((0, 2))
            return matrix

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
