"""One answer from several laws: candidates, weights by how well each predicts what comes next, and
an interval that knows the form.

The form of the law is the largest error of a forecast, and no table proves one. So several laws are
fitted, the later runs counting more (weights proportional to C): what is asked for lies beyond the
largest budget. Each candidate is refitted on growing prefixes of the budgets and predicts the runs
that follow (rolling origin); its weight is the inverse of that error. The answer is the weighted
mean of the logs, its standard error

    sigma^2 = factor^2 (spread^2 + (noise / 2)^2),

with the spread of the candidates around the answer, the scatter of the runs (for the loss of one
run only), and a factor by which the same formula was wrong on the prefixes, drawn towards one (as
in conformal prediction over budgets, with a prior of PRIOR origins). The constants were chosen on
half the tables of benchmarks/backtest.py; docs/forecasts.md has the other half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.combination import (
    NOISE_SHARE,
    Candidate,
    Combination,
    Quantity,
    log_optimum,
    mean_and_spread,
    second_order,
)
from scaling.fit.document import FitStatus
from scaling.fit.estimate import PointEstimate, estimate, problem_of, spread
from scaling.fit.frontier.approaches import powers
from scaling.fit.frontier.budgets import budgets
from scaling.fit.frontier.envelope import envelope
from scaling.fit.frontier.frontier import fit_cost
from scaling.fit.frontier.isoflop import isoflop
from scaling.fit.laws.laws import LAWS
from scaling.fit.newton import Resample, continuation
from scaling.points.points import Points

Array = np.ndarray
CANDIDATE_LAWS = ("chinchilla", "chinchilla-tied", "skaling", "skaling-tied", "kaplan")
SURFACE = "surface"  # log L as a polynomial of second degree in log N and log D
PRIOR = 6.0  # origins that the prior of the factor, 1, is worth
UNIDENTIFIED = 0.5  # weight of a candidate whose parameters the data do not identify
LARGEST_ERROR = 0.3  # of the log loss: what lies further off says no more against a candidate
WORST_FACTOR = 3.0
EXACT = 1e-9  # an error in logs below which candidates count as equal
MINIMUM_ERROR: dict[Quantity, float] = {
    "n_star": 0.02,
    "loss_star": 1e-3,
}  # of a parabola's minimum, in logs
MOST_POINTS = 5_000  # of a larger table every k-th run in order of C is used
MOST_ORIGINS = 6
MIN_PREFIX, MIN_SPAN = 8, 0.4  # runs and decades of C that a prefix has at least
AFTER = 1.3  # a run follows a budget when it costs this many times as much
MIN_LAWS = 3


def combine(
    points: Points, objective: str = "huber-log", delta: float = 1e-3
) -> Combination | None:
    """Fit, score and weigh the candidates on points with N, D and C; None where fewer than three
    laws can be fitted.
    """
    if points.n is None or points.d is None or points.c is None:
        return None
    points = _thinned(points)
    weighted = recent(points)
    estimates = {}
    for name in CANDIDATE_LAWS:
        try:
            estimates[name] = estimate(LAWS[name], weighted, objective, delta)
        except ScalingError:
            continue
    if len(estimates) < MIN_LAWS:
        return None
    status = {name: fit.status for name, fit in estimates.items()}
    candidates = _candidates(
        {name: fit.values for name, fit in estimates.items()}, status, weighted
    )
    origins = _origins(weighted, estimates)
    scores = _scores(points, [one.name for one in candidates], origins)
    errors, weights = _rms(scores), _weights(candidates, _rms(scores))
    members = tuple(
        one.model_copy(
            update={
                "weights": {q: each[one.name] for q, each in weights.items() if one.name in each},
                "errors": {q: each[one.name] for q, each in errors.items() if one.name in each},
            }
        )
        for one in candidates
    )
    noise = _noise(points, members)
    factor = {q: _factor(scores[q], weights[q], noise if q == "loss" else 0.0) for q in scores}
    return Combination(candidates=members, factor=factor, noise=noise, origins=len(origins))


@dataclass(frozen=True)
class _Origin:
    """A prefix of the budgets: the candidates fitted to it, and the runs after it."""

    budget: float
    candidates: Mapping[str, Candidate]
    later: Points


def recent(points: Points) -> Points:
    """The points with weights proportional to C, one for the most expensive run."""
    flops = np.asarray(points.c)
    return replace(points, weight=flops / flops.max())


def _thinned(points: Points) -> Points:
    if len(points) <= MOST_POINTS:
        return points
    order = np.argsort(np.asarray(points.c), kind="stable")
    return points.take(order[np.unique(np.linspace(0, len(order) - 1, MOST_POINTS).astype(int))])


def _candidates(
    values: Mapping[str, Mapping[str, float]], status: Mapping[str, FitStatus], points: Points
) -> list[Candidate]:
    """The laws with reported parameters `values`, and what else the weighted points allow."""
    cost, result = fit_cost(points), []
    for name, params in values.items():
        if not all(math.isfinite(value) for value in params.values()):
            continue
        optimum = _floats(powers(LAWS[name].frontier(params, cost)))
        if not all(map(math.isfinite, optimum.values())):
            continue
        result.append(
            Candidate(name=name, status=status[name], params=dict(params), powers=optimum)
        )
    if len(points) >= MIN_PREFIX + 2:
        result.append(Candidate(name=SURFACE, polynomial=_surface(points)))
    for approach in (isoflop(points, resamples=0), envelope(points, None, 0, 0)):
        if approach.frontier is not None:
            optimum = _floats(powers(approach.frontier))
            result.append(Candidate(name=approach.name, powers=optimum))
    return result


def _origins(points: Points, estimates: Mapping[str, PointEstimate]) -> list[_Origin]:
    """The prefixes with their candidates. All refits of a law descend at once from its optimum on
    all points.
    """
    flops, chosen = np.asarray(points.c), _prefixes(points)
    if not chosen:
        return []
    masks = np.array([flops <= budget * (1 + 1e-4) for budget in chosen])
    values: dict[str, dict[str, Array]] = {}
    for name, fit in estimates.items():
        task = problem_of(fit.law, points, fit.objective, fit.delta)
        begun = task.centred(fit.theta)
        scale = masks * (flops.max() / np.where(masks, flops, 0.0).max(1))[:, None]
        start = np.repeat(begun[None], len(masks), 0)
        ends = continuation(task, start, spread(task, begun), Resample(weights=scale))
        values[name] = fit.law.values(task.raw(ends.theta))
    status = {name: fit.status for name, fit in estimates.items()}
    origins = []
    for row, budget in enumerate(chosen):
        params = {
            name: {letter: float(column[row]) for letter, column in each.items()}
            for name, each in values.items()
        }
        fitted = _candidates(params, status, recent(points.take(masks[row])))
        later = points.take(flops > AFTER * budget)
        origins.append(_Origin(budget, {one.name: one for one in fitted}, later))
    return origins


def _floats(values: Mapping[str, Array]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _surface(points: Points) -> tuple[float, ...]:
    """The centre (2) and coefficients (6) of the surface, by weighted least squares of log L."""
    n, d = np.asarray(points.n), np.asarray(points.d)
    centre = float(np.log(n).mean()), float(np.log(d).mean())
    root = np.sqrt(np.asarray(points.weight))
    columns = second_order(n, d, centre) * root[:, None]
    coefficients, *_ = np.linalg.lstsq(columns, np.log(points.loss) * root, rcond=None)
    return (*centre, *(float(each) for each in coefficients))


def split_budgets(points: Points) -> list[float]:
    """The FLOPs at which a table can be cut: its budgets, or even steps of log C where it has fewer
    than five.
    """
    n, flops = np.asarray(points.n), np.asarray(points.c)
    groups = budgets(n, flops)
    if len(groups) >= 5:
        return [float(flops[index].max()) for index in groups]
    log_c = np.log10(flops)
    return [float(each) for each in 10 ** np.linspace(log_c.min(), log_c.max(), 14)[3:-1]]


def _prefixes(points: Points) -> list[float]:
    """At most six budgets from which the later runs are predicted."""
    flops = np.asarray(points.c)
    usable = []
    for budget in split_budgets(points):
        prefix = flops[flops <= budget * (1 + 1e-4)]
        enough = len(prefix) >= MIN_PREFIX and np.ptp(np.log10(prefix)) >= MIN_SPAN
        if enough and (flops > AFTER * budget).any():
            usable.append(budget)
    if len(usable) <= MOST_ORIGINS:
        return usable
    return [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, MOST_ORIGINS).astype(int))]


@dataclass(frozen=True)
class _Errors:
    """Errors in logs (rows, candidates) of the predictions from one origin; NaN where a candidate
    says nothing.
    """

    names: tuple[str, ...]
    rows: Array


def _scores(
    points: Points, names: Sequence[str], origins: Sequence[_Origin]
) -> dict[Quantity, list[_Errors]]:
    """For each quantity the errors from each origin: of the later runs, and of the later minima of
    the isoFLOP curves.
    """
    minima = [one for one in isoflop(points, resamples=0).minima if one.fault is None]
    result: dict[Quantity, list[_Errors]] = {"loss": [], "n_star": [], "loss_star": []}
    for origin in origins:
        candidates, later = origin.candidates, origin.later
        n, d = np.asarray(later.n), np.asarray(later.d)
        logs = [candidates[name].log_loss(n, d) if name in candidates else None for name in names]
        columns = [np.full(len(later), np.nan) if log is None else log for log in logs]
        result["loss"].append(
            _Errors(tuple(names), np.stack(columns, 1) - np.log(later.loss)[:, None])
        )
        after = [one for one in minima if one.flops > AFTER * origin.budget]
        targets: tuple[tuple[Quantity, Callable[..., float]], ...] = (
            ("n_star", lambda one: one.n_star),
            ("loss_star", lambda one: one.loss_star),
        )
        for quantity, measured in targets:
            rows = [
                [_error(candidates.get(name), one.flops, quantity, measured(one)) for name in names]
                for one in after
            ]
            if rows:
                result[quantity].append(_Errors(tuple(names), np.array(rows, float)))
    return result


def _error(candidate: Candidate | None, flops: float, quantity: Quantity, measured: float) -> float:
    log = log_optimum(candidate.frontier() if candidate else None, flops, quantity)
    return math.nan if log is None else log - math.log(measured)


def _rms(scores: Mapping[Quantity, Sequence[_Errors]]) -> dict[Quantity, dict[str, float]]:
    """Root mean square error of each candidate, each origin counting alike; without those that
    never predicted.
    """
    result: dict[Quantity, dict[str, float]] = {}
    for quantity, errors in scores.items():
        limit = LARGEST_ERROR if quantity != "n_star" else 1.0
        squares: dict[str, list[float]] = {}
        for each in errors:
            finite = np.isfinite(each.rows)
            size = np.minimum(np.abs(np.where(finite, each.rows, 0.0)), limit) ** 2
            for name, total, count in zip(each.names, size.sum(0), finite.sum(0), strict=True):
                if count:
                    squares.setdefault(name, []).append(float(total / count))
        result[quantity] = {name: math.sqrt(np.mean(each)) for name, each in squares.items()}
    return result


def _weights(
    candidates: Sequence[Candidate], errors: Mapping[Quantity, Mapping[str, float]]
) -> dict[Quantity, dict[str, float]]:
    """Weights that sum to one: inverse errors, halved for what the data do not identify.

    A law's N* and L* also count by how well the law predicts losses: where it does so exactly, its
    optimum is known, and an isoFLOP curve of few sizes only comes near it. An approach without a
    law counts there as the median law.
    """
    result: dict[Quantity, dict[str, float]] = {}
    losses = {name: error for name, error in errors["loss"].items() if name in LAWS}
    typical = float(np.median(list(losses.values()))) if losses else 1.0
    for quantity, own in errors.items():
        usual = float(np.median(list(own.values()))) if own else 1.0
        raw = {}
        for one in candidates:
            says = one.powers is not None if quantity != "loss" else one.params or one.polynomial
            if quantity == "loss_star" and one.powers is not None and "gamma" not in one.powers:
                says = False
            if not says:
                continue
            weight = 1 / math.hypot(own.get(one.name, usual), MINIMUM_ERROR.get(quantity, EXACT))
            if quantity != "loss":
                weight /= max(losses.get(one.name, typical), EXACT)
            raw[one.name] = weight * (
                UNIDENTIFIED if one.status is FitStatus.NOT_IDENTIFIED else 1.0
            )
        total = sum(raw.values())
        result[quantity] = {name: weight / total for name, weight in raw.items()}
    return result


def _noise(points: Points, candidates: Sequence[Candidate]) -> float:
    """The scatter of the runs' log losses about the combination, the runs counting by C."""
    n, d = np.asarray(points.n), np.asarray(points.d)
    logs = [
        (one.log_loss(n, d), one.weights["loss"]) for one in candidates if "loss" in one.weights
    ]
    pairs = [(log, weight) for log, weight in logs if log is not None]
    mean, _ = mean_and_spread(
        np.stack([log for log, _ in pairs], 1), np.array([w for _, w in pairs])
    )
    return math.sqrt(np.average((mean - np.log(points.loss)) ** 2, weights=points.c))


def _factor(errors: Sequence[_Errors], weight: Mapping[str, float], noise: float) -> float:
    """By how much the standard error was too small (or too large) on the prefixes: root mean square
    of the scaled errors of each origin, with PRIOR origins at one.
    """
    total, count = PRIOR, PRIOR
    share = NOISE_SHARE * noise
    for each in errors:
        scaled = []
        for row in each.rows:
            finite = np.isfinite(row) & np.array([weight.get(name, 0.0) > 0 for name in each.names])
            if finite.sum() < 2:
                continue
            parts = np.array([weight.get(name, 0.0) for name in each.names])[finite]
            mean, spread = mean_and_spread(row[finite][None], parts)
            scaled.append(float(mean[0] ** 2 / (spread[0] ** 2 + share**2 + EXACT**2)))
        if scaled:
            total, count = total + min(float(np.mean(scaled)), WORST_FACTOR**2), count + 1
    return math.sqrt(total / count)
