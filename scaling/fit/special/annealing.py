"""Loss curves under learning-rate schedules: the multi-power law (Luo et al. 2025,
arXiv:2503.12811, eq. 1 to 3).

    L(t) = L0 + A S1(t)^-alpha - B sum_k (eta_(k-1) - eta_k) (1 - (1 + C eta_k^-gamma S_k(t))^-beta)

S1 is the area under the learning rate up to t, S_k that from step k on: what a decay takes off the
loss grows with the steps trained after it. Linear in L0, A and B, so the other four are searched on
a grid, and the whole is then polished.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import r_squared
from scaling.fit.result import Starts
from scaling.fit.special.results import CurveErrors

Array = np.ndarray
NAMES = ("L0", "A", "B", "alpha", "C", "beta", "gamma")
GRID = (
    (0.2, 0.4, 0.7),
    (0.3, 1.0, 3.0, 10.0),
    (0.3, 0.6, 1.0),
    (0.2, 0.5, 0.8),
)  # of the last four
POLISHED = 6
MIN_CURVES = 2
LEAST = 1e-9  # of a predicted loss
SAME = 1e-3  # of the objective: starts that ended this close agree
BOUNDS = (
    *((0.0, 20.0), (-7.0, 7.0), (-7.0, 15.0)),  # L0, and the logs of the others
    *((-4.0, 1.5), (-12.0, 12.0), (-4.0, 3.0), (-4.0, 1.0)),
)


@dataclass(frozen=True)
class Curve:
    """One run: its evaluations at `step` (T,), the learning rate there and the loss in nats a
    token.
    """

    name: str
    step: Array
    lr: Array
    loss: Array


@dataclass(frozen=True)
class _Areas:
    """What the law needs of a schedule: log S1 (T,), the drops eta_(k-1) - eta_k (K,), log eta_k
    (K,), and S_k(t) (K, T); `used` masks the evaluations after the learning rate first moved, where
    the law says something.
    """

    log_s1: Array
    drop: Array
    log_lr: Array
    after: Array
    used: Array


def areas(step: Array, lr: Array) -> _Areas:
    """The areas of a schedule given at some steps; before the first of them it rises linearly from
    zero.

    The learning rate is taken to change at each step that is listed, and to hold until then.
    """
    s1 = lr[0] * step[0] / 2 + np.concatenate([[0.0], np.cumsum(lr[1:] * np.diff(step))])
    drop, used = -np.diff(lr), s1 > 0
    moved = np.flatnonzero(drop != 0)  # eta_k counts from the step at which it begins
    after = np.maximum(s1[used] - s1[moved, None], 0.0)
    log_lr = np.log(np.maximum(lr[1:][moved], 1e-30))
    return _Areas(np.log(s1[used]), drop[moved], log_lr, after, used)


def predict_curve(values: Mapping[str, float], step: Array, lr: Array) -> Array:
    """The loss (T,) at the steps of a schedule; infinite before the learning rate first moved."""
    curve_areas, loss = areas(step, lr), np.full(len(step), np.inf)
    theta = np.array([values["L0"], *np.log([values[name] for name in NAMES[1:]])])
    loss[curve_areas.used] = _predicted(theta, [curve_areas])[0]
    return loss


def _predicted(theta: Array, curve_areas: Sequence[_Areas]) -> tuple[Array, Array]:
    """The loss (T,), all curves together, and its derivatives (T, 7) in L0 and the logs of the
    others.
    """
    a, b, alpha, c, beta, gamma = np.exp(theta[1:])
    slopes = []
    for each in curve_areas:
        power = a * np.exp(-alpha * each.log_s1)
        grown = np.log1p(c * np.exp(-gamma * each.log_lr)[:, None] * each.after)
        drop, left = b * each.drop, np.exp(-beta * grown)
        bend = -beta * left * np.expm1(-grown)  # of 1 - left, in the log of c
        columns = [np.ones_like(power), power, -drop @ (1 - left), -alpha * each.log_s1 * power]
        columns += [-drop @ bend, -drop @ (beta * grown * left), gamma * drop * each.log_lr @ bend]
        slopes.append(np.stack(columns, 1))
    together = np.concatenate(slopes)
    return together[:, :3] @ [theta[0], 1.0, 1.0], together


def fit_annealing(
    curves: Sequence[Curve], delta: float = 1e-3
) -> tuple[dict[str, float], float, Starts]:
    """The parameters that minimise the summed Huber loss of log losses over all evaluations of all
    curves, that sum, and how the starts ended.

    Raises ScalingError when there are fewer than two curves, or none of them decays: then B, C,
    beta and gamma are unknown.
    """
    from scipy.optimize import least_squares

    _check(curves)
    curve_areas = [areas(curve.step, curve.lr) for curve in curves]
    pairs = zip(curves, curve_areas, strict=True)
    loss = np.concatenate([curve.loss[each.used] for curve, each in pairs])

    def residual(theta: Array) -> Array:
        return np.log(np.maximum(_predicted(theta, curve_areas)[0], LEAST) / loss)

    def jacobian(theta: Array) -> Array:
        predicted, slopes = _predicted(theta, curve_areas)
        return slopes / np.maximum(predicted, LEAST)[:, None]

    lower, upper = np.transpose(BOUNDS)
    ends = [
        least_squares(
            residual,
            np.clip(start, lower, upper),
            jac=jacobian,
            bounds=(lower, upper),
            loss="huber",
            f_scale=delta,
            x_scale="jac",
            ftol=1e-12,
            xtol=1e-10,
            gtol=None,
            max_nfev=1000,
        )
        for start in _starts(curve_areas, loss)
    ]
    best = min(ends, key=lambda end: float(end.cost))
    agree = sum(end.cost <= best.cost * (1 + SAME) + 1e-12 for end in ends)
    starts = Starts(tried=len(ends), converged=len(ends), agree=agree)
    values = (float(value) for value in (best.x[0], *np.exp(best.x[1:])))
    return dict(zip(NAMES, values, strict=True)), float(best.cost), starts


def _check(curves: Sequence[Curve]) -> None:
    if len(curves) < MIN_CURVES:
        raise ScalingError(
            f"at least {MIN_CURVES} curves are needed to fit, not {len(curves)}",
            remedy="give one file a run, or a folder of them; leave fewer out with --holdout",
        )
    for curve in curves:
        is_rising = len(curve.step) >= len(NAMES) and (np.diff(curve.step) > 0).all()
        if not (is_rising and (curve.loss > 0).all() and (curve.lr >= 0).all()):
            raise ScalingError(
                "a curve needs at least 7 evaluations at rising steps, with losses above 0 and "
                "learning rates of at least 0",
                where=curve.name,
                remedy="fix the rows, or sort them by step",
            )
    if not any((np.diff(curve.lr) < 0).any() for curve in curves):
        raise ScalingError(
            "no curve decays its learning rate: what a decay takes off the loss cannot be known",
            remedy="add a run with a cosine, wsd or two-stage schedule",
        )


def _starts(curve_areas: Sequence[_Areas], loss: Array) -> list[Array]:
    """The best of the grid, L0, A and B solved for exactly at each of its points."""
    start_points = []
    for log_shape in np.log(list(product(*GRID))):
        columns = _predicted(np.r_[0.0, 0.0, 0.0, log_shape], curve_areas)[1][:, :3] / loss[:, None]
        solution, *_ = np.linalg.lstsq(columns, np.ones_like(loss), rcond=None)
        if (solution[1:] > 0).all():
            theta = np.array([solution[0], *np.log(solution[1:]), *log_shape])
            start_points.append((float(np.sum((columns @ solution - 1) ** 2)), theta))
    if not start_points:
        raise ScalingError(
            "the curves do not fall with the area under the learning rate",
            remedy="check the columns step, lr and loss",
        )
    return [start for _, start in sorted(start_points, key=lambda pair: pair[0])[:POLISHED]]


def goodness(curves: Sequence[Curve], values: Mapping[str, float]) -> CurveErrors:
    """How well curves are predicted, all evaluations together."""
    loss = np.concatenate([curve.loss for curve in curves])
    predicted = np.concatenate([predict_curve(values, curve.step, curve.lr) for curve in curves])
    used = np.isfinite(predicted)
    error = predicted[used] - loss[used]
    return CurveErrors(
        n=len(error),
        r2=r_squared(loss[used], predicted[used]),
        mae=np.abs(error).mean(),
        final_error=error[-1],
    )


def left_out(curves: Sequence[Curve], holdout: str | int | None) -> set[str]:
    """The names of the curves that are held out: none, the K longest, or those that match patterns.
    Raises ScalingError for a pattern that matches none.
    """
    text = "1" if holdout is None else str(holdout).strip()
    if text.lower() == "none":
        return set()
    if text.isdigit():
        longest = sorted(curves, key=lambda curve: -float(curve.step[-1]))
        enough = len(curves) > int(text) + 1
        return {curve.name for curve in longest[: int(text)] if enough}
    names, matched = [curve.name for curve in curves], set[str]()
    for pattern in map(str.strip, text.split(",")):
        if not (new := fnmatch.filter(names, pattern)):
            raise ScalingError(
                f"no curve is named {pattern!r}",
                where="--holdout",
                remedy=f"curves: {', '.join(names)[:200]}",
            )
        matched |= set(new)
    return matched
