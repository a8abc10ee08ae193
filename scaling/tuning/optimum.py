"""The optimum of a grid and the regret of other values: a parabola in log(value) about the best.

Loss is quadratic in log(learning rate) near its minimum and steeper far above it (Porian 2024,
appendix; docs/LOG.md), so only values within two steps of the best take part, and the outer ones
weigh less. The optima of several sizes become one rule, value = coef x N^power.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

# Relative, of one value: seeds differ by twice that (docs/LOG.md), but values share their seeds,
# and what they share moves no optimum.
ASSUMED_NOISE = 0.005
MAX_STEPS, OUTER_WEIGHT = 2, 0.25  # values on either side of the best; weight of the outermost
NoiseFrom = Literal["seeds", "residuals", "assumed"]
KnownFrom = Literal["fit", "full_runs", "short_runs", "diverges", "unknown"]
# By index of the value, the loss of every seed in nats; infinite where one diverged.
Losses = Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Optimum:
    """The best value of one size: log(value) with its standard error, and the loss there.

    `curvature` is d2 loss / d log(value)2 in nats; None where the best grid value stands in for a
    parabola, and `why` says why. `noise` is the standard deviation of one run's loss in nats and
    `noise_from` where it comes from. `span` is the range of log(value) of the parabola.
    """

    log_value: float
    se: float
    loss: float
    noise: float
    noise_from: NoiseFrom
    curvature: float | None = None
    why: str = ""
    span: tuple[float, float] = (0.0, 0.0)

    @property
    def value(self) -> float:
        """The best value."""
        return math.exp(self.log_value)


@dataclass(frozen=True)
class Regret:
    """The loss of a value above the optimum, in nats and relative to the loss there.

    `known_from` "fit": on the parabola; "full_runs" or "short_runs": interpolated between grid
    values; "diverges" and "unknown" come without numbers.
    """

    nats: float | None
    known_from: KnownFrom
    relative: float | None = None


@dataclass(frozen=True)
class Parabola:
    """a + b t + c t^2 with the covariance of (a, b, c), shape (3, 3)."""

    a: float
    b: float
    c: float
    covariance: np.ndarray = field(repr=False)

    @property
    def vertex(self) -> float:
        """Where it is lowest (c > 0)."""
        return -self.b / (2 * self.c)

    @property
    def vertex_se(self) -> float:
        """Standard error of the vertex by the delta method."""
        slope = np.array([0.0, -1 / (2 * self.c), self.b / (2 * self.c**2)])
        return float(math.sqrt(max(0.0, slope @ self.covariance @ slope)))


def means(losses: Losses) -> dict[int, float]:
    """The mean loss of each index over its seeds; infinite where one diverged."""
    return {
        index: float(np.mean(seeds)) if np.all(np.isfinite(seeds)) else math.inf
        for index, seeds in losses.items()
    }


def best_index(losses: Losses) -> int | None:
    """The index of the lowest mean loss; None where every one diverged."""
    mean = {index: loss for index, loss in means(losses).items() if math.isfinite(loss)}
    return min(mean, key=lambda index: mean[index]) if mean else None


def fit_optimum(losses: Losses, log_values: Mapping[int, float]) -> Optimum | None:
    """The optimum among values trained to one horizon; None where every one diverged.

    `log_values` are log(value) by index. The best grid value stands in for the parabola where that
    has no minimum, where its minimum lies beyond the neighbours of the best, or where fewer than
    three finite losses are near.
    """
    best = best_index(losses)
    if best is None:
        return None
    mean = means(losses)
    near = [
        index
        for index in sorted(losses)
        if abs(index - best) <= MAX_STEPS and math.isfinite(mean[index])
    ]
    t = np.array([log_values[index] - log_values[best] for index in near])
    y = np.array([mean[index] for index in near])
    weight = np.array([OUTER_WEIGHT if abs(index - best) == MAX_STEPS else 1.0 for index in near])
    noise, source = _noise([losses[index] for index in near], t, y, weight)
    ordered = sorted(log_values.values())
    step = max((high - low for low, high in itertools.pairwise(ordered)), default=math.inf)
    plain = Optimum(log_values[best], step, mean[best], noise, source)
    if len(near) < 3:
        return replace(plain, why="fewer than three runs about the best ended")
    fitted = parabola(t, y, weight, noise / math.sqrt(len(losses[best])))
    if fitted.c <= 0:
        return replace(plain, why="the losses about the best value are not convex")
    ends = [log_values[index] - log_values[best] for index in near if abs(index - best) <= 1]
    if not min(ends) <= fitted.vertex <= max(ends):
        return replace(plain, why="the parabola is lowest beyond the neighbours of the best value")
    origin = log_values[best]
    return replace(
        plain,
        log_value=origin + fitted.vertex,
        se=fitted.vertex_se,
        loss=fitted.a - fitted.b**2 / (4 * fitted.c),
        curvature=2 * fitted.c,
        span=(origin + float(t.min()), origin + float(t.max())),
    )


def _noise(
    losses: Sequence[Sequence[float]], t: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[float, NoiseFrom]:
    """The sd of one run's loss: between seeds; with one seed the larger of ASSUMED_NOISE and the
    scatter about the parabola.

    Few seeds agree by chance, so the assumed noise counts as one more degree of freedom.
    """
    assumed = ASSUMED_NOISE * float(y.min())
    between_seeds, freedom = _seed_noise(losses)
    if freedom:
        return math.sqrt((freedom * between_seeds**2 + assumed**2) / (freedom + 1)), "seeds"
    if len(t) <= 3:
        return assumed, "assumed"
    design, estimator = _least_squares(t, weight)
    maker = np.eye(len(t)) - design @ estimator
    expected = float(np.sum(weight[:, None] * maker**2))
    scatter = math.sqrt(float(np.sum(weight * (maker @ y) ** 2)) / expected)
    return (scatter, "residuals") if scatter > assumed else (assumed, "assumed")


def _least_squares(t: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The design (n, 3) of a parabola and the weighted estimator (3, n) of its coefficients."""
    design = np.stack([np.ones_like(t), t, t**2], axis=1)
    weighted = design * weight[:, None]
    return design, np.linalg.solve(design.T @ weighted, weighted.T)


def parabola(t: np.ndarray, y: np.ndarray, weight: np.ndarray, noise: float) -> Parabola:
    """Weighted least squares through (t, y), shape (n,) each with n >= 3; `noise` is the sd of y.

    Weights say where the parabola is trusted, not how precise a y is, so the covariance is that of
    the estimator (a sandwich).
    """
    _, estimator = _least_squares(t, weight)
    a, b, c = estimator @ y
    return Parabola(float(a), float(b), float(c), noise**2 * estimator @ estimator.T)


def _seed_noise(losses: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The sd of a run's loss after effects of value and seed, and its degrees of freedom.

    A seed that is better everywhere (its first weights) moves no optimum, so it is not noise.
    """
    table = np.array([list(seeds) for seeds in losses])
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    if not freedom:
        return 0.0, 0
    by_value, by_seed = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    residual = table - by_value - by_seed + table.mean()
    return float(math.sqrt(np.sum(residual**2) / freedom)), freedom


def regret(
    log_value: float,
    optimum: Optimum,
    full: Losses,
    short: Losses,
    log_values: Mapping[int, float],
) -> Regret:
    """The regret of a value: on the parabola inside its span, else interpolated in the grid."""
    inside = optimum.span[0] - 1e-9 <= log_value <= optimum.span[1] + 1e-9
    if optimum.curvature is not None and inside:
        return _regret(
            0.5 * optimum.curvature * (log_value - optimum.log_value) ** 2, optimum.loss, "fit"
        )
    loss = _between(log_value, full, log_values)
    if loss is not None and math.isfinite(loss):
        return _regret(max(0.0, loss - optimum.loss), optimum.loss, "full_runs")
    short_loss, best_short = _between(log_value, short, log_values), best_index(short)
    if short_loss is not None and math.isfinite(short_loss) and best_short is not None:
        lowest = means(short)[best_short]
        return _regret(short_loss - lowest, lowest, "short_runs")
    return Regret(None, "unknown" if loss is None and short_loss is None else "diverges")


def _regret(nats: float, loss: float, known_from: KnownFrom) -> Regret:
    return Regret(nats, known_from, nats / loss)


def _between(log_value: float, losses: Losses, log_values: Mapping[int, float]) -> float | None:
    """The loss interpolated between the neighbours of a value; infinite where one diverged, None
    outside the grid.
    """
    mean = means(losses)
    below = [index for index in mean if log_values[index] <= log_value + 1e-9]
    above = [index for index in mean if log_values[index] >= log_value - 1e-9]
    if not below or not above:
        return None
    low, high = (
        max(below, key=lambda index: log_values[index]),
        min(above, key=lambda index: log_values[index]),
    )
    if low == high or not math.isfinite(mean[low] + mean[high]):
        return mean[low] if low == high else math.inf
    share = (log_value - log_values[low]) / (log_values[high] - log_values[low])
    return (1 - share) * mean[low] + share * mean[high]


@dataclass(frozen=True)
class Power:
    """value = coef x N^power, with the standard error of the power and the sizes used."""

    coef: float
    power: float
    power_se: float
    n_range: tuple[float, float]
    sizes: int

    def at(self, n: float) -> float:
        """The rule's value at N."""
        return self.coef * n**self.power


def power_rule(n: Sequence[float], log_value: Sequence[float], se: Sequence[float]) -> Power:
    """The rule through two or more optima with standard errors of their logs.

    From three sizes on, scatter beyond the standard errors widens that of the power (Birge's
    ratio); it never narrows it.
    """
    x, y, error = np.log(np.asarray(n, float)), np.asarray(log_value, float), np.asarray(se, float)
    weight = 1 / np.maximum(error, 1e-6) ** 2
    centre = float(np.sum(weight * x) / np.sum(weight))
    spread = float(np.sum(weight * (x - centre) ** 2))
    slope = float(np.sum(weight * (x - centre) * y) / spread)
    level = float(np.sum(weight * y) / np.sum(weight))
    left = y - level - slope * (x - centre)
    ratio = math.sqrt(float(np.sum(weight * left**2)) / (len(x) - 2)) if len(x) > 2 else 1.0
    coef = math.exp(level - slope * centre)
    return Power(
        coef, slope, max(1.0, ratio) / math.sqrt(spread), (float(min(n)), float(max(n))), len(x)
    )


def weighted_mean(values: Sequence[float], se: Sequence[float]) -> tuple[float, float]:
    """The mean of values by their standard errors, and its own; scatter beyond them widens it."""
    value, weight = np.asarray(values, float), 1 / np.maximum(np.asarray(se, float), 1e-12) ** 2
    mean = float(np.sum(weight * value) / np.sum(weight))
    ratio = (
        math.sqrt(float(np.sum(weight * (value - mean) ** 2)) / (len(value) - 1))
        if len(value) > 1
        else 1.0
    )
    return mean, max(1.0, ratio) / math.sqrt(float(np.sum(weight)))
