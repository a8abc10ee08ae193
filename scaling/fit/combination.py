"""The combination of several laws as a document: candidates with their weights, and the forecast
that follows.

law_weights.py makes it; docs/forecasts.md says how, and how often its intervals hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from scaling.fit.document import Document, FitStatus
from scaling.fit.frontier.budgets import quadratic
from scaling.fit.frontier.frontier import Cost, Frontier, frontier_of_powers
from scaling.fit.laws.laws import LAWS
from scaling.fit.significance import student

Array = np.ndarray
Quantity = Literal["loss", "n_star", "loss_star"]
FREEDOM = 10.0  # degrees of freedom of the interval's Student t
SPREAD_SHARE: dict[Quantity, float] = {"loss": 1.0, "n_star": 0.6, "loss_star": 0.6}
NOISE_SHARE = 0.5  # of the scatter of the runs: part of it is misfit, which the spread holds
NEAR_OPTIMUM = math.log(2)  # of log N: within it the loss of a run follows L*(C)
MEASURED = 1e-3  # of log L*: what a parabola through the runs is off by itself
VOICE = 0.5  # of the largest weight: what weighs less has been contradicted by the later budgets


class Candidate(Document):
    """A law or an approach in the combination. `params` are reported parameters of a law,
    `polynomial` the centre of log N and log D and the coefficients of the surface, `powers` its
    frontier (a, n_coef, b, d_coef, E, K, gamma). `errors` are root mean squares of its
    rolling-origin errors in logs.
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
            log_n, log_d, *coefficients = self.polynomial
            return quadratic(np.log(n) - log_n, np.log(d) - log_d) @ coefficients
        if self.params is None:
            return np.full(np.shape(n), np.nan)
        law = LAWS[self.name]
        return law.log_predict(law.theta(self.params), {"N": n, "D": d})

    def frontier(self, cost: Cost) -> Frontier | None:
        """N*(C), D*(C) and L*(C), at the cost of planned models where it knows them, else at that
        of the runs; None where it has none.
        """
        if self.params is not None and cost.planned is not None:
            return LAWS[self.name].frontier(self.params, cost)
        return None if self.powers is None else frontier_of_powers(self.powers, cost)


class Mixture(NamedTuple):
    """The answers (rows,) in logs, and the parts of their standard errors, which add in squares:
    the spread of the candidates, the noise of what is measured, and the distance from the data;
    `each` (rows, candidates) is what these say.
    """

    mean: Array
    spread: Array
    noise: Array
    distance: Array
    each: Array

    def ends(self, ci: float) -> tuple[Array, Array, Array]:
        """The values (rows,) and the ends of their intervals."""
        error = np.sqrt(self.spread**2 + self.noise**2 + self.distance**2)
        half = student(ci, FREEDOM) * error
        return np.exp(self.mean), np.exp(self.mean - half), np.exp(self.mean + half)


class Combination(Document):
    """Candidates with their weights. `growth` is the error that each quantity gains a decade of C
    beyond the `largest` budget, in logs, `noise` the scatter of a run's log loss, `size_noise` that
    of log N* of measured minima, `origins` counts the prefixes that were predicted from, `tested`
    says over how many decades two of them were, `missed_minima` counts the measured L* after them
    that every candidate missed on one side, beyond the interval, `cost` what N and D cost.
    """

    candidates: tuple[Candidate, ...]
    growth: dict[Quantity, float]
    largest: float
    noise: float
    size_noise: float = 0.0
    origins: int
    tested: float = 0.0
    missed_minima: int = 0
    cost: Cost = Cost()

    @property
    def names(self) -> list[str]:
        """The names of the candidates."""
        return [one.name for one in self.candidates]

    def weights(self, quantity: Quantity) -> Array:
        """The weights (candidates,) for a quantity."""
        return np.array([one.weights.get(quantity, 0.0) for one in self.candidates])

    def each(self, mixture: Mixture) -> dict[str, float]:
        """What the candidates say of the first row."""
        said = zip(self.names, mixture.each[0], strict=True)
        return {name: math.exp(log) for name, log in said if math.isfinite(log)}

    def is_not_contradicted(self, name: str) -> bool:
        """Whether the later budgets did not contradict what a candidate says of N*; True for an
        approach that is no candidate.
        """
        weights = dict(zip(self.names, self.weights("n_star"), strict=True))
        return name not in weights or weights[name] >= VOICE * max(weights.values())

    def missed_by_all(self, quantity: Quantity, decades: Array, logs: Array, ci: float) -> int:
        """How many measured values every candidate missed on one side, and the interval too, from
        errors in logs (rows, candidates) so many decades beyond the data.
        """
        logs = np.where(self.weights(quantity) > 0, logs, np.nan)
        _, lo, hi = self.mix(quantity, logs, decades).ends(ci)
        too_high = (np.nanmin(logs, 1) > MEASURED) & (np.log(lo) > MEASURED)
        too_low = (np.nanmax(logs, 1) < -MEASURED) & (np.log(hi) < -MEASURED)
        return int((too_high | too_low).sum())

    def noise_of(self, quantity: Quantity) -> float:
        """The scatter of what is measured, in logs: part of that of a run, or of a minimum; L* is
        not one run's.
        """
        run = NOISE_SHARE * self.noise
        return {"loss": run, "n_star": self.size_noise, "loss_star": 0.0}[quantity]

    def mix(self, quantity: Quantity, logs: Array, decades: Array) -> Mixture:
        """The answer from those of candidates (rows, candidates), in logs, so many decades (rows,)
        beyond the data.
        """
        mean, spread = mean_and_spread(logs, self.weights(quantity))
        noise, growth = self.noise_of(quantity), self.growth.get(quantity, 0.0)
        spread = SPREAD_SHARE[quantity] * spread
        return Mixture(mean, spread, np.full_like(mean, noise), growth * decades, logs)

    def _decades(self, flops: Array) -> Array:
        return np.maximum(np.log10(flops / self.largest), 0.0)

    def optima(self, flops: Any, quantity: Quantity) -> Mixture:
        """N*(C) or L*(C) at one or more budgets."""
        flops = np.atleast_1d(flops)
        logs = log_optima(self.candidates, flops, quantity, self.cost)
        return self.mix(quantity, logs, self._decades(flops))

    def losses(self, n: Any, d: Any) -> Mixture:
        """The losses of one or more new runs: far from the optimum those of the laws, at (N*, D*)
        that of L*(C), which approaches without a law know too; in between both, by the distance in
        log N. A run has its noise everywhere.
        """
        n, d = np.atleast_1d(n), np.atleast_1d(d)
        flops = self.cost.flops(n, d)
        decades = self._decades(flops)
        laws = self.mix("loss", log_losses(self.candidates, n, d), decades)
        size, best = self.optima(flops, "n_star"), self.optima(flops, "loss_star")
        n_star = np.exp(size.mean)
        there = log_losses(self.candidates, n_star, self.cost.tokens(n_star, flops))
        shift = best.mean - self.mix("loss", there, decades).mean
        near = np.exp(-0.5 * ((np.log(n) - size.mean) / NEAR_OPTIMUM) ** 2)
        near = np.where(np.isfinite(shift), near, 0.0)

        def between(far: Array, close: Array) -> Array:
            squares = (1 - near) * far**2 + near * np.where(near > 0, close, 0.0) ** 2
            return np.sqrt(squares)

        return laws._replace(
            mean=laws.mean + near * np.where(near > 0, shift, 0.0),
            spread=between(laws.spread, best.spread),
            distance=between(laws.distance, best.distance),
        )


def log_losses(candidates: Sequence[Candidate], n: Array, d: Array) -> Array:
    """log L (rows, candidates) of runs; NaN where a candidate says nothing."""
    return np.stack([one.log_loss(n, d) for one in candidates], 1)


def log_optima(
    candidates: Sequence[Candidate], flops: Array, quantity: Quantity, cost: Cost
) -> Array:
    """log N*(C) or log L*(C) (rows, candidates) at budgets; NaN where a candidate says nothing."""
    logs = np.full((len(flops), len(candidates)), np.nan)
    for column, frontier in enumerate(one.frontier(cost) for one in candidates):
        if frontier is not None:
            values = frontier.n_star(flops) if quantity == "n_star" else frontier.loss(flops)
            if values is not None:
                logs[:, column] = np.log(np.where(values > 0, values, np.nan))
    return logs


def mean_and_spread(logs: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted mean and standard deviation (rows,) of the candidates' logs (rows, candidates), of
    those that are finite; NaN where none is.
    """
    shares = np.isfinite(logs) * weights
    total = shares.sum(1, keepdims=True)
    shares = shares / np.where(total > 0, total, np.nan)
    logs = np.where(np.isfinite(logs), logs, 0.0)
    mean = (shares * logs).sum(1)
    return mean, np.sqrt((shares * (logs - mean[:, None]) ** 2).sum(1))
