"""A law given few runs, as a posterior: a Gaussian prior on its parameters that follows from their
place in the formula and from the inputs of a pool, Gaussian noise, and the minima of many starts as
modes, each with its Laplace evidence (MacKay 1992, chapter 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling.fit.document import evenly
from scaling.fit.laws.derivatives import Array, Inputs
from scaling.fit.laws.formula_starts import draw, solve_linear
from scaling.fit.laws.law import Law
from scaling.predict.design.selection import Belief

STARTS, LATER_STARTS, STEPS, ROUNDS = 24, 8, 60, 4
DRAWS = 600
PRIOR_WIDTH = 1.5  # of a drawn parameter, in robust standard deviations of its draws
TERM_WIDTH = 3.0  # of a term of the law, in standard deviations of the losses
TARGET_WIDTH = 1.0  # of the loss of the target about the least seen, in the same
NOISE, NOISE_RUNS = 0.02, 2.0  # of one run, in the same, and how many runs that counts for
OUTLIER = 4.0  # a run further off than this many standard deviations counts for less
MOST_MODES = 6
REFERENCE, TARGETS = 300, 5  # inputs at which terms are measured; those with a vague loss


class Prior:
    """What is known of a law before any run: mean and standard deviation (P,) of the drawn
    parameters, draws (G, P), which parameters the law is affine in, inputs of pool and target at
    which the size of a term is measured, and a few of the target's.
    """

    def __init__(self, law: Law, pool: Inputs, target: Inputs) -> None:
        both = {name: np.concatenate([pool[name], target[name]]) for name in pool}
        self.law, self.affine = law, np.isin(law.names, law.linear)
        self.reference, self.target = _subsample(both, REFERENCE), _subsample(target, TARGETS)
        self.draws = draw(law, self.reference, np.random.default_rng(0), DRAWS)
        middle = np.median(self.draws, axis=0)
        width = 1.4826 * np.median(np.abs(self.draws - middle), axis=0)
        self.width = PRIOR_WIDTH * np.maximum(width, 1e-6 * np.abs(middle) + 1e-12)
        self.mean = np.where(self.affine, 0.0, middle)

    def precision(self, theta: Array, spread: float) -> Array:
        """The prior precision (S, P) at theta (S, P): of an affine parameter by how far its term
        varies, in units of the spread of the losses; a constant may cancel the means of the others.
        """
        precision = np.broadcast_to(self.width**-2.0, theta.shape).copy()
        columns = np.clip(
            self.law.gradient(theta, self.reference)[1][:, self.affine], -1e100, 1e100
        )
        mean, varies = np.abs(columns.mean(2)), columns.std(2)
        is_constant = varies <= 1e-9 * mean
        others = np.where(is_constant, 0.0, mean / np.where(is_constant, 1.0, varies))
        size = np.where(is_constant, mean / np.sqrt(1 + (others**2).sum(1))[:, None], varies)
        scaled = (size / (TERM_WIDTH * spread)) ** 2
        precision[:, self.affine] = np.nan_to_num(scaled, posinf=1e200) + 1e-300
        return precision

    def before_any_run(self) -> Posterior:
        """Draws as modes, their affine parameters of the size of a loss."""
        theta, affine = self.draws[:64].copy(), self.affine
        _, slopes = self.law.gradient(theta, self.reference)
        size = np.sqrt(np.mean(slopes**2, axis=2))
        sound = np.isfinite(size).all(1) & (size > 0).all(1)
        theta, size = theta[sound][:8], size[sound][:8]
        theta[:, affine] = 1 / size[:, affine]
        width = np.where(affine, TERM_WIDTH / size, self.width)
        covariance = np.einsum("kp,pq->kpq", width**2, np.eye(theta.shape[1]))
        weight = np.full(len(theta), 1 / max(1, len(theta)))
        return Posterior(self.law, theta, weight, covariance, NOISE)


def _subsample(x: Inputs, count: int) -> dict[str, Array]:
    """At most `count` of the inputs, evenly picked."""
    return take(x, evenly(len(next(iter(x.values()))), count))


@dataclass(frozen=True)
class Posterior:
    """Modes (K, P) of a law given runs, their weights (K,) and covariances (K, P, P); `noise` is
    the standard deviation of one run.
    """

    law: Law
    theta: Array
    weight: Array
    covariance: Array
    noise: float

    def predict(self, x: Inputs) -> tuple[Array, Array]:
        """Mean and standard deviation (n,) of the loss, without the noise of a run."""
        value, slopes = self.law.gradient(self.theta, x)
        inside = np.einsum("kpn,kpq,kqn->kn", slopes, self.covariance, slopes)
        mean = self.weight @ value
        return mean, np.sqrt(self.weight @ (inside + (value - mean) ** 2))

    def belief(self, candidates: Inputs, target: Inputs) -> Belief:
        """What is known of the losses of candidates and target."""
        value, slopes = self.law.gradient(self.theta, candidates)
        asked, asked_slopes = self.law.gradient(self.theta, target)
        return Belief(self.weight, self.covariance, self.noise, value, slopes, asked, asked_slopes)


def posterior(
    prior: Prior, x: Inputs, loss: Array, run_precision: Array, extra_starts: Array | None = None
) -> Posterior:
    """The posterior given runs (n,) whose errors have variance / `run_precision`; `extra_starts`
    (K, P) are added to those drawn.

    The target's loss is vaguely known: about the least seen, as far off as losses scatter, counted
    as one observation.
    """
    law, count = prior.law, len(loss)
    low, high = bounds = np.array([param.bounds for param in law.params]).T
    level = float(np.abs(loss).mean())
    spread = max(float(np.std(loss)), 0.01 * level, 1e-12)
    theta, cost = solve_linear(law, prior.draws, x, loss, run_precision, low, high, ridge=1e-4)
    count_starts = STARTS if extra_starts is None else LATER_STARTS
    theta = theta[np.argsort(cost, kind="stable")[:count_starts]]
    theta = theta if extra_starts is None else np.concatenate([theta, extra_starts])
    vague = len(next(iter(prior.target.values())))
    x = {name: np.concatenate([x[name], prior.target[name]]) for name in x}
    known = np.concatenate([loss, np.full(vague, loss.min())])
    far = np.full(vague, 1 / (vague * (TARGET_WIDTH * spread) ** 2))
    noise, trust = NOISE * spread, run_precision
    for stage in range(ROUNDS):
        precision = prior.precision(theta, max(spread, 0.3 * level))
        weight = np.concatenate([trust / noise**2, far])
        steps = STEPS if stage else 2 * STEPS
        theta, value = _descend(law, theta, x, known, weight, prior.mean, precision, bounds, steps)
        best = [int(np.argmin(value))]
        predicted, slopes = (part[..., :count] for part in law.gradient(theta[best], x))
        inner = (slopes[0] * trust) @ slopes[0].T / noise**2
        ridge = np.diag(precision[best[0]] + 1e-12 * np.diag(inner))
        used = float(np.trace(np.linalg.lstsq(inner + ridge, inner, rcond=None)[0]))
        freedom = max(count - used, 0.0) + NOISE_RUNS
        off = np.abs(predicted[0] - loss) * np.sqrt(run_precision)
        typical = max(1.4826 * float(np.median(off)) * np.sqrt(count / freedom), NOISE * spread)
        trust = run_precision * np.minimum(1.0, OUTLIER * typical / np.maximum(off, 1e-300))
        squares = float(trust / run_precision @ off**2) + NOISE_RUNS * (NOISE * spread) ** 2
        noise = float(np.sqrt(squares / freedom))
    _, slopes = law.gradient(theta, x)
    size = theta.shape[1]
    hessian = (slopes * weight) @ slopes.transpose(0, 2, 1)
    hessian[:, range(size), range(size)] += precision
    scale = 1 / np.sqrt(np.einsum("kpp->kp", hessian))
    scaled = hessian * scale[:, :, None] * scale[:, None, :] + 1e-10 * np.eye(size)
    _, log_det = np.linalg.slogdet(scaled)
    evidence = -value / 2 - log_det / 2 + np.log(scale * np.sqrt(precision)).sum(1)
    evidence = np.where(np.isfinite(evidence), evidence, -np.inf)
    keep = _modes(law, theta, evidence, prior.reference, noise)
    share = np.exp(evidence[keep] - evidence[keep].max())
    inverse = np.linalg.inv(scaled[keep]) * scale[keep, :, None] * scale[keep, None, :]
    return Posterior(law, theta[keep], share / share.sum(), inverse, noise)


def _modes(law: Law, theta: Array, evidence: Array, x: Inputs, noise: float) -> list[int]:
    """The best row of each group of rows that predict the same, the best first."""
    value = law.gradient(theta, x)[0]
    kept: list[int] = []
    for row in np.argsort(-evidence, kind="stable"):
        if len(kept) == MOST_MODES or not np.isfinite(value[row]).all():
            continue
        apart = [np.sqrt(np.mean((value[row] - value[other]) ** 2)) > noise / 3 for other in kept]
        if all(apart) and (not kept or evidence[row] > evidence[kept[0]] - 8):
            kept.append(int(row))
    return kept or [int(np.argmax(evidence))]


def _descend(
    law: Law,
    theta: Array,
    x: Inputs,
    loss: Array,
    weight: Array,
    mean: Array,
    precision: Array,
    bounds: Array,
    steps: int,
) -> tuple[Array, Array]:
    """Levenberg-Marquardt for S starts at once: theta (S, P) and the penalised sum of squares
    (S,).
    """
    theta = np.clip(theta, *bounds)
    size = theta.shape[1]

    def value_of(at: Array) -> tuple[Array, Array, Array]:
        predicted, slopes = law.gradient(at, x)
        residual = predicted - loss
        with np.errstate(all="ignore"):
            total = (residual**2 * weight).sum(1) + ((at - mean) ** 2 * precision).sum(1)
        bad = ~np.isfinite(total) | ~np.isfinite(slopes).all((1, 2))
        return np.where(bad, np.inf, total), residual, slopes

    damping = np.full(len(theta), 1e-3)
    total, residual, slopes = value_of(theta)
    for _ in range(steps):
        going = np.isfinite(total)
        if not going.any():
            break
        slopes = np.where(going[:, None, None], slopes, 0.0)
        hessian = (slopes * weight) @ slopes.transpose(0, 2, 1)
        hessian[:, range(size), range(size)] += precision
        gradient = ((slopes * weight) @ np.where(going[:, None], residual, 0.0)[:, :, None])[..., 0]
        gradient += (theta - mean) * precision
        scale = 1 / np.sqrt(np.maximum(np.einsum("spp->sp", hessian), 1e-300))
        scaled = hessian * scale[:, :, None] * scale[:, None, :]
        scaled = np.where(np.isfinite(scaled), scaled, 0.0)
        scaled += (damping[:, None, None] + 1e-14) * np.eye(size)
        step = -np.linalg.solve(scaled, (gradient * scale)[..., None])[..., 0] * scale
        tried = np.clip(theta + np.nan_to_num(step), *bounds)
        new = value_of(tried)
        better = new[0] < total
        theta = np.where(better[:, None], tried, theta)
        moved = better & (total - new[0] > 1e-9 * total)
        total = np.where(better, new[0], total)
        residual = np.where(better[:, None], new[1], residual)
        slopes = np.where(better[:, None, None], new[2], slopes)
        damping = np.clip(np.where(better, damping / 10, damping * 5), 1e-12, 1e12)
        if not (moved | (damping < 1e6)).any():
            break
    return theta, total


def take(x: Inputs, rows: Array | Sequence[int]) -> dict[str, Array]:
    """The inputs of some runs."""
    return {name: np.asarray(values)[np.asarray(rows, int)] for name, values in x.items()}
