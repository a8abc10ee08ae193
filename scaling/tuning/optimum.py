"""Where the best value of a ladder lies, and what another value costs: a parabola in log(value) about the best rung.

Loss is quadratic in log(learning rate) near its minimum and steeper far above it (Porian 2024, appendix; docs/LOG.md), so only
rungs within two steps of the best take part, and the outer ones weigh less.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

ASSUMED_NOISE = 0.005  # relative, of a rung: seeds differ by twice that (docs/LOG.md), but rungs share theirs, and that part moves no optimum
REACH, FAR_WEIGHT = 2, 0.25  # rungs on either side of the best, and the weight of the outermost
NoiseFrom = Literal["seeds", "residuals", "assumed"]
KnownFrom = Literal["fit", "rungs", "scouts", "diverges", "unknown"]
Losses = Mapping[
    int, Sequence[float]
]  # of each rung the loss of every seed, in nats; infinite where one diverged


@dataclass(frozen=True)
class Optimum:
    """The best value of one size: log(value) with its standard error, the loss there, and how both were found.

    `curvature` is d2 loss / d log(value)2 in nats; None where the best rung stands in for a parabola, and `why` says why.
    `noise` is the standard deviation of one run's loss in nats and `noise_from` where it comes from. `span` is the range
    of log(value) in which the parabola was fitted.
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
        """The value itself."""
        return math.exp(self.log_value)


@dataclass(frozen=True)
class Regret:
    """What a value costs above the optimum, in nats and relative to the loss there; `how` it is known.

    "fit": on the parabola; "rungs" or "scouts": between rungs trained to the whole or to the scouts' horizon; "diverges"
    and "unknown" come without numbers.
    """

    nats: float | None
    how: KnownFrom
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
    """The mean loss of each rung over its seeds; infinite where one diverged."""
    return {
        rung: float(np.mean(held)) if np.all(np.isfinite(held)) else math.inf
        for rung, held in losses.items()
    }


def best_rung(losses: Losses) -> int | None:
    """The rung of the lowest mean loss; None where every one diverged."""
    mean = {rung: loss for rung, loss in means(losses).items() if math.isfinite(loss)}
    return min(mean, key=lambda rung: mean[rung]) if mean else None


def fit_optimum(losses: Losses, log_values: Mapping[int, float]) -> Optimum | None:
    """The optimum among rungs trained to one horizon; None where every one diverged.

    `log_values` are those of the rungs. The parabola gives way to the best rung where it has no minimum, where its minimum
    lies beyond the neighbours of the best, or where fewer than three finite rungs are near.
    """
    best = best_rung(losses)
    if best is None:
        return None
    mean = means(losses)
    near = [
        rung for rung in sorted(losses) if abs(rung - best) <= REACH and math.isfinite(mean[rung])
    ]
    t = np.array([log_values[rung] - log_values[best] for rung in near])
    y = np.array([mean[rung] for rung in near])
    weight = np.array([FAR_WEIGHT if abs(rung - best) == REACH else 1.0 for rung in near])
    noise, source = _noise([losses[rung] for rung in near], t, y, weight)
    plain = Optimum(log_values[best], _spacing(log_values), mean[best], noise, source)
    if len(near) < 3:
        return replace(plain, why="fewer than three rungs about the best ended")
    fitted = parabola(t, y, weight, noise / math.sqrt(len(losses[best])))
    if fitted.c <= 0:
        return replace(plain, why="the losses about the best rung are not convex")
    ends = [log_values[rung] - log_values[best] for rung in near if abs(rung - best) <= 1]
    if not min(ends) <= fitted.vertex <= max(ends):
        return replace(plain, why="the parabola is lowest beyond the neighbours of the best rung")
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
    held: Sequence[Sequence[float]], t: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[float, NoiseFrom]:
    """The sd of one run's loss: between seeds; with one seed what is assumed, or the scatter about the parabola where that is more.

    Few seeds agree by chance, so what is assumed counts as one more degree of freedom beside what they say.
    """
    assumed = ASSUMED_NOISE * float(y.min())
    seen, freedom = _seed_noise(held)
    if freedom:
        return math.sqrt((freedom * seen**2 + assumed**2) / (freedom + 1)), "seeds"
    left = _residual_noise(t, y, weight) if len(t) > 3 else 0.0
    return (left, "residuals") if left > assumed else (assumed, "assumed")


def parabola(t: np.ndarray, y: np.ndarray, weight: np.ndarray, noise: float) -> Parabola:
    """Weighted least squares of a parabola through (t, y), shape (n,) each with n >= 3; `noise` is the sd of every y.

    Weights say where the parabola is trusted, not how precise a y is, so the covariance is that of the estimator (a sandwich).
    """
    design = np.stack([np.ones_like(t), t, t**2], axis=1)
    weighted = design * weight[:, None]
    estimator = np.linalg.solve(design.T @ weighted, weighted.T)
    a, b, c = estimator @ y
    return Parabola(float(a), float(b), float(c), noise**2 * estimator @ estimator.T)


def _residual_noise(t: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """The sd of the losses about the parabola: the weighted squares of what it leaves over their expectation for a unit sd."""
    design = np.stack([np.ones_like(t), t, t**2], axis=1)
    maker = np.eye(len(t)) - design @ np.linalg.solve(
        design.T @ (design * weight[:, None]), (design * weight[:, None]).T
    )
    expected = float(np.sum(weight[:, None] * maker**2))
    return float(math.sqrt(np.sum(weight * (maker @ y) ** 2) / expected))


def _seed_noise(held: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The sd of a run's loss once rung and seed are accounted for, and its degrees of freedom: none without two seeds and two rungs.

    A seed that is better everywhere (its first weights) moves no optimum, so it does not count as noise.
    """
    table = np.array([list(losses) for losses in held])
    rungs, seeds = table.shape
    freedom = (rungs - 1) * (seeds - 1)
    if not freedom:
        return 0.0, 0
    left = (
        table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    )
    return float(math.sqrt(np.sum(left**2) / freedom)), freedom


def _spacing(log_values: Mapping[int, float]) -> float:
    """The widest step of the ladder in log(value): how far off the best rung may be."""
    ordered = sorted(log_values.values())
    return max((high - low for low, high in itertools.pairwise(ordered)), default=math.inf)


def excess(
    log_value: float,
    optimum: Optimum,
    full: Losses,
    scouts: Losses,
    log_values: Mapping[int, float],
) -> Regret:
    """What a value costs: by the parabola inside its span, else between rungs, trained to the end or at least scouted."""
    inside = optimum.span[0] - 1e-9 <= log_value <= optimum.span[1] + 1e-9
    if optimum.curvature is not None and inside:
        return _excess(
            0.5 * optimum.curvature * (log_value - optimum.log_value) ** 2, optimum.loss, "fit"
        )
    loss = _between(log_value, full, log_values)
    if loss is not None and math.isfinite(loss):
        return _excess(max(0.0, loss - optimum.loss), optimum.loss, "rungs")
    scouted, floor = _between(log_value, scouts, log_values), best_rung(scouts)
    if scouted is not None and math.isfinite(scouted) and floor is not None:
        lowest = means(scouts)[floor]
        return _excess(scouted - lowest, lowest, "scouts")
    return Regret(None, "unknown" if loss is None and scouted is None else "diverges")


def _excess(nats: float, loss: float, how: KnownFrom) -> Regret:
    return Regret(nats, how, nats / loss)


def _between(log_value: float, losses: Losses, log_values: Mapping[int, float]) -> float | None:
    """The loss at a value between two neighbouring rungs; infinite beside one that diverged, None where no rungs enclose it."""
    mean = means(losses)
    below = [rung for rung in mean if log_values[rung] <= log_value + 1e-9]
    above = [rung for rung in mean if log_values[rung] >= log_value - 1e-9]
    if not below or not above:
        return None
    low, high = (
        max(below, key=lambda rung: log_values[rung]),
        min(above, key=lambda rung: log_values[rung]),
    )
    if low == high or not math.isfinite(mean[low] + mean[high]):
        return mean[low] if low == high else math.inf
    share = (log_value - log_values[low]) / (log_values[high] - log_values[low])
    return (1 - share) * mean[low] + share * mean[high]
