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

    loss_at: Loss | None = field(default=None, repr=False)

    @classmethod
    def of(cls, loss_at: Loss, cost: Cost, is_scalar: bool) -> Self:
        """The frontier of one parameter vector, or of draws."""
        zero = np.zeros(())
        empty = cls(zero, zero, zero, zero, loss_at=loss_at, cost=cost)
        (n, _), (n_near, _) = (empty._minimum(c) for c in (REFERENCE, REFERENCE * STEP))
        a = np.log(n_near / n) / np.log(STEP)
        if is_scalar:
            a, n = a[0], n[0]
        log_n = np.log(n) - a * np.log(REFERENCE)
        log_d = -np.log(cost.c0) - cost.p * log_n
        return cls(a, log_n, 1 - cost.p * a, log_d, loss_at=loss_at, cost=cost)

    def _minimum(self, flops: float | Array) -> tuple[Array, Array]:
        """N* and L* of budgets (R,), or of (k, 1) or (k, R) each."""
        assert self.loss_at is not None
        log_c = np.log(np.atleast_1d(flops))[..., None]
        grid, middle, width = LOG_RATIO, np.zeros((1, 1)), 1.0
        with np.errstate(all="ignore"):
            for _ in range(12):
                ratio = middle + width * grid
                log_n = (log_c - np.log(self.cost.c0) - ratio) / (1 + self.cost.p)
                n = np.exp(log_n)
                loss = self.loss_at(n, self.cost.tokens(n, np.exp(log_c)))
                loss = np.where(np.isfinite(loss), loss, np.inf)
                best = loss.argmin(-1)
                if grid is LOG_RATIO:
                    inside = (best > 0) & (best < len(grid) - 1)
                    grid, width = np.linspace(-1, 1, 9), LOG_RATIO[1] - LOG_RATIO[0]
                else:
                    width /= 4
                middle = _taken(ratio, best, loss.shape)[..., None]
        n_star, least = _taken(n, best, loss.shape), _taken(loss, best, loss.shape)
        return np.where(inside, n_star, np.nan), np.where(inside, least, np.nan)

    def _shaped(self, values: Array, flops: float | Array) -> Array:
        return values[0] if np.ndim(self.a) == 0 and np.ndim(flops) == 0 else values

    def n_star(self, flops: float | Array) -> Array:
        return self._shaped(self._minimum(flops)[0], flops)

    def d_star(self, flops: float | Array) -> Array:
        return self.cost.tokens(self.n_star(flops), np.asarray(flops))

    def loss(self, flops: float | Array) -> Array:
        return self._shaped(self._minimum(flops)[1], flops)

    def _least(self, lack: Callable[[Array], Array], wanted: float | Array) -> Array:
        """The least C from which on `lack` of C (R,), or (k, R) as `wanted` is, is not above 0; NaN
        where there is none. Budgets too small to have an optimum lack it too.
        """
        shape = np.broadcast_shapes(np.shape(np.atleast_1d(self.a)), np.shape(wanted))
        budgets = np.linspace(LOG_C[0], LOG_C[1], DECADES + 1)
        known = np.isfinite([lack(np.full(shape, np.exp(each))) for each in budgets])
        first = budgets[known.argmax(0)]
        low, high = (np.full(shape, end) for end in LOG_C)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            lacks = lack(np.exp(middle))
            short = np.where(np.isnan(lacks), middle < first, lacks > 0)
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        needed = np.where(high < LOG_C[1] - 1, np.exp(high), np.nan)
        return self._shaped(needed, wanted)

    def flops_for(self, loss: float | Array) -> Array:
        return self._least(lambda flops: self._minimum(flops)[1] - loss, loss)

    def flops_of(self, letter: str, value: float) -> Array:
        size = self.n_star if letter == "N" else self.d_star
        return self._least(lambda flops: value - size(flops), value)


def _taken(values: Array, best: Array, shape: tuple[int, ...]) -> Array:
    """The value at each row's best place (...) of values that broadcast to (..., G)."""
    return np.take_along_axis(np.broadcast_to(values, shape), best[..., None], -1)[..., 0]
