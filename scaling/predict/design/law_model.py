"""The law that a design rests on, and what runs say about its optimum: the delta method.

A run's log loss is the law's plus noise; the optimum N*(C) and its loss L*(C) are functions of the
law's parameters. To first order their variance follows from the gradients of both (Cox and Hinkley
1974, section 9.2), whatever the losses turn out to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from scaling.errors import ScalingError
from scaling.fit.frontier.frontier import Cost, Frontier
from scaling.fit.laws.law import Law
from scaling.plan import Plan
from scaling.predict.law_source import FittedLaw

# Share of the noise's variance that the branches of one prefix have in common: their seed, initial
# weights, and data up to where they branch. An assumption: a sweep with seeds shows it.
RHO = 0.5
# sd of a run's log loss, where it is not known: replicates of sweeps/honest.toml differ by 1.0 %,
# at 10k and 40k parameters
NOISE = 0.01
STEP = 1e-5
# of columns of unit length; keeps an information matrix that the runs leave singular invertible
RIDGE = 1e-10


@dataclass(frozen=True)
class Runs:
    """Runs, trained, planned or possible: N, D and FLOPs of each alone (n,), and labels that are
    equal where runs share a prefix.
    """

    n: np.ndarray
    d: np.ndarray
    flops: np.ndarray
    prefix: np.ndarray

    def take(self, rows: np.ndarray) -> Runs:
        """Some of the runs."""
        return Runs(self.n[rows], self.d[rows], self.flops[rows], self.prefix[rows])

    @classmethod
    def of_plan(cls, plan: Plan) -> Runs:
        """The runs of a plan. Cells that differ only in an axis count once: a fit takes the best of
        them, or one axis value at a time.
        """
        params = plan.sweep.design.params
        groups = enumerate(plan.groups)
        prefix = {run.run_id: label for label, group in groups for run in group.all_runs()}
        cells = {
            (item.n_params[params], item.run.tokens, item.run.seed): item for item in plan.runs
        }
        return cls(
            np.array([n for n, _, _ in cells], float),
            np.array([tokens for _, tokens, _ in cells], float),
            np.array([item.flops for item in cells.values()], float),
            np.array([prefix[item.run_id] for item in cells.values()]),
        )


@dataclass(frozen=True)
class LinearizedLaw:
    """A law of N and D at internal parameters `theta` (P,), and the cost of a run."""

    law: Law
    theta: np.ndarray
    cost: Cost

    @classmethod
    def of_fit(cls, fit: FittedLaw) -> LinearizedLaw:
        """The law of a fit. Raises ScalingError for one without an optimum in N and D."""
        law = fit.formula
        if law is None or not law.has_frontier or set(law.inputs) != {"N", "D"}:
            raise ScalingError(
                f"no parametric law of the loss in N and D ({fit.law})",
                where=fit.source,
                remedy="fit with: --law chinchilla --approach parametric",
            )
        values = {name: np.asarray(fit.values[name]) for name in law.names}
        return cls(law, np.asarray(law.theta(values), float), fit.cost)

    def optimum(self) -> Frontier:
        """N*(C), D*(C), L*(C)."""
        return self.law.frontier(self.law.values(self.theta), self.cost)

    def rows(self, runs: Runs) -> np.ndarray:
        """The gradient (n, P) of the log loss of runs in theta. Raises ScalingError where it is no
        number.
        """
        rows = self.law.jacobian(self.theta, {"N": runs.n, "D": runs.d})
        if not np.isfinite(rows).all():
            raise ScalingError(
                f"the law {self.law.name} gives no number for its runs",
                remedy="fit again, with more runs",
            )
        return rows

    def gradients(self, flops: float) -> np.ndarray:
        """The gradients (P, 3) in theta of log N*(flops), log L*(flops) and of the exponent a, by
        central differences. Raises ScalingError where they are no numbers.
        """

        def asked(theta: np.ndarray) -> np.ndarray:
            optimum = self.law.frontier(self.law.values(theta), self.cost)
            optima = optimum.n_star(flops), np.asarray(optimum.loss(flops))
            return np.stack([*np.log(optima), optimum.a], -1)

        steps = STEP * np.eye(len(self.theta)) * np.maximum(1.0, np.abs(self.theta))
        rise = asked(self.theta + steps) - asked(self.theta - steps)
        if not np.isfinite(rise).all():
            raise ScalingError(
                f"the law {self.law.name} has no optimum that is a number at {flops:.3g} FLOPs",
                where="--target",
                remedy="name a nearer target or another law",
            )
        return np.asarray(rise / (2 * np.diag(steps)[:, None]))


def covariance(rows: np.ndarray, precision: np.ndarray | float = 1.0) -> np.ndarray:
    """The covariance (P, P) of theta, in units of the noise's variance, after a fit by least
    squares of runs with `rows` (n, P) and relative precisions (n,).
    """
    length = np.linalg.norm(rows, axis=0)
    unit = np.where(length > 0, length, 1.0)
    scaled = rows / unit
    information = (scaled.T * precision) @ scaled + RIDGE * np.eye(len(unit))
    return np.asarray(np.linalg.inv(information) / np.outer(unit, unit))


def standard_errors(
    rows: np.ndarray, gradients: np.ndarray, noise: float, prefix: np.ndarray
) -> np.ndarray:
    """Standard errors (T,) of what `gradients` (P, T) ask, after a fit of runs with `rows` (n, P)
    that weighs all alike.

    A fit does not know of prefixes: the share RHO of the noise that those of one `prefix` have in
    common stands between two inverses of the information (sandwich).
    """
    influence = rows @ covariance(rows) @ gradients
    _, label = np.unique(prefix, return_inverse=True)
    sums = np.zeros((int(label.max()) + 1, influence.shape[1]))
    np.add.at(sums, label, influence)
    squares = (1 - RHO) * (influence**2).sum(0) + RHO * (sums**2).sum(0)
    return np.asarray(noise * np.sqrt(squares))


def inflation(objective: str, delta: float, noise: float) -> float:
    """How much wider the standard errors of an objective are than those of least squares when noise
    is normal (Huber 1964, section 6).

    A threshold far below the noise makes Huber's penalty that of least absolute deviations: sqrt(pi
    / 2) = 1.25.
    """
    if objective.startswith("mse"):
        return 1.0
    k = 0.0 if objective.startswith("lad") else delta / noise
    if k < 1e-6:
        return float(np.sqrt(np.pi / 2))
    inside, height = 2 * ndtr(k) - 1, np.exp(-(k**2) / 2) / np.sqrt(2 * np.pi)
    squares = inside - 2 * k * height + 2 * k**2 * ndtr(-k)
    return float(np.sqrt(squares) / inside)
