"""The combination of several laws as a document: candidates with their weights, and the forecast
that follows.

law_weights.py makes it; docs/forecasts.md says how, and how often its intervals hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from scaling.fit.document import Document, FitStatus
from scaling.fit.frontier.frontier import Cost, Frontier, frontier_of_powers
from scaling.fit.laws.laws import LAWS
from scaling.fit.significance import student

Array = np.ndarray
Quantity = Literal["loss", "n_star", "loss_star"]
FREEDOM = 10.0  # degrees of freedom of the interval's Student t
NOISE_SHARE = (
    0.5  # of the scatter of the runs: part of it is misfit, which the spread already holds
)
NEAR_OPTIMUM = math.log(2)  # of log N: within it the loss of a run follows L*(C)
SPANNED = ("isoflop", "envelope")  # what they say of N* and L* lies inside the interval


class Candidate(Document):
    """A law or an approach in the combination. `params` are reported parameters of a law,
    `polynomial` those of the surface, `powers` its frontier (a, n_coef, b, d_coef, E, K, gamma).
    `errors` are root mean squares of its rolling-origin errors in logs.
    """

    name: str
    status: FitStatus = FitStatus.OK
    params: dict[str, float] | None = None
    polynomial: tuple[float, ...] | None = None
    powers: dict[str, float] | None = None
    weights: dict[Quantity, float] = {}
    errors: dict[Quantity, float] = {}

    def log_loss(self, n: Array, d: Array) -> Array:
        """log L (n,) at N and D; NaN for an approach that only knows the frontier."""
        if self.polynomial is not None:
            centre, coefficients = self.polynomial[:2], np.array(self.polynomial[2:])
            return np.asarray(second_order(n, d, centre) @ coefficients)
        if self.params is None:
            return np.full(np.shape(n), np.nan)
        law = LAWS[self.name]
        return law.log_predict(law.theta(self.params), {"N": n, "D": d})

    def frontier(self) -> Frontier | None:
        """N*(C), D*(C) and L*(C) as powers; None where it has none."""
        return None if self.powers is None else frontier_of_powers(self.powers)


class Forecast(Document):
    """The answer for one quantity, with its interval and the parts of its standard error in logs;
    `each` is what a candidate says.
    """

    value: float
    lo: float
    hi: float
    noise: float
    spread: float
    factor: float
    each: dict[str, float]


class Mixture(NamedTuple):
    """The answers (rows,) in logs: mean, how far the interval reaches below and above it, and its
    standard error, which is `factor` times the root of squares of `spread` and `noise`.
    """

    mean: Array
    below: Array
    above: Array
    spread: Array
    noise: Array
    factor: Array

    def ends(self) -> tuple[Array, Array, Array]:
        """The values (rows,) and the ends of their intervals."""
        return np.exp(self.mean), np.exp(self.mean - self.below), np.exp(self.mean + self.above)

    def forecast(self, names: Sequence[str], logs: Array) -> Forecast:
        """The first row, with what the candidates say."""
        value, lo, hi = (float(end[0]) for end in self.ends())
        said = zip(names, logs[0], strict=True)
        return Forecast(
            value=value,
            lo=lo,
            hi=hi,
            noise=float(self.noise[0]),
            spread=float(self.spread[0]),
            factor=float(self.factor[0]),
            each={name: math.exp(log) for name, log in said if math.isfinite(log)},
        )


class Combination(Document):
    """Candidates with their weights. `factor` multiplies the standard error of each quantity,
    `noise` is the scatter of a run's log loss, `size_noise` that of log N* of measured minima,
    `origins` counts the prefixes that were predicted from, `cost` says what N and D cost.
    """

    candidates: tuple[Candidate, ...]
    factor: dict[Quantity, float]
    noise: float
    size_noise: float = 0.0
    origins: int
    cost: Cost = Cost()

    def loss(self, n: float, d: float, ci: float) -> Forecast:
        """The loss of a new run of N parameters on D tokens."""
        inputs = np.array([n]), np.array([d])
        return self._runs(*inputs, ci).forecast(self.names, log_losses(self.candidates, *inputs))

    def losses(self, n: Array, d: Array, ci: float) -> tuple[Array, Array, Array]:
        """The losses (n,) of new runs and the ends of their intervals."""
        return self._runs(n, d, ci).ends()

    def optimum(self, flops: float, quantity: Quantity, ci: float) -> Forecast:
        """N*(C) or L*(C) by `quantity`."""
        logs = log_optima(self.candidates, np.array([flops]), quantity)
        return self._mix(quantity, logs, ci).forecast(self.names, logs)

    def optima(self, flops: Array, quantity: Quantity, ci: float) -> tuple[Array, Array, Array]:
        """N*(C) or L*(C) at budgets (n,) and the ends of their intervals."""
        return self._mix(quantity, log_optima(self.candidates, flops, quantity), ci).ends()

    @property
    def names(self) -> list[str]:
        """The names of the candidates."""
        return [one.name for one in self.candidates]

    def weights(self, quantity: Quantity) -> Array:
        """The weights (candidates,) for a quantity."""
        return np.array([one.weights.get(quantity, 0.0) for one in self.candidates])

    def noise_of(self, quantity: Quantity) -> float:
        """The scatter of what is measured, in logs: part of that of a run, or of a minimum."""
        return self.size_noise if quantity == "n_star" else NOISE_SHARE * self.noise

    def _mix(self, quantity: Quantity, logs: Array, ci: float) -> Mixture:
        """The answer from those of candidates (rows, candidates), in logs."""
        weights = self.weights(quantity)
        mean, spread = mean_and_spread(logs, weights)
        noise, factor = (
            np.full_like(mean, part)
            for part in (self.noise_of(quantity), self.factor.get(quantity, 1.0))
        )
        half = student(ci, FREEDOM) * factor * np.hypot(spread, noise)
        below = above = half
        if quantity != "loss":
            for name, log, weight in zip(self.names, logs.T, weights, strict=True):
                if name in SPANNED and weight > 0:
                    below, above = np.fmax(below, mean - log), np.fmax(above, log - mean)
        return Mixture(mean, below, above, spread, noise, factor)

    def _runs(self, n: Array, d: Array, ci: float) -> Mixture:
        """The losses of runs: far from the optimum those of the laws, at (N*, D*) those of L*(C),
        which approaches without a law know too; in between both, by the distance in log N.
        """
        flops = self.cost.flops(n, d)
        laws = self._mix("loss", log_losses(self.candidates, n, d), ci)
        size, best = (
            self._mix(quantity, log_optima(self.candidates, flops, quantity), ci)
            for quantity in ("n_star", "loss_star")
        )
        n_star = np.exp(size.mean)
        there = log_losses(self.candidates, n_star, self.cost.tokens(n_star, flops))
        shift = best.mean - self._mix("loss", there, ci).mean
        near = np.exp(-0.5 * ((np.log(n) - size.mean) / NEAR_OPTIMUM) ** 2)
        near = np.where(np.isfinite(shift), near, 0.0)

        def between(far: Array, close: Array) -> Array:
            squares = (1 - near) * far**2 + near * np.where(near > 0, close, 0.0) ** 2
            return np.asarray(np.sqrt(squares))

        spread, noise = between(laws.spread, best.spread), between(laws.noise, best.noise)
        error = between(
            laws.factor * np.hypot(laws.spread, laws.noise),
            best.factor * np.hypot(best.spread, best.noise),
        )
        parts = np.hypot(spread, noise)
        return Mixture(
            laws.mean + near * np.where(near > 0, shift, 0.0),
            between(laws.below, best.below),
            between(laws.above, best.above),
            spread,
            noise,
            np.divide(error, parts, out=np.ones_like(parts), where=parts > 0),
        )


def log_losses(candidates: Sequence[Candidate], n: Array, d: Array) -> Array:
    """log L (rows, candidates) of runs; NaN where a candidate says nothing."""
    return np.stack([one.log_loss(n, d) for one in candidates], 1)


def log_optima(candidates: Sequence[Candidate], flops: Array, quantity: Quantity) -> Array:
    """log N*(C) or log L*(C) (rows, candidates) at budgets; NaN where a candidate says nothing."""
    result = np.full((len(flops), len(candidates)), np.nan)
    for column, frontier in enumerate(one.frontier() for one in candidates):
        if frontier is not None:
            values = frontier.n_star(flops) if quantity == "n_star" else frontier.loss(flops)
            if values is not None:
                usable = (values > 0) & np.isfinite(values)
                result[usable, column] = np.log(values[usable])
    return result


def second_order(n: Array, d: Array, centre: Sequence[float]) -> Array:
    """Columns (n, 6) of a polynomial of second degree in log N and log D about `centre`."""
    u, v = np.log(n) - centre[0], np.log(d) - centre[1]
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1)


def mean_and_spread(logs: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted mean and standard deviation (rows,) of the candidates' logs (rows, candidates), of
    those that are finite; NaN where none is.
    """
    usable = np.isfinite(logs) & (weights > 0)
    shares = usable * weights
    total = shares.sum(1, keepdims=True)
    shares = np.divide(shares, total, out=np.full_like(shares, np.nan), where=total > 0)
    logs = np.where(usable, logs, 0.0)
    mean = (shares * logs).sum(1)
    return mean, np.sqrt((shares * (logs - mean[:, None]) ** 2).sum(1))
