"""The compute-optimal frontier of any law of N and D, by minimisation at each budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from scaling.fit.frontier.frontier import Cost, Frontier

Array = np.ndarray

REFERENCE, STEP = 1e21, 1.1  # FLOPs at which exponents are read, and the ratio they are read over
LOG_RATIO = np.linspace(np.log(1e-2), np.log(1e6), 40)  # of tokens per parameter
LOG_C = np.log([1e8, 1e36])
HALVINGS, DECADES = 36, 28

Loss = Callable[[Array, Array], Array]  # (R, k) from N and D (R, k)


@dataclass(frozen=True)
class NumericFrontier(Frontier):
    """N*, D* and L* of R parameter vectors, of which `loss` gives the loss at N and D (R, k).

    `a`, `b` and their coefficients are those of the tangent at 1e21 FLOPs. NaN where there is no
    minimum between 0.01 and 1e6 tokens per parameter.
    """

    loss_at: Loss = field(repr=False, kw_only=True)

    @classmethod
    def of(cls, loss_at: Loss, cost: Cost, is_scalar: bool) -> Self:
        """The frontier of one parameter vector, or of draws."""
        zero = np.zeros(1)
        empty = cls(zero, zero, zero, zero, loss_at=loss_at, cost=cost)
        n, n_near = (empty._optimum("N", flops) for flops in (REFERENCE, REFERENCE * STEP))
        a = np.log(n_near / n) / np.log(STEP)
        if is_scalar:
            a, n = a[0], n[0]
        log_n = np.log(n) - a * np.log(REFERENCE)
        log_d = -np.log(cost.c0) - cost.p * log_n
        return cls(a, log_n, 1 - cost.p * a, log_d, loss_at=loss_at, cost=cost)

    def _optimum(self, letter: str, flops: float | Array) -> Array:
        """N*, D* or L* of budgets (R,), or of (k, 1) or (k, R) each."""
        log_c = np.log(np.atleast_1d(flops))[..., None]
        grid, middle, width = LOG_RATIO, np.zeros((1, 1)), 1.0
        with np.errstate(all="ignore"):
            for _ in range(12):
                ratio = middle + width * grid
                n = np.exp((log_c - np.log(self.cost.c0) - ratio) / (1 + self.cost.p))
                d = self.cost.tokens(n, np.exp(log_c))
                loss = self.loss_at(n, d)
                loss = np.where(np.isfinite(loss), loss, np.inf)
                best = loss.argmin(-1)
                if grid is LOG_RATIO:
                    inside = (best > 0) & (best < len(grid) - 1)
                    grid, width = np.linspace(-1, 1, 9), LOG_RATIO[1] - LOG_RATIO[0]
                else:
                    width /= 4
                middle = _taken(ratio, best, loss.shape)[..., None]
        optimum = _taken({"N": n, "D": d, "L": loss}[letter], best, loss.shape)
        return self._shaped(np.where(inside, optimum, np.nan), flops)

    def loss(self, flops: float | Array) -> Array:
        return self._optimum("L", flops)

    def _shaped(self, values: Array, flops: float | Array) -> Array:
        return values[0] if np.ndim(self.a) == 0 and np.ndim(flops) == 0 else values

    def flops_of(self, letter: str, value: float | Array) -> Array:
        """The least C from which on N* or D* is not below `value`, or L* not above it; NaN where
        there is none. Budgets too small to have an optimum are too small for `value` too.
        """
        sign = 1.0 if letter == "L" else -1.0
        shape = np.broadcast_shapes(np.shape(np.atleast_1d(self.a)), np.shape(value))

        def lack(log_c: Array) -> Array:
            return sign * (self._optimum(letter, np.exp(log_c)) - value)

        budgets = np.linspace(LOG_C[0], LOG_C[1], DECADES + 1)
        known = np.isfinite([lack(np.full(shape, each)) for each in budgets])
        first = budgets[known.argmax(0)]
        low, high = (np.full(shape, end) for end in LOG_C)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            lacks = lack(middle)
            short = np.where(np.isnan(lacks), middle < first, lacks > 0)
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return self._shaped(np.where(high < LOG_C[1] - 1, np.exp(high), np.nan), value)


def _taken(values: Array, best: Array, shape: tuple[int, ...]) -> Array:
    """The value at each row's best place (...) of values that broadcast to (..., G)."""
    return np.take_along_axis(np.broadcast_to(values, shape), best[..., None], -1)[..., 0]
