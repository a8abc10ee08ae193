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

# share of the noise's variance that the branches of one prefix have in common: see
# `shared_covariance`
RHO = 0.5
STEP = 1e-5
# of columns of unit length; keeps an information matrix that the runs leave singular invertible
RIDGE = 1e-10


@dataclass(frozen=True)
class Runs:
    """Runs, trained, planned or possible: N, D and FLOPs of each alone (n,), and labels that are
    equal where runs share a prefix (None: none is shared).
    """

    n: np.ndarray
    d: np.ndarray
    flops: np.ndarray
    prefix: np.ndarray | None = None


@dataclass(frozen=True)
class LinearizedLaw:
    """A law of N and D at internal parameters `theta` (P,), and the cost of a run. Raises
    ScalingError for a law without an optimum.
    """

    law: Law
    theta: np.ndarray
    cost: Cost

    def __post_init__(self) -> None:
        if not self.law.has_frontier or set(self.law.inputs) != {"N", "D"}:
            raise ScalingError(
                f"the law {self.law.name} is not one of N and D with a compute-optimal size",
                remedy="fit with: --law chinchilla --approach parametric",
            )

    def optimum(self) -> Frontier:
        """N*(C), D*(C), L*(C)."""
        return self.law.frontier(self.law.values(self.theta), self.cost)

    def rows(self, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        """The gradient (n, P) of the log loss of runs in theta."""
        return self.law.jacobian(self.theta, {"N": n, "D": d})

    def gradients(self, flops: float) -> np.ndarray:
        """The gradients (P, 3) in theta of log N*(flops), log L*(flops) and of the exponent a, by
        central differences.
        """

        def asked(theta: np.ndarray) -> np.ndarray:
            optimum = self.law.frontier(self.law.values(theta), self.cost)
            optima = optimum.n_star(flops), np.asarray(optimum.loss(flops))
            return np.stack([*np.log(optima), optimum.a], -1)

        steps = STEP * np.eye(len(self.theta)) * np.maximum(1.0, np.abs(self.theta))
        rise = asked(self.theta + steps) - asked(self.theta - steps)
        return np.asarray(rise / (2 * np.diag(steps)[:, None]))


def shared_covariance(rows: np.ndarray, prefix: np.ndarray | None, rho: float) -> np.ndarray:
    """The covariance (T, T) of the sums of `rows` (n, T) x noise of unit variance, a share `rho` of
    it common to the runs of a shared prefix (n,).

    Branches of one prefix share the seed, the initial weights, and the data up to where they
    branch; the rest, their own cooldown, is theirs. Half and half (RHO) is an assumption: a sweep
    with seeds shows it.
    """
    own = rows.T @ rows
    if prefix is None or rho == 0:
        return np.asarray(own)
    _, place = np.unique(prefix, return_inverse=True)
    sums = np.zeros((int(place.max()) + 1, rows.shape[1]))
    np.add.at(sums, place, rows)
    return np.asarray((1 - rho) * own + rho * sums.T @ sums)


def standard_errors(
    rows: np.ndarray,
    gradients: np.ndarray,
    noise: float,
    prefix: np.ndarray | None = None,
    rho: float = RHO,
) -> np.ndarray:
    """Standard errors (T,) of what `gradients` (P, T) ask, after a fit by least squares of runs
    with `rows` (n, P) that weighs all alike.

    A fit does not know of prefixes, so the correlation of the noise is put between two inverses of
    the information (sandwich).
    """
    length = np.linalg.norm(rows, axis=0)
    unit = np.where(length > 0, length, 1.0)
    scaled = rows / unit
    information = scaled.T @ scaled + RIDGE * np.eye(rows.shape[1])
    influence = scaled @ np.linalg.solve(information, gradients / unit[:, None])
    return np.asarray(noise * np.sqrt(np.diag(shared_covariance(influence, prefix, rho))))


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
