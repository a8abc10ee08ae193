"""All sizes and tokens that reach one loss: what a smaller model needs to be as good, and the size that costs least."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.errors import ScalingError

SPAN = np.log(1e4)  # sizes are sought this many times below and above
POINTS, PASSES, NARROWING = 401, 8, 50.0


@dataclass(frozen=True)
class EqualLoss:
    """The pairs N, D with a N^-alpha + b D^-beta = whole; numbers, or arrays over draws (R,)."""

    a: Any
    alpha: Any
    b: Any
    beta: Any
    whole: Any

    def tokens(self, n: Any) -> np.ndarray:
        """D that N parameters need; NaN where no number of tokens is enough."""
        rest = np.asarray(self.whole - self.a * np.power(n, -self.alpha))
        return np.where(rest > 0, np.where(rest > 0, rest, 1.0) / self.b, np.nan) ** (-1 / self.beta)

    @property
    def critical(self) -> np.ndarray:
        """The size at and below which no number of tokens reaches the loss (De Vries 2023)."""
        return np.asarray((self.a / self.whole) ** (1 / self.alpha))


def equal_loss(law: str, values: Mapping[str, Any], n: Any, d: Any) -> EqualLoss:
    """What has the loss of N parameters and D fresh tokens, for the laws of Chinchilla's form and for Kaplan's L(N,D).

    `values` are reported parameters, numbers or arrays over draws (R,), as are `n` and `d`. Raises ScalingError for another law.
    """
    if law == "kaplan":  # L^(1/alpha_D) is a sum of two powers (Kaplan 2020, eq. 1.5)
        ratio = values["alpha_N"] / values["alpha_D"]
        found = EqualLoss(values["N_c"] ** ratio, ratio, values["D_c"], 1.0, 0.0)
    elif law in ("chinchilla", "chinchilla-tied", "data-constrained"):
        found = EqualLoss(values["A"], values["alpha"], values["B"], values.get("beta", values["alpha"]), 0.0)
    else:
        raise ScalingError(
            f"the law {law} does not say which N and D have one loss", remedy="use a fit of the law chinchilla (--approach parametric)"
        )
    whole = found.a * np.power(n, -found.alpha) + found.b * np.power(d, -found.beta)
    return EqualLoss(found.a, found.alpha, found.b, found.beta, whole)


def cheapest(total: Callable[[np.ndarray], np.ndarray], n: float) -> float:
    """The size within a factor of 1e4 of `n` at which `total(sizes)`, convex in log N and NaN where impossible, is least."""
    centre, span = np.log(n), SPAN
    for _ in range(PASSES):
        grid = np.exp(centre + np.linspace(-span, span, POINTS))
        centre, span = float(np.log(grid[np.argmin(np.nan_to_num(total(grid), nan=np.inf))])), span / NARROWING
    return float(np.exp(centre))
