"""The compute-optimal frontier N*(C), D*(C), L*(C): the output of all three approaches, in one
type.

A cost C = c0 N^p D turns a law of N and D into powers of C. C = 6 N D is the common case; an exact
count of FLOPs bends at small N, where attention and head weigh more. Then a fit takes the power
that its runs' own numbers follow, and a prediction the counts of the models that would be trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import Document, Estimate, PositiveReal, Real, estimates
from scaling.points.points import Points

Array = np.ndarray

EXACT_6ND = 1e-3
Values = Any  # a number, or an array of one for each of R draws
DECAY, DECAY_SPAN = 0.1, np.log(10)  # gamma is sought from 0.01 to 1
DECAY_BUDGETS = 4  # below these a floor and a decay of the loss cannot be separated
COST_PASSES = 6  # of N* and the cost there; each pass leaves a few per cent of the error


class PlannedModels(Document):
    """Models of growing size: logs of N and of the FLOPs a token, and the smoothed slope `p`."""

    log_n: tuple[Real, ...]
    log_flops: tuple[Real, ...]
    p: tuple[Real, ...]


class Cost(Document):
    """Training FLOPs C = c0 N^p D, or, where the models that would be trained are known, their
    counts: between them interpolated in logs, beyond them by the last power.
    """

    c0: PositiveReal = 6.0
    p: PositiveReal = 1.0
    planned: PlannedModels | None = None

    def at(self, n: Any) -> tuple[Any, Any]:
        """(c0, p) of C = c0 N^p D for models of about N parameters."""
        if self.planned is None:
            return self.c0, self.p
        log_n, knots = np.log(n), np.array(self.planned.log_n)
        near = np.clip(log_n, knots[0], knots[-1])
        p = np.interp(near, knots, self.planned.p)
        return np.exp(np.interp(near, knots, self.planned.log_flops) - p * near), p

    def flops(self, n: Any, d: Any) -> Any:
        """C of N parameters and D tokens."""
        c0, p = self.at(n)
        return c0 * np.power(n, p) * d

    def tokens(self, n: Any, c: Any) -> Any:
        """D that C pays for at N."""
        return c / self.flops(n, 1.0)

    def size(self, d: float, c: float) -> float:
        """N that C trains on D tokens."""
        n = (c / (self.c0 * d)) ** (1 / self.p)
        for _ in range(COST_PASSES):
            c0, p = self.at(n)
            n = (c / (c0 * d)) ** (1 / p)
        return float(n)


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


def fit_power(log_x: Array, log_y: Array, std: Array | None = None) -> tuple[Array, Array]:
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


def fit_decay(log_c: Array, loss: Array) -> tuple[Array, Array, Array]:
    """(E, log K, gamma) of L = E + K C^-gamma, E >= 0, by least squares of relative errors; `loss`
    (..., n) may hold NaN.

    Linear in E and K at each gamma of a grid (variable projection). For the minima of a few
    budgets; `estimate` fits runs.
    """
    weight, q = np.isfinite(loss) * 1.0, 1 / np.where(np.isfinite(loss), loss, 1.0)
    x = log_c - log_c.mean()

    def solved(gamma: Array) -> tuple[Array, Array, Array]:
        """(E, K, sum of squares) at a given gamma, E >= 0 and K > 0."""
        p = np.exp(-gamma[..., None] * x) * q
        pp, pq, qq, p1, q1 = ((weight * each).sum(-1) for each in (p * p, p * q, q * q, p, q))
        floor = np.maximum((pp * q1 - pq * p1) / np.maximum(pp * qq - pq**2, 1e-300), 0.0)
        k = (p1 - floor * pq) / pp
        k = np.where(k > 0, k, 0.0)
        return floor, k, (weight * (floor[..., None] * q + k[..., None] * p - 1) ** 2).sum(-1)

    gamma, width = np.full(loss.shape[:-1], DECAY), DECAY_SPAN
    for count in (25, 9, 9):  # a coarse grid, then twice the surroundings of its best point
        tried = gamma * np.exp(width * np.linspace(-1, 1, count).reshape(-1, *[1] * gamma.ndim))
        gamma = np.take_along_axis(tried, solved(tried)[2].argmin(0)[None], 0)[0]
        width = 2 * width / (count - 1)
    floor, k, _ = solved(gamma)
    return floor, np.log(np.maximum(k, 1e-300)) + gamma * log_c.mean(), gamma


POWERS = ("a", "log_n", "b", "log_d", "floor", "log_gap", "gamma", "beta")  # of a Frontier


@dataclass(frozen=True)
class Frontier:
    """N* = exp(log_n) C^a, D* = exp(log_d) C^b, L* = floor + exp(log_gap) C^-gamma; scalars, or
    arrays over draws (R,).

    `gamma`, `floor` and `log_gap` are None where an approach gives no loss, `beta`, the exponent of
    D in a law's inner sum, where N* and L* were measured and do not follow from a law. The powers
    are those of the runs' cost; where `cost` knows planned models, N*, D* and L* are those at the
    cost of planned models of about N* parameters.
    """

    a: Values
    log_n: Values
    b: Values
    log_d: Values
    floor: Values = None
    log_gap: Values = None
    gamma: Values = None
    beta: Values = None
    cost: Cost = field(default_factory=Cost)

    @property
    def columns(self) -> dict[str, Values]:
        """Its powers by field, None for those it has not."""
        return {name: getattr(self, name) for name in POWERS}

    def at_cost(self, c0: Values, p: Values) -> Frontier:
        """The frontier of the same law, or of the same measured N* and L*, where C = c0 N^p D."""
        powers = self.columns
        if self.beta is not None:
            old_p = (1 - self.b) / self.a
            ratio = 1 / self.a - old_p  # alpha / beta
            k_alpha = self.gamma / self.a
            a = 1 / (ratio + p)
            log_n = a * (
                (self.log_n - self.a * (self.log_d + old_p * self.log_n)) / self.a
                + np.log(old_p / p) / self.beta
                - np.log(c0)
            )
            k = k_alpha / (ratio * self.beta)
            shift = k * (np.log1p(ratio / p) - np.log1p(ratio / old_p))
            log_gap = self.log_gap + k_alpha * (self.log_n - log_n) + shift
            powers |= {"a": a, "log_n": log_n, "log_gap": log_gap, "gamma": k_alpha * a}
        tokens = {"b": 1 - p * powers["a"], "log_d": -np.log(c0) - p * powers["log_n"]}
        return Frontier(**powers | tokens)

    def _where(self, size: Callable[[Frontier], Any]) -> Frontier:
        """Plain powers: its own, or those at the cost of models of the size that they give."""
        powers = Frontier(**self.columns)
        for _ in range(COST_PASSES if self.cost.planned else 0):
            powers = self.at_cost(*self.cost.at(size(powers)))
        return powers

    def _power(self, letter: str) -> tuple[Values, Values]:
        """Exponent and log coefficient of N*, of D*, or of L* above its floor, in C."""
        powers = {"N": (self.a, self.log_n), "D": (self.b, self.log_d)}
        return powers[letter] if letter != "L" else (-self.gamma, self.log_gap)

    def _optimum(self, letter: str, flops: float | Array) -> Array:
        """N*, D*, or L* above its floor, of a budget."""
        powers = self._where(lambda powers: np.exp(powers.log_n + powers.a * np.log(flops)))
        exponent, log_coefficient = powers._power(letter)
        return np.exp(log_coefficient + exponent * np.log(flops))

    def exponents(self, draws: Frontier | None, ci: float) -> dict[str, Estimate]:
        """The exponents {a, b} with their intervals."""
        values = {"a": float(self.a), "b": float(self.b)}
        return estimates(values, {"a": draws.a, "b": draws.b} if draws else None, ci)

    def powers(self) -> dict[str, Values]:
        """Its powers by the names of the document; E, K and gamma only where it gives a loss."""
        n_coef, d_coef = np.exp(self.log_n), np.exp(self.log_d)
        named = {"a": self.a, "n_coef": n_coef, "b": self.b, "d_coef": d_coef}
        if self.gamma is None:
            return named
        return named | {"E": self.floor, "K": np.exp(self.log_gap), "gamma": self.gamma}

    def n_star(self, flops: float | Array) -> Array:
        """N*(C)."""
        return self._optimum("N", flops)

    def d_star(self, flops: float | Array) -> Array:
        """D*(C)."""
        return self._optimum("D", flops)

    def loss(self, flops: float | Array) -> Array | None:
        """L*(C), None where the approach gives none."""
        return None if self.gamma is None else self.floor + self._optimum("L", flops)

    def flops_of(self, letter: str, value: float | Array) -> Array:
        """The C at which N* or D* is `value`, or the cheapest one that reaches the loss `value`;
        NaN for draws whose floor it does not clear.
        """
        if letter == "L":
            if self.gamma is None:
                raise ScalingError(
                    "this fit gives no loss along its frontier",
                    remedy="give FLOPs, or use the parametric fit",
                )
            gap = np.asarray(value - self.floor, float)
            value = np.where(gap > 0, gap, np.nan)
        log_value = np.log(value)

        def flops(powers: Frontier) -> Array:
            exponent, log_coefficient = powers._power(letter)
            return np.exp((log_value - log_coefficient) / exponent)

        return flops(self._where(lambda powers: powers.n_star(flops(powers))))


def fit_power_frontier(log_c: Array, log_n: Array, log_d: Array, log_loss: Array) -> Frontier:
    """Powers through the minima of the budgets (..., n): N*, D* and, from four budgets on, the
    decay of L*.
    """
    (a, k_n), (b, k_d) = fit_power(log_c, log_n), fit_power(log_c, log_d)
    if len(log_c) < DECAY_BUDGETS:
        return Frontier(a, k_n, b, k_d)
    return Frontier(a, k_n, b, k_d, *fit_decay(log_c, np.exp(log_loss)))


def frontier_of_powers(powers: Mapping[str, Any], cost: Cost) -> Frontier:
    """A frontier from its powers N* = n_coef C^a, D* = d_coef C^b and, where there is a loss, E + K
    C^-gamma.
    """
    values = {name: np.asarray(value, float) for name, value in powers.items()}
    with np.errstate(divide="ignore"):  # 0 is what a power beyond the range of numbers rounds to
        n_and_d = (values["a"], np.log(values["n_coef"]), values["b"], np.log(values["d_coef"]))
    if "gamma" not in values:
        return Frontier(*n_and_d, cost=cost)
    loss = values["E"], np.log(values["K"]), values["gamma"]
    return Frontier(*n_and_d, *loss, cost=cost)


@dataclass(frozen=True)
class PowerSum:
    """A law in N and D: L = floor + (A/N^alpha + B/D^beta)^k; numbers, or arrays over draws
    (R,).
    """

    log_a: Values
    alpha: Values
    log_b: Values
    beta: Values
    k: Values
    floor: Values

    def frontier(self, cost: Cost) -> Frontier:
        """N* = G (C/c0)^a with a = beta / (alpha + p beta), G = (alpha A / (p beta B))^(1/(alpha +
        p beta)) (Hoffmann 2022, eq. 4, p = k = 1).
        """
        ratio = self.alpha / (cost.p * self.beta)
        whole = self.alpha + cost.p * self.beta
        a, log_g = self.beta / whole, (np.log(ratio) + self.log_a - self.log_b) / whole
        log_n = log_g - a * np.log(cost.c0)
        log_d = -np.log(cost.c0) - cost.p * log_n
        log_gap = self.k * (self.log_a - self.alpha * log_n + np.log1p(ratio))
        powers = (a, log_n, 1 - cost.p * a, log_d, self.floor, log_gap, self.k * self.alpha * a)
        return Frontier(*powers, self.beta, cost)


def cap_resamples(resamples: int, width: int) -> int:
    """Resamples of `width` numbers that fit into a few hundred megabytes; a table that large needs
    fewer of them.
    """
    return max(20, min(resamples, 20_000_000 // max(1, width)))
