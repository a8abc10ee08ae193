"""The compute-optimal frontier N*(C), D*(C), L*(C): the output of all three approaches, in one
type.

A cost C = c0 N^p D turns a law of N and D into powers of C. C = 6 N D is the common case; an exact
count of FLOPs bends at small N, where attention and head weigh more, and is then fitted on the
runs' own numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import Document, Estimate, PositiveReal, estimates
from scaling.points.points import Points

EXACT_6ND = 1e-3
DECAY, DECAY_SPAN = 0.1, np.log(10)  # gamma is sought from 0.01 to 1
DECAY_BUDGETS = 4  # below these a floor and a decay of the loss cannot be separated


class Cost(Document):
    """Training FLOPs C = c0 N^p D."""

    c0: PositiveReal = 6.0
    p: PositiveReal = 1.0

    def flops(self, n: Any, d: Any) -> Any:
        """C of N parameters and D tokens."""
        return self.c0 * np.power(n, self.p) * d

    def tokens(self, n: Any, c: Any) -> Any:
        """D that C pays for at N."""
        return c / (self.c0 * np.power(n, self.p))


def fit_cost(points: Points) -> Cost:
    """The cost of a table's own N, D and C: exactly 6 N D where it is that, else least squares of
    log(C/D) on log N.
    """
    if points.n is None or points.d is None or points.c is None:
        return Cost()
    if np.all(np.abs(points.c / (6.0 * points.n * points.d) - 1) < EXACT_6ND):
        return Cost()
    if np.ptp(np.log(points.n)) < 0.1:
        return Cost(c0=float(np.median(points.c / (points.n * points.d))))
    p, log_c0 = fit_power(np.log(points.n), np.log(points.c / points.d))
    return Cost(c0=float(np.exp(log_c0)), p=float(p))


def fit_power(
    log_x: np.ndarray, log_y: np.ndarray, std: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(exponent, log coefficient) of y = k x^e by least squares in logs, weighted by 1/std^2
    (Porian 2024, appendix).

    `log_x` (n,); `log_y` (..., n) may hold NaN, which weighs nothing; results have the leading
    shape of `log_y`.
    """
    weight = np.isfinite(log_y) / (1.0 if std is None else np.square(std))
    y = np.where(np.isfinite(log_y), log_y, 0.0)
    total = weight.sum(-1)
    mean_x, mean_y = (weight * log_x).sum(-1) / total, (weight * y).sum(-1) / total
    centred = log_x - mean_x[..., None]
    exponent = (weight * centred * y).sum(-1) / (weight * centred**2).sum(-1)
    return exponent, mean_y - exponent * mean_x


def fit_decay(log_c: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(E, log K, gamma) of L = E + K C^-gamma, E >= 0, by least squares of relative errors; `loss`
    (..., n) may hold NaN.

    Linear in E and K at each gamma of a grid (variable projection). For the minima of a few
    budgets; `estimate` fits runs.
    """
    weight = np.where(np.isfinite(loss), 1.0, 0.0)
    y = np.where(np.isfinite(loss), loss, 1.0)
    x = log_c - log_c.mean()
    gamma, width = np.full(loss.shape[:-1], DECAY), DECAY_SPAN
    for count in (25, 9, 9):  # a coarse grid, then twice the surroundings of its best point
        tried = gamma * np.exp(width * np.linspace(-1, 1, count).reshape(-1, *[1] * gamma.ndim))
        costs = _decay_at(tried[..., None], x, y, weight)[2]
        gamma = np.take_along_axis(tried, costs.argmin(0)[None], 0)[0]
        width = 2 * width / (count - 1)
    floor, k, _ = _decay_at(gamma[..., None], x, y, weight)
    return floor, np.log(np.maximum(k, 1e-300)) + gamma * log_c.mean(), gamma


def _decay_at(
    gamma: np.ndarray, x: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(E, K, sum of squares) at a given gamma, E >= 0 and K > 0."""
    p, q = np.exp(-gamma * x) / y, 1 / y
    pp, pq, qq, p1, q1 = ((weight * each).sum(-1) for each in (p * p, p * q, q * q, p, q))
    det = np.maximum(pp * qq - pq**2, 1e-300)
    floor = np.maximum((pp * q1 - pq * p1) / det, 0.0)
    k = (p1 - floor * pq) / pp
    k = np.where(k > 0, k, 0.0)
    return floor, k, (weight * (floor[..., None] * q + k[..., None] * p - 1) ** 2).sum(-1)


@dataclass(frozen=True)
class Frontier:
    """N* = exp(log_n) C^a, D* = exp(log_d) C^b, L* = floor + exp(log_gap) C^-gamma; scalars, or
    arrays over draws (R,).

    `gamma` is None where an approach gives no loss.
    """

    a: np.ndarray
    log_n: np.ndarray
    b: np.ndarray
    log_d: np.ndarray
    floor: np.ndarray | None = None
    log_gap: np.ndarray | None = None
    gamma: np.ndarray | None = None

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Frontier:
        """A frontier of changed powers, as closed as this one."""
        columns = (self.a, self.log_n, self.b, self.log_d, self.floor, self.log_gap, self.gamma)
        return Frontier(*(None if each is None else change(each) for each in columns))  # type: ignore[arg-type]

    def exponents(self, draws: Frontier | None, ci: float) -> dict[str, Estimate]:
        """The exponents {a, b} with their intervals."""
        values = {"a": float(self.a), "b": float(self.b)}
        return estimates(values, {"a": draws.a, "b": draws.b} if draws else None, ci)

    def powers(self) -> dict[str, np.ndarray]:
        """Its powers by the names of the document; E, K and gamma only where it gives a loss."""
        named = {
            "a": self.a,
            "n_coef": np.exp(self.log_n),
            "b": self.b,
            "d_coef": np.exp(self.log_d),
        }
        if self.floor is None or self.log_gap is None or self.gamma is None:
            return named
        return named | {"E": self.floor, "K": np.exp(self.log_gap), "gamma": self.gamma}

    def n_star(self, flops: float | np.ndarray) -> np.ndarray:
        """N*(C)."""
        return np.exp(self.log_n + self.a * np.log(flops))

    def d_star(self, flops: float | np.ndarray) -> np.ndarray:
        """D*(C)."""
        return np.exp(self.log_d + self.b * np.log(flops))

    def loss(self, flops: float | np.ndarray) -> np.ndarray | None:
        """L*(C), None where the approach gives none."""
        if self.floor is None or self.log_gap is None or self.gamma is None:
            return None
        return self.floor + np.exp(self.log_gap - self.gamma * np.log(flops))

    def flops_for(self, loss: float | np.ndarray) -> np.ndarray:
        """The cheapest C that reaches a loss; NaN for draws whose floor it does not clear."""
        if self.floor is None or self.log_gap is None or self.gamma is None:
            raise ScalingError(
                "this fit gives no loss along its frontier",
                remedy="give FLOPs, or use the parametric fit",
            )
        gap = np.asarray(loss - self.floor, float)
        safe = np.where(gap > 0, gap, np.nan)
        return np.exp((self.log_gap - np.log(safe)) / self.gamma)


def fit_power_frontier(
    log_c: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_loss: np.ndarray
) -> Frontier:
    """Powers through the minima of the budgets (..., n): N*, D* and, from four budgets on, the
    decay of L*.
    """
    (a, k_n), (b, k_d) = fit_power(log_c, log_n), fit_power(log_c, log_d)
    if len(log_c) < DECAY_BUDGETS:
        return Frontier(a, k_n, b, k_d)
    return Frontier(a, k_n, b, k_d, *fit_decay(log_c, np.exp(log_loss)))


def frontier_of_powers(powers: Mapping[str, Any]) -> Frontier:
    """A frontier from its powers N* = n_coef C^a, D* = d_coef C^b and, where there is a loss, E + K
    C^-gamma.
    """
    values = {name: np.asarray(value, float) for name, value in powers.items()}
    n_and_d = (values["a"], np.log(values["n_coef"]), values["b"], np.log(values["d_coef"]))
    if "gamma" not in values:
        return Frontier(*n_and_d)
    return Frontier(*n_and_d, values["E"], np.log(values["K"]), values["gamma"])


def sum_frontier(
    log_a: Any, alpha: Any, log_b: Any, beta: Any, cost: Cost, k: Any = 1.0, floor: Any = 0.0
) -> Frontier:
    """The frontier of L = E + (A/N^alpha + B/D^beta)^k: N* = G (C/c0)^a with a = beta / (alpha + p
    beta), G = (alpha A / (p beta B))^(1/(alpha + p beta)) (Hoffmann 2022, eq. 4, p = k = 1).
    """
    whole = alpha + cost.p * beta
    a, log_g = beta / whole, (np.log(alpha / (cost.p * beta)) + log_a - log_b) / whole
    log_n = log_g - a * np.log(cost.c0)
    log_d = -np.log(cost.c0) - cost.p * log_n
    log_gap = log_a - alpha * log_n + np.log1p(alpha / (cost.p * beta))
    return Frontier(a, log_n, 1 - cost.p * a, log_d, floor, k * log_gap, k * alpha * a)


def chinchilla_frontier(values: Mapping[str, np.ndarray], cost: Cost) -> Frontier:
    """The frontier of Hoffmann's law, with alpha for both where there is no beta, and of the
    coupled law, which has a k.

    The data-constrained law is Hoffmann's as long as every token is new (Muennighoff 2023, eq. 5).
    """
    alpha, beta = values["alpha"], values.get("beta", values["alpha"])
    log_a, log_b = np.log(values["A"]), np.log(values["B"])
    return sum_frontier(log_a, alpha, log_b, beta, cost, values.get("k", 1.0), values["E"])


def kaplan_frontier(values: Mapping[str, np.ndarray], cost: Cost) -> Frontier:
    """The frontier of Kaplan 2020, eq. 1.5: A = N_c^r, alpha = r = alpha_N / alpha_D, B = D_c, beta
    = 1 and k = alpha_D, above a floor E where there is one.
    """
    alpha_d = values["alpha_D"]
    r = values["alpha_N"] / alpha_d
    log_a, log_b = r * np.log(values["N_c"]), np.log(values["D_c"])
    return sum_frontier(log_a, r, log_b, 1.0, cost, alpha_d, values.get("E", np.zeros_like(r)))


def cap_resamples(resamples: int, width: int) -> int:
    """Resamples of `width` numbers that fit into a few hundred megabytes; a table that large needs
    fewer of them.
    """
    return max(20, min(resamples, 20_000_000 // max(1, width)))
