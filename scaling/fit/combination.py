"""The combination of several laws as a document: candidates with their weights, and the forecast
that follows.

`combine` makes it; docs/forecasts.md says how, and how often its intervals hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from scaling.fit.document import Document, FitStatus
from scaling.fit.frontier.frontier import Frontier, frontier_of_powers
from scaling.fit.laws.laws import LAWS
from scaling.fit.significance import student

Array = np.ndarray
Quantity = Literal["loss", "n_star", "loss_star"]
FREEDOM = 10.0  # degrees of freedom of the interval's Student t
NOISE_SHARE = (
    0.5  # of the scatter of the runs: part of it is misfit, which the spread already holds
)


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

    def log_loss(self, n: Array, d: Array) -> Array | None:
        """log L (n,) at N and D; None for an approach that only knows the frontier."""
        if self.polynomial is not None:
            centre, coefficients = self.polynomial[:2], np.array(self.polynomial[2:])
            return np.asarray(second_order(n, d, centre) @ coefficients)
        if self.params is None:
            return None
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

    @property
    def disagree(self) -> bool:
        """Whether a candidate lies outside the interval."""
        return not all(self.lo <= value <= self.hi for value in self.each.values())


class Combination(Document):
    """Candidates with their weights; `factor` multiplies the standard error of each quantity,
    `noise` is the scatter of a run's log loss, `origins` counts the prefixes that were predicted
    from.
    """

    candidates: tuple[Candidate, ...]
    factor: dict[Quantity, float]
    noise: float
    origins: int

    def loss(self, n: float, d: float, ci: float) -> Forecast:
        """The loss of a new run of N parameters on D tokens."""
        logs = self._log_losses(np.array([n]), np.array([d]))
        return self._forecast("loss", {name: float(log[0]) for name, log in logs.items()}, ci)

    def losses(self, n: Array, d: Array, ci: float) -> tuple[Array, Array, Array]:
        """The losses (n,) of new runs and the ends of their intervals."""
        logs = self._log_losses(n, d)
        weight = {one.name: one.weights.get("loss", 0.0) for one in self.candidates}
        names = [name for name in logs if weight[name] > 0]
        columns = np.stack([logs[name] for name in names], 1)
        mean, width, _ = self._interval("loss", columns, np.array([weight[x] for x in names]), ci)
        return np.exp(mean), np.exp(mean - width), np.exp(mean + width)

    def optimum(self, flops: float, quantity: Quantity, ci: float) -> Forecast:
        """N*(C) or L*(C) by `quantity`."""
        logs: dict[str, float] = {}
        for one in self.candidates:
            log = log_optimum(one.frontier(), flops, quantity)
            if log is not None:
                logs[one.name] = log
        return self._forecast(quantity, logs, ci)

    def _log_losses(self, n: Array, d: Array) -> dict[str, Array]:
        logs = {one.name: one.log_loss(n, d) for one in self.candidates}
        return {name: log for name, log in logs.items() if log is not None}

    def _interval(
        self, quantity: Quantity, logs: Array, weight: Array, ci: float
    ) -> tuple[Array, Array, Array]:
        """The answer, half its interval and the spread (rows,), in logs, from those of candidates
        (rows, candidates).
        """
        mean, spread = mean_and_spread(logs, weight)
        noise = NOISE_SHARE * self.noise if quantity == "loss" else 0.0
        width = student(ci, FREEDOM) * self.factor.get(quantity, 1.0) * np.hypot(spread, noise)
        return mean, width, spread

    def _forecast(self, quantity: Quantity, logs: Mapping[str, float], ci: float) -> Forecast:
        weight = {one.name: one.weights.get(quantity, 0.0) for one in self.candidates}
        names = [name for name, log in logs.items() if math.isfinite(log) and weight[name] > 0]
        values = np.array([[logs[name] for name in names]])
        parts = self._interval(quantity, values, np.array([weight[name] for name in names]), ci)
        mean, width, spread = (float(part[0]) for part in parts)
        return Forecast(
            value=math.exp(mean),
            lo=math.exp(mean - width),
            hi=math.exp(mean + width),
            noise=NOISE_SHARE * self.noise if quantity == "loss" else 0.0,
            spread=spread,
            factor=self.factor.get(quantity, 1.0),
            each={name: math.exp(log) for name, log in logs.items() if math.isfinite(log)},
        )


def second_order(n: Array, d: Array, centre: Sequence[float]) -> Array:
    """Columns (n, 6) of a polynomial of second degree in log N and log D about `centre`."""
    u, v = np.log(n) - centre[0], np.log(d) - centre[1]
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1)


def log_optimum(optimum: Frontier | None, flops: float, quantity: Quantity) -> float | None:
    """log N*(C) or log L*(C) of a frontier; None where it has none."""
    value = None
    if optimum is not None:
        value = optimum.n_star(flops) if quantity == "n_star" else optimum.loss(flops)
    return None if value is None or not 0 < float(value) < math.inf else math.log(float(value))


def mean_and_spread(logs: Array, weight: Array) -> tuple[Array, Array]:
    """Weighted mean and standard deviation (rows,) of the candidates' logs (rows, candidates)."""
    weight = weight / weight.sum()
    mean = logs @ weight
    return mean, np.sqrt(((logs - mean[:, None]) ** 2) @ weight)
