"""Laws in log space with first and second derivatives, for the minimiser of `newton`.

R parameter vectors at once, at n points; no law is named here, `laws` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Inputs = Mapping[str, Array]
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


def _product(gradient: Array, weight: Array) -> Array:
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
    outer = (design[:, :, None] * design[:, None]).reshape(-1, size * size, n).transpose(0, 2, 1)

    def at(theta: Array) -> Expansion:
        warmth = theta[:, root, None] if root is not None else 1.0
        scaled = theta @ design / warmth
        top = scaled.max(0)
        powers = np.exp(scaled - top)
        total = powers.sum(0)
        if floor is not None:
            total = total + theta[:, floor, None] * np.exp(-top)
        value, shares = (top + np.log(total)) * warmth, powers / total

        def spread(weight: Array) -> Array:
            """sum_i weight_i sum_k p_k x_k x_k' (R, P, P), x_k the gradient of z_k."""
            parts = zip(weight * shares, outer, strict=True)
            return np.sum([one @ xx for one, xx in parts], axis=0).reshape(-1, size, size)

        pull = shares[0, :, None] * design[0]
        for one, x in zip(shares[1:], design[1:], strict=True):
            pull += one[:, None] * x
        if root is None:
            if floor is not None:
                pull[:, floor] = np.exp(-value)
            return Expansion(value, pull, lambda a, b: _product(pull, a - b) + spread(b))
        mean = (shares * scaled).sum(0)
        gradient = pull.copy()
        gradient[:, root] += value / warmth - mean

        def second(a: Array, b: Array) -> Array:
            warm = b / warmth
            tilt = warm * shares * (scaled - mean)
            matrix = _product(gradient, a) - _product(pull, warm) + spread(warm)
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
            return _product(gradient, a - b) + inner.second(b * share, b * share)

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
            axes = np.eye(theta.shape[1])
            moved = [
                (value_and_gradient(theta + NUDGE * axis)[1] * b[:, None]).sum(2) for axis in axes
            ]
            bend = np.stack([(there - here) / NUDGE for there in moved], 1)
            return _product(gradient, a) + (bend + bend.transpose(0, 2, 1)) / 2

        return Expansion(value, gradient, second)

    return at
