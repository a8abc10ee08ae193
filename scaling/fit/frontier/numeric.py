"""The compute-optimal frontier of any law of N and D, by minimisation at each budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from scaling.fit.frontier.frontier import Cost, Frontier

REFERENCE, STEP = 1e21, 1.1  # FLOPs at which exponents are read, and the ratio they are read over
LOG_N = np.linspace(np.log(1e2), np.log(1e16), 57)
LOG_C = np.log([1e8, 1e36])
HALVINGS = 36

Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (R, k) from N and D (R, k)


@dataclass(frozen=True)
class NumericFrontier(Frontier):
    """N*, D* and L* of R parameter vectors, of which `loss` gives the loss at N and D (R, k).

    `a`, `b` and their coefficients are those of the tangent at 1e21 FLOPs. NaN where there is no
    minimum between 100 and 1e16 parameters.
    """

    loss_at: Loss | None = field(default=None, repr=False)
    cost: Cost = field(default_factory=Cost)

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

    def _minimum(self, flops: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """N* and L* (R,)."""
        assert self.loss_at is not None
        log_c = np.log(np.atleast_1d(flops))[:, None]
        middle, width = np.full((1, 1), LOG_N.mean()), np.ptp(LOG_N) / 2
        grid = (LOG_N - LOG_N.mean()) / width
        rows = None
        with np.errstate(all="ignore"):
            for _ in range(12):
                log_n = middle + width * grid
                n = np.exp(log_n + 0 * log_c)
                loss = self.loss_at(n, self.cost.tokens(n, np.exp(log_c)))
                loss = np.where(np.isfinite(loss), loss, np.inf)
                best = loss.argmin(1)
                rows = np.arange(len(loss))
                if len(grid) == len(LOG_N):
                    inside = (best > 0) & (best < len(LOG_N) - 1)
                middle = np.broadcast_to(log_n, loss.shape)[rows, best][:, None]
                grid, width = np.linspace(-1, 1, 9), 2 * width / (len(grid) - 1)
        n_star = np.where(inside, np.exp(middle[:, 0]), np.nan)
        return n_star, np.where(inside, loss[rows, best], np.nan)

    def _shaped(self, values: np.ndarray, flops: float | np.ndarray) -> np.ndarray:
        return values[0] if np.ndim(self.a) == 0 and np.ndim(flops) == 0 else values

    def n_star(self, flops: float | np.ndarray) -> np.ndarray:
        return self._shaped(self._minimum(flops)[0], flops)

    def d_star(self, flops: float | np.ndarray) -> np.ndarray:
        return self.cost.tokens(self.n_star(flops), np.asarray(flops))

    def loss(self, flops: float | np.ndarray) -> np.ndarray:
        return self._shaped(self._minimum(flops)[1], flops)

    def flops_for(self, loss: float | np.ndarray) -> np.ndarray:
        count = 1 if np.ndim(self.a) == 0 else len(self.a)
        low, high = (np.full(count, end) for end in LOG_C)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            above = self._minimum(np.exp(middle))[1] > loss
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        needed = np.where(high < LOG_C[1] - 1, np.exp(high), np.nan)
        return self._shaped(needed, 0.0)
