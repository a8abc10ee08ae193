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
in conformal prediction over budgets, with a prior of PRIOR origins) and never below it. The
constants were chosen on half the tables of benchmarks/backtest.py; docs/forecasts.md has the other
half.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from scaling.fit.dataset import Dataset
from scaling.fit.document import FitStatus
from scaling.fit.estimate import DELTA, estimate
from scaling.fit.frontier.envelope import envelope
from scaling.fit.frontier.isoflop import isoflop
from scaling.fit.law_fit import LawFit
from scaling.fit.laws.laws import LAWS
from scaling.fit.newton import continuation
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


def weigh_laws(
    data: Dataset | Points, objective: str = "huber-log", delta: float = DELTA
) -> Combination | None:
    """Fit, score and weigh the candidates on points with N, D and C; None where fewer than three
    laws can be fitted.
    """
    points = Dataset.of(data).points
    if points.n is None or points.d is None or points.c is None:
        return None
    if len(points) > MOST_POINTS:
        order = np.argsort(points.c, kind="stable")
        picked = np.unique(np.linspace(0, len(order) - 1, MOST_POINTS).astype(int))
        data = Dataset(points.take(order[picked]))
    data = Dataset.of(data)
    points, weighted = data.points, Dataset(recent(data.points))
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
    scores = _scores(data, [one.name for one in candidates], origins)
    errors = _rms(scores, len(candidates))
    weights = _weights(candidates, errors)
    members = tuple(
        one.model_copy(
            update={
                "weights": {q: float(each[i]) for q, each in weights.items() if each[i] > 0},
                "errors": {q: float(each[i]) for q, each in errors.items() if each[i] >= 0},
            }
        )
        for i, one in enumerate(candidates)
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


def _candidates(
    values: Mapping[str, Mapping[str, float]], status: Mapping[str, FitStatus], data: Dataset
) -> list[Candidate]:
    """The laws with reported parameters `values`, and what else the weighted points allow."""
    result = []
    for name, params in values.items():
        if not all(math.isfinite(value) for value in params.values()):
            continue
        optimum = _floats(LAWS[name].frontier(params, data.cost).powers())
        if not all(map(math.isfinite, optimum.values())):
            continue
        result.append(
            Candidate(name=name, status=status[name], params=dict(params), powers=optimum)
        )
    if len(data) >= MIN_PREFIX + 2:
        result.append(Candidate(name=SURFACE, polynomial=_surface(data.points)))
    approaches = {"isoflop": isoflop(data, resamples=0), "envelope": envelope(data, None, 0, 0)}
    for name, approach in approaches.items():
        if approach.frontier is not None:
            result.append(Candidate(name=name, powers=_floats(approach.frontier.powers())))
    return result


def _origins(data: Dataset, estimates: Mapping[str, LawFit]) -> list[_Origin]:
    """The prefixes with their candidates. All refits of a law descend at once from its optimum on
    all points.
    """
    points = data.points
    flops, chosen = np.asarray(points.c), _prefixes(data)
    if not chosen:
        return []
    masks = np.array([flops <= budget * (1 + 1e-4) for budget in chosen])
    values: dict[str, dict[str, Array]] = {}
    for name, fit in estimates.items():
        task = fit.problem
        begun = task.centred(fit.theta)
        scale = masks * (flops.max() / np.where(masks, flops, 0.0).max(1))[:, None]
        start = np.repeat(begun[None], len(masks), 0)
        ends = continuation(task.resampled(scale), start, task.spread(begun))
        values[name] = fit.law.values(task.raw(ends.theta))
    status = {name: fit.status for name, fit in estimates.items()}
    origins = []
    for row, budget in enumerate(chosen):
        params = {
            name: {letter: float(column[row]) for letter, column in each.items()}
            for name, each in values.items()
        }
        fitted = _candidates(params, status, Dataset(recent(points.take(masks[row]))))
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


def split_budgets(data: Dataset) -> list[float]:
    """The FLOPs at which a table can be cut: its budgets, or even steps of log C where it has fewer
    than five.
    """
    flops = np.asarray(data.points.c)
    if len(data.budgets) >= 5:
        return [float(flops[index].max()) for index in data.budgets]
    log_c = np.log10(flops)
    return [float(each) for each in 10 ** np.linspace(log_c.min(), log_c.max(), 14)[3:-1]]


def _prefixes(data: Dataset) -> list[float]:
    """At most six budgets from which the later runs are predicted."""
    flops = np.asarray(data.points.c)
    usable = []
    for budget in split_budgets(data):
        prefix = flops[flops <= budget * (1 + 1e-4)]
        enough = len(prefix) >= MIN_PREFIX and np.ptp(np.log10(prefix)) >= MIN_SPAN
        if enough and (flops > AFTER * budget).any():
            usable.append(budget)
    if len(usable) <= MOST_ORIGINS:
        return usable
    return [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, MOST_ORIGINS).astype(int))]


def _scores(
    data: Dataset, names: Sequence[str], origins: Sequence[_Origin]
) -> dict[Quantity, list[Array]]:
    """For each quantity the errors in logs (rows, candidates) from each origin: of the later runs,
    and of the later minima of the isoFLOP curves; NaN where a candidate says nothing.
    """
    minima = [one for one in isoflop(data, resamples=0).minima if one.unavailable is None]
    result: dict[Quantity, list[Array]] = {"loss": [], "n_star": [], "loss_star": []}
    for origin in origins:
        n, d = np.asarray(origin.later.n), np.asarray(origin.later.d)
        after = [one for one in minima if one.flops > AFTER * origin.budget]
        loss = np.full((len(n), len(names)), np.nan)
        optima: dict[Quantity, Array] = {
            "n_star": np.full((len(after), len(names)), np.nan),
            "loss_star": np.full((len(after), len(names)), np.nan),
        }
        for column, candidate in enumerate(map(origin.candidates.get, names)):
            if candidate is None:
                continue
            log_loss = candidate.log_loss(n, d)
            if log_loss is not None:
                loss[:, column] = log_loss - np.log(origin.later.loss)
            optimum = candidate.frontier()
            for quantity, errors in optima.items():
                for row, one in enumerate(after):
                    log = log_optimum(optimum, one.flops, quantity)
                    if log is not None:
                        errors[row, column] = log - math.log(getattr(one, quantity))
        result["loss"].append(loss)
        if after:
            for quantity, errors in optima.items():
                result[quantity].append(errors)
    return result


def _rms(scores: Mapping[Quantity, Sequence[Array]], count: int) -> dict[Quantity, Array]:
    """Root mean square error of each of `count` candidates, each origin counting alike; NaN for
    those that never predicted.
    """
    result: dict[Quantity, Array] = {}
    for quantity, errors in scores.items():
        limit = LARGEST_ERROR if quantity != "n_star" else 1.0
        squares = np.zeros((2, count))  # sums over origins, and how many there are
        for rows in errors:
            known = np.isfinite(rows)
            size = np.minimum(np.abs(np.where(known, rows, 0.0)), limit) ** 2
            mean = size.sum(0) / np.maximum(known.sum(0), 1)
            squares += np.where(known.any(0), [mean, np.ones(count)], 0.0)
        empty = squares[1] == 0
        result[quantity] = np.where(empty, np.nan, np.sqrt(squares[0] / np.maximum(squares[1], 1)))
    return result


def _weights(
    candidates: Sequence[Candidate], errors: Mapping[Quantity, Array]
) -> dict[Quantity, Array]:
    """Weights that sum to one: inverse errors, halved for what the data do not identify.

    A law's N* and L* also count by how well the law predicts losses: where it does so exactly, its
    optimum is known, and an isoFLOP curve of few sizes only comes near it. An approach without a
    law counts there as the median law.
    """
    is_law = np.array([one.name in LAWS for one in candidates])
    halved = np.array([one.status is FitStatus.NOT_IDENTIFIED for one in candidates])
    says = {
        "loss": np.array([bool(one.params or one.polynomial) for one in candidates]),
        "n_star": np.array([one.powers is not None for one in candidates]),
        "loss_star": np.array(["gamma" in (one.powers or {}) for one in candidates]),
    }
    losses = _or_median(np.where(is_law, errors["loss"], np.nan))
    result: dict[Quantity, Array] = {}
    for quantity, each in errors.items():
        own = _or_median(each)
        raw = says[quantity] * np.where(halved, UNIDENTIFIED, 1.0)
        raw = raw / np.hypot(own, MINIMUM_ERROR.get(quantity, EXACT))
        if quantity != "loss":
            raw = raw / np.maximum(losses, EXACT)
        result[quantity] = raw / max(raw.sum(), 1e-300)
    return result


def _or_median(values: Array) -> Array:
    """The values (n,), NaN replaced by the median of the others, or by one."""
    known = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, np.median(known) if len(known) else 1.0)


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


def _factor(errors: Sequence[Array], weight: Array, noise: float) -> float:
    """By how much the standard error was too small on the prefixes: root mean square of the scaled
    errors of each origin, with PRIOR origins at one. At least one: a few origins that went well
    are no reason for a narrower interval.
    """
    total, count = PRIOR, PRIOR
    for rows in errors:
        part = np.isfinite(rows) * weight
        rows, part = (each[(part > 0).sum(1) >= 2] for each in (rows, part))
        if not len(rows):
            continue
        part, rows = part / part.sum(1, keepdims=True), np.where(np.isfinite(rows), rows, 0.0)
        mean = (part * rows).sum(1)
        variance = (part * (rows - mean[:, None]) ** 2).sum(1) + (NOISE_SHARE * noise) ** 2
        scaled = float(np.mean(mean**2 / (variance + EXACT**2)))
        total, count = total + min(scaled, WORST_FACTOR**2), count + 1
    return max(1.0, math.sqrt(total / count))
