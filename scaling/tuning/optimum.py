"""The optimum of a grid and the regret of other values: a parabola in log(value) about the best.

Loss is quadratic in log(learning rate) near its minimum and steeper far above it (Porian 2024,
appendix; docs/LOG.md), so only values within two steps of the best take part, and the outer ones
weigh less. The optima of several sizes become one rule, value = coef x N^power.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling.tuning.document import KnownFrom, MeasuredRule, Optimum, Regret

# Relative, of one value: seeds differ by twice that (docs/LOG.md), but values share their seeds,
# and what they share moves no optimum.
ASSUMED_NOISE = 0.005
MAX_STEPS, OUTER_WEIGHT = 2, 0.25  # values on either side of the best; weight of the outermost
NORMAL_95 = 1.959964
# By index of the value, the loss of every seed in nats; infinite where one diverged.
Losses = Mapping[int, Sequence[float]]
LogValues = Mapping[int, float]


def means(losses: Losses) -> dict[int, float]:
    """The mean loss of each index over its seeds; infinite where one diverged."""
    return {
        index: float(np.mean(seeds)) if np.all(np.isfinite(seeds)) else math.inf
        for index, seeds in losses.items()
    }


def best_index(losses: Losses) -> int | None:
    """The index of the lowest mean loss; None where every one diverged."""
    mean = means(losses)
    best = min(mean, key=lambda index: mean[index], default=None)
    return None if best is None or math.isinf(mean[best]) else best


def _parabola_indices(losses: Losses, best: int) -> list[int]:
    """The indices that take part in the parabola about the best."""
    return [
        index
        for index, loss in sorted(means(losses).items())
        if abs(index - best) <= MAX_STEPS and math.isfinite(loss)
    ]


def fit_optimum(losses: Losses, log_values: LogValues) -> Optimum | None:
    """The optimum among values trained to one horizon; None where every one diverged.

    `log_values` are log(value) by index. The best grid value stands in for the parabola where that
    has no minimum, where its minimum lies beyond the neighbours of the best, or where fewer than
    three finite losses are near.
    """
    best = best_index(losses)
    if best is None:
        return None
    mean, near, origin = means(losses), _parabola_indices(losses, best), log_values[best]
    t = np.array([log_values[index] - origin for index in near])
    y = np.array([mean[index] for index in near])
    weight = np.array([OUTER_WEIGHT if abs(index - best) == MAX_STEPS else 1.0 for index in near])
    noise, source = _noise([losses[index] for index in near], t, y, weight)
    ends = [log_values[index] - origin for index in near if abs(index - best) <= 1]
    why, curvature, vertex = None, None, 0.0
    loss = mean[best]
    ordered = sorted(log_values.values())
    se = max((high - low for low, high in itertools.pairwise(ordered)), default=math.inf)
    if len(near) < 3:
        why = "fewer than three runs about the best ended"
    else:
        (a, b, c), at, at_se = parabola(t, y, weight, noise / math.sqrt(len(losses[best])))
        if c <= 0:
            why = "the losses about the best value are not convex"
        elif not min(ends) <= at <= max(ends):
            why = "the parabola is lowest beyond the neighbours of the best value"
        else:
            vertex, se, loss, curvature = at, at_se, a - b**2 / (4 * c), 2 * c
    log_value, half_width = origin + vertex, NORMAL_95 * se
    return Optimum(
        value=math.exp(log_value),
        log_value=log_value,
        se_log=se,
        lo=math.exp(log_value - half_width),
        hi=math.exp(log_value + half_width),
        loss=loss,
        curvature=curvature,
        by="parabola" if why is None else "best value",
        why=why,
        noise=noise,
        noise_from=source,
    )


def _noise(
    losses: Sequence[Sequence[float]], t: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[float, Any]:
    """The sd of one run's loss: between seeds; with one seed the larger of ASSUMED_NOISE and the
    scatter about the parabola.

    A seed that is better everywhere (its first weights) moves no optimum, so it is not noise. Few
    seeds agree by chance, so the assumed noise counts as one more degree of freedom.
    """
    assumed, table = ASSUMED_NOISE * float(y.min()), np.array([list(seeds) for seeds in losses])
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    if freedom:
        by_value, by_seed = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
        squares = np.sum((table - by_value - by_seed + table.mean()) ** 2)
        between = float(math.sqrt(squares / freedom))
        return math.sqrt((freedom * between**2 + assumed**2) / (freedom + 1)), "seeds"
    if len(t) <= 3:
        return assumed, "assumed"
    design, estimator = _least_squares(t, weight)
    residual_maker = np.eye(len(t)) - design @ estimator
    expected = float(np.sum(weight[:, None] * residual_maker**2))
    scatter = math.sqrt(float(np.sum(weight * (residual_maker @ y) ** 2)) / expected)
    return (scatter, "residuals") if scatter > assumed else (assumed, "assumed")


def _least_squares(t: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The design (n, 3) of a parabola and the weighted estimator (3, n) of its coefficients."""
    design = np.stack([np.ones_like(t), t, t**2], axis=1)
    weighted = design * weight[:, None]
    return design, np.linalg.solve(design.T @ weighted, weighted.T)


def parabola(
    t: np.ndarray, y: np.ndarray, weight: np.ndarray, noise: float
) -> tuple[tuple[float, float, float], float, float]:
    """(a, b, c) of a + b t + c t^2 by weighted least squares through (t, y), shape (n,) each with
    n >= 3, and where it is lowest (c > 0) with its standard error; `noise` is the sd of y.

    Weights say where the parabola is trusted, not how precise a y is, so the covariance is that of
    the estimator (a sandwich), and the error of the vertex follows by the delta method.
    """
    _, estimator = _least_squares(t, weight)
    a, b, c = map(float, estimator @ y)
    if c == 0:
        return (a, b, c), math.nan, math.nan
    slope, scaled = np.array([0.0, -1 / (2 * c), b / (2 * c**2)]), noise**2 * estimator
    variance = float(slope @ (scaled @ estimator.T) @ slope)
    return (a, b, c), -b / (2 * c), math.sqrt(max(0.0, variance))


def regret(
    log_value: float, optimum: Optimum, full: Losses, short: Losses, log_values: LogValues
) -> Regret:
    """The regret of a value: on the parabola inside its span, else interpolated in the grid."""

    def regret_of(excess: float, lowest: float, known_from: KnownFrom) -> Regret:
        relative = excess / lowest
        return Regret(value=value, excess=excess, excess_relative=relative, known_from=known_from)

    value, best = math.exp(log_value), best_index(full)
    if optimum.curvature is not None and best is not None:
        span = [log_values[index] for index in _parabola_indices(full, best)]
        if min(span) - 1e-9 <= log_value <= max(span) + 1e-9:
            rise = 0.5 * optimum.curvature * (log_value - optimum.log_value) ** 2
            return regret_of(rise, optimum.loss, "fit")
    is_inside = False
    lowest_short = min(means(short).values(), default=math.inf)
    sources: tuple[tuple[Losses, float, KnownFrom], ...] = (
        (full, optimum.loss, "full_runs"),
        (short, lowest_short, "short_runs"),
    )
    for losses, lowest, known_from in sources:
        points = sorted((log_values[index], loss) for index, loss in means(losses).items())
        if points and points[0][0] - 1e-9 <= log_value <= points[-1][0] + 1e-9:
            is_inside = True
            excess = float(np.interp(log_value, *np.array(points).T)) - lowest
            if math.isfinite(excess):  # it is not next to a value that diverged
                return regret_of(max(0.0, excess), lowest, known_from)
    return Regret(value=value, known_from="diverges" if is_inside else "unknown")


def power_rule(
    n: Sequence[float],
    log_value: Sequence[float],
    se: Sequence[float],
    batch_tokens: Sequence[float] = (),
) -> MeasuredRule:
    """The rule through two or more optima with standard errors of their logs; with batches also
    their power (three or more optima that are not on one line).

    From one optimum more than that, scatter beyond the standard errors widens those of the powers
    (Birge's ratio); it never narrows them.
    """
    y, weight = np.asarray(log_value, float), 1 / np.maximum(np.asarray(se, float), 1e-6) ** 2
    logs = {"n_power": np.log(np.asarray(n, float))} if len(set(n)) > 1 else {}
    if len(batch_tokens):
        logs["batch_power"] = np.log(np.asarray(batch_tokens, float))
    centres = {name: float(np.average(log, weights=weight)) for name, log in logs.items()}
    design = np.stack([np.ones_like(y), *(logs[name] - centres[name] for name in logs)], axis=1)
    covariance = np.linalg.inv(design.T @ (design * weight[:, None]))
    level, *slopes = (covariance @ (design.T @ (weight * y))).tolist()
    left = y - design @ [level, *slopes]
    freedom = max(1, len(y) - design.shape[1])
    widened = math.sqrt(max(1.0, float(np.sum(weight * left**2)) / freedom))
    errors = (widened * np.sqrt(np.diag(covariance))).tolist()[1:]
    powers = {"n_power": 0.0, "n_power_se": 0.0} | dict(zip(logs, slopes, strict=True))
    powers |= {f"{name}_se": error for name, error in zip(logs, errors, strict=True)}
    return MeasuredRule(
        kind="power",
        coef=math.exp(level - sum(powers[name] * centre for name, centre in centres.items())),
        n_range=(float(min(n)), float(max(n))),
        sizes=len(set(n)),
        **powers,
    )
