"""A law fitted to a dataset: parameters, residuals, noise, draws and compute-optimal frontier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from scaling.fit.dataset import Dataset
from scaling.fit.document import Estimate, FitStatus, estimates, r_squared
from scaling.fit.frontier.frontier import Cost, Frontier
from scaling.fit.laws.law import Law
from scaling.fit.newton import Problem, problem_of
from scaling.fit.noise import Noise, deviates, orthonormal
from scaling.fit.result import Goodness, Objective, Starts
from scaling.points.points import Points
from scaling.warning import ResultWarning

Array = np.ndarray


@dataclass(frozen=True)
class Draws:
    """Refitted parameters `theta` (resamples - failed, P), internal; `kind` pairs, clusters
    or residual. Refits that did not converge, and resamples with fewer distinct points than
    parameters, are not in `theta`: `failed` counts them.
    """

    theta: Array
    kind: str
    resamples: int
    failed: int
    seed: int


@dataclass(frozen=True, eq=False)
class LawFit:
    """A law fitted to `data`. `theta` (P,) are internal coordinates; `value` is the objective
    there, a sum over points; `status` and `warnings` say how far to trust it. `fixed` holds the
    reported parameters that were not fitted, `draws` its bootstrap.
    """

    law: Law
    data: Dataset
    objective: str
    delta: float
    theta: Array
    value: float
    status: FitStatus
    warnings: tuple[ResultWarning, ...]
    starts: Starts
    fixed: Mapping[str, float] = field(default_factory=dict)
    draws: Draws | None = None
    delta_from_noise: bool = False

    @property
    def values(self) -> dict[str, float]:
        """The reported parameters."""
        return {name: float(value) for name, value in self.law.values(self.theta).items()}

    @property
    def n_free(self) -> int:
        """How many parameters were fitted."""
        return len(self.law.params) - len(self.fixed)

    def predict(self, points: Points, theta: Array | None = None) -> Array:
        """Log losses (..., n) of points by the law, at its own parameters or at `theta` (..., P);
        losses where the law is signed.
        """
        at = self.theta if theta is None else theta
        return self.law.log_predict(at, points.inputs(self.law.inputs))

    @cached_property
    def residuals(self) -> Array:
        """Log losses (n,) above the law; losses where the law is signed."""
        loss = self.data.points.loss if self.law.signed else self.data.log_loss
        return loss - self.predict(self.data.points)

    @cached_property
    def problem(self) -> Problem:
        """What was minimised."""
        return problem_of(self.law, self.data, self.objective, self.delta, self.fixed)

    @cached_property
    def noise(self) -> Noise:
        """The noise of one run about the law and the outliers: of log losses, or of losses relative
        to their mean where the objective is one of losses.
        """
        problem = self.problem
        at = problem.centred(self.theta)
        residual, expansion = problem.residual(at), problem.bound(at[None])
        design = expansion.gradient[0, problem.free].T
        if not problem.objective.log:
            mean = float(problem.loss.mean())
            residual = residual / mean
            design = design * (np.exp(expansion.value[0]) / mean)[:, None]
        root = np.sqrt(problem.weight / problem.weight.mean())  # `sd` is that of a mean weight
        return deviates(residual * root, orthonormal(design * root[:, None]))

    @cached_property
    def drawn(self) -> dict[str, Array]:
        """The draws as reported parameters (R,); empty without draws."""
        few = self.draws is None or len(self.draws.theta) < 2
        return {} if few or self.draws is None else self.law.values(self.draws.theta)

    @cached_property
    def optimum(self) -> Frontier | None:
        """The compute-optimal frontier under the runs' own cost, where the law has one."""
        if not self.law.has_frontier:
            return None
        return self.law.frontier(self.values, self.data.cost)

    @cached_property
    def optimum_draws(self) -> Frontier | None:
        """The frontier of the draws."""
        if self.optimum is None or not self.drawn:
            return None
        return self.law.frontier(self.drawn, self.data.cost)

    def params(self, ci: float) -> dict[str, Estimate]:
        """The reported parameters with their intervals; fixed ones have none."""
        free = {name: draws for name, draws in self.drawn.items() if name not in self.fixed}
        return estimates(self.values, free, ci)

    def derived(self, ci: float) -> dict[str, Estimate]:
        """The exponents a and b under the runs' own cost, and what the law derives at C = 6 N D (G,
        ...).
        """
        powers = self.optimum.exponents(self.optimum_draws, ci) if self.optimum else {}
        if self.law.derived is None or self.data.cost != Cost():
            return powers
        spread = self.law.derived(self.drawn) if self.drawn else {}
        return powers | estimates(self.law.derived(self.law.values(self.theta)), spread, ci)

    def objective_result(self) -> Objective:
        """What was minimised, and its value."""
        return Objective(
            name=self.objective,
            delta=self.delta,
            value=self.value,
            delta_from_noise=self.delta_from_noise,
        )

    def goodness(self) -> Goodness:
        """How well the law fits: relative errors, R2 of the loss above the fitted floor (above 0
        without one), the correlation of the draws, and information criteria of normal log losses.
        """
        loss, predicted = self.data.points.loss, self.law.from_log(self.predict(self.data.points))
        if self.law.signed:
            return Goodness(rmse_percent=None, r2_excess=r_squared(loss, predicted))
        weight, positive = self.data.weight, loss > 0
        relative = predicted[positive] / loss[positive] - 1
        floor = self.values.get(self.law.floor, 0.0)
        excess = loss > floor
        above, by_law = loss[excess] - floor, np.maximum(predicted[excess] - floor, 1e-300)
        correlation = aic = bic = None
        names = [name for name in self.law.names if name not in self.fixed]
        if self.draws is not None and len(self.draws.theta) > self.n_free and len(names) > 1:
            free = self.draws.theta[:, [self.law.index(name) for name in names]]
            with np.errstate(invalid="ignore", divide="ignore"):
                rows = np.corrcoef(free, rowvar=False).tolist()
            pairs = zip(names, rows, strict=True)
            correlation = {name: dict(zip(names, row, strict=True)) for name, row in pairs}
        squares = float(np.average(self.residuals**2, weights=weight)) if positive.all() else 0.0
        if squares > 0:
            count, free_count = int((weight > 0).sum()), self.n_free + 1  # and the variance
            log_likelihood = -count / 2 * (np.log(2 * np.pi * squares) + 1)
            aic = 2 * free_count - 2 * log_likelihood
            bic = free_count * np.log(count) - 2 * log_likelihood
        return Goodness(
            rmse_percent=100 * float(np.sqrt(np.mean(relative**2))),
            r2_excess=r_squared(np.log(above), np.log(by_law)),
            correlation=correlation,
            aic=aic,
            bic=bic,
        )
