"""One answer from several laws: candidates, weights by how well each predicts what comes next, and
an interval that knows the form.

The form of the law is the largest error of a forecast, and no table proves one. So several laws are
fitted, the later runs counting more (weights proportional to C): what is asked for lies beyond the
largest budget. Each candidate is refitted on growing prefixes of the budgets and predicts the runs
that follow (rolling origin); its weight is the inverse of that error. The answer is the weighted
mean of the logs, its standard error

    sigma^2 = spread^2 + noise^2 + (growth x decades)^2,

with the spread of the candidates around the answer, the noise of what is measured (half the scatter
of the runs for a loss, the scatter of the isoFLOP minima for N*), and what all candidates err by
together, which grows with the decades of C beyond the data: by GROWTH where nothing is known of a
table, by less where its prefixes show less (as in conformal prediction over budgets, with one
origin at GROWTH). The constants were chosen on half the tables of benchmarks/backtest.py;
docs/forecasts.md has the other half.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.fit.combination import (
    MEASURED,
    Candidate,
    Combination,
    Quantity,
    log_losses,
    log_optima,
    mean_and_spread,
)
from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics.flagged_points import FAR_OFF, far_off
from scaling.fit.document import FitStatus, evenly
from scaling.fit.estimate import DELTA, LawFit, estimate
from scaling.fit.frontier.budgets import quadratic
from scaling.fit.frontier.envelope import envelope
from scaling.fit.frontier.estimate import FrontierEstimate
from scaling.fit.frontier.isoflop import isoflop
from scaling.fit.laws.laws import LAWS
from scaling.fit.newton import continuation
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray
# of one origin: decades of C beyond it (rows,) and errors in logs (rows, candidates), NaN where a
# candidate says nothing
Errors = tuple[Array, Array]
CANDIDATE_LAWS = ("chinchilla", "chinchilla-tied", "skaling", "skaling-tied", "kaplan")
SURFACE = "surface"  # log L as a polynomial of second degree in log N and log D
GROWTH: dict[Quantity, float] = {"loss": 0.025, "n_star": 0.2, "loss_star": 0.025}  # a decade
LEAST_SCATTER = 1e-3  # of the runs' log losses; below it they are a law's own, and no prior holds
UNIDENTIFIED = 0.5  # weight of a candidate whose parameters the data do not identify
LARGEST_ERROR: dict[Quantity, float] = {"loss": 0.3, "n_star": 1.0, "loss_star": 0.3}
MINIMUM_ERROR: dict[Quantity, float] = {"loss": 1e-9, "n_star": 0.02, "loss_star": MEASURED}
MINIMUM_NOISE, NOISE_PRIOR = 0.1, 3.0  # of log N* of a measured minimum, worth so many minima
MOST_POINTS = 5_000  # of a larger table every k-th run in order of C is used
MOST_ORIGINS = 6
MIN_PREFIX, MIN_SPAN = 8, 0.4  # runs and decades of C that a prefix has at least
AFTER = 1.3  # a run follows a budget when it costs this many times as much
MIN_LAWS = 3
CI = 0.95  # of the intervals that later minima are compared with
TESTED_ORIGINS = 2  # from which weights and interval are the table's own


def weigh_laws(
    data: Dataset | Points,
    objective: str = "huber-log",
    delta: float = DELTA,
    near: Combination | None = None,
) -> Combination | None:
    """Fit, score and weigh the candidates on points with N, D and C, from the optima of those laws
    of `near` that nearly the same points identify; None where fewer than three can be fitted.
    """
    data = Dataset.of(data)
    if not data.has("NDC"):
        return None
    if len(data) > MOST_POINTS:
        order = np.argsort(data.c, kind="stable")
        data = Dataset(data.points.take(order[evenly(len(order), MOST_POINTS)]))
    weighted = Dataset(weighted_by_compute(data.points))
    identified = [one for one in near.candidates if one.status is FitStatus.OK] if near else []
    known, fits = {one.name: one.params for one in identified}, {}
    for name in CANDIDATE_LAWS:
        with suppress(ScalingError):
            fits[name] = estimate(LAWS[name], weighted, objective, delta, near=known.get(name))
    if len(fits) < MIN_LAWS:
        return None
    if "chinchilla" in fits and any((abs(fit.residuals) > FAR_OFF).any() for fit in fits.values()):
        mistaken = far_off(estimate(LAWS["chinchilla"], data))  # equal weights: no run decides it
        if mistaken.any():
            return weigh_laws(data.points.take(~mistaken), objective, delta, near)
    by_isoflop = isoflop(data, resamples=0)
    candidates = _candidates({name: fit.values for name, fit in fits.items()}, fits, weighted)
    origins, errors = _rolling_origin(candidates, weighted, fits, by_isoflop)
    size = {
        q: _root_mean_square(rows, len(candidates), LARGEST_ERROR[q]) for q, rows in errors.items()
    }
    weights = _weights(candidates, size)
    mean, _ = mean_and_spread(log_losses(candidates, data.n, data.d), weights["loss"])
    noise = math.sqrt(np.average((mean - data.log_loss) ** 2, weights=data.c))
    is_real = min(noise / LEAST_SCATTER, 1.0)
    largest, is_tested = float(data.c.max()), len(origins) >= TESTED_ORIGINS
    result = Combination(
        candidates=tuple(
            one.model_copy(
                update={
                    "weights": {q: float(each[i]) for q, each in weights.items() if each[i] > 0},
                    "errors": {q: float(each[i]) for q, each in size.items() if each[i] >= 0},
                }
            )
            for i, one in enumerate(candidates)
        ),
        growth={},
        largest=largest,
        noise=noise,
        size_noise=_size_noise(by_isoflop, is_real * MINIMUM_NOISE),
        origins=len(origins),
        tested=math.log10(largest / origins[TESTED_ORIGINS - 1]) if is_tested else 0.0,
        cost=data.cost,
    )
    growth = {q: _growth(result, q, rows, is_real * GROWTH[q]) for q, rows in errors.items()}
    result = result.model_copy(update={"growth": growth})
    missed = sum(result.missed_by_all("loss_star", *rows, CI) for rows in errors["loss_star"])
    return result.model_copy(update={"missed_minima": missed})


def origin_warnings(combination: Combination | None) -> list[ResultWarning]:
    """The warning that a table has too few budgets to test a forecast on it, or that all its
    candidates failed the test together.
    """
    if combination is None:
        return []
    if missed := combination.missed_minima:
        message = (
            "fitted to the smaller budgets, all laws and approaches miss a later minimum of the "
            "loss on one side, beyond the interval: no interval knows what they err by together"
        )
        return [warn(WarningCode.MISSED_BY_ALL, message, minima=missed)]
    if combination.origins >= TESTED_ORIGINS:
        return []
    message = (
        "too few budgets to test a forecast on these runs: weights and interval use defaults "
        "calibrated on other data sets"
    )
    return [warn(WarningCode.UNTESTED, message, origins=combination.origins)]


def weighted_by_compute(points: Points) -> Points:
    """The points with weights proportional to C, one for the most expensive run."""
    flops = np.asarray(points.c)
    return replace(points, weight=flops / flops.max())


def _candidates(
    values: Mapping[str, dict[str, float]], fits: Mapping[str, LawFit], data: Dataset
) -> list[Candidate]:
    """The laws with reported parameters `values`, and what else the weighted points allow."""
    result = []
    for name, params in values.items():
        powers = LAWS[name].frontier(params, data.cost).powers()
        if np.isfinite([*params.values(), *powers.values()]).all():
            status = fits[name].status
            result.append(Candidate(name=name, status=status, params=params, powers=powers))
    if len(data) >= MIN_PREFIX + 2:  # the surface, by weighted least squares of log L
        logs, root = np.log([data.n, data.d]), np.sqrt(data.weight)
        centre = logs.mean(1)
        columns = quadratic(*(logs - centre[:, None])) * root[:, None]
        coefficients, *_ = np.linalg.lstsq(columns, data.log_loss * root, rcond=None)
        result.append(Candidate(name=SURFACE, polynomial=(*centre, *coefficients)))
    approaches = {"isoflop": isoflop(data, resamples=0), "envelope": envelope(data, None, 0, 0)}
    for name, approach in approaches.items():
        if approach.frontier is not None:
            result.append(Candidate(name=name, powers=approach.frontier.powers()))
    return result


def split_budgets(data: Dataset) -> list[float]:
    """The FLOPs at which a table can be cut: its budgets, or even steps of log C where it has fewer
    than five.
    """
    if len(data.budgets) >= 5:
        return [float(data.c[index].max()) for index in data.budgets]
    log_c = np.log10(data.c)
    return [float(each) for each in 10 ** np.linspace(log_c.min(), log_c.max(), 14)[3:-1]]


def _rolling_origin(
    candidates: Sequence[Candidate],
    data: Dataset,
    fits: Mapping[str, LawFit],
    by_isoflop: FrontierEstimate,
) -> tuple[list[float], dict[Quantity, list[Errors]]]:
    """At most six budgets from which the later runs are predicted, and for each quantity the errors
    from each of them: of the later runs, and of the later minima of the isoFLOP curves. All refits
    of a law descend at once from its optimum on all points.
    """
    flops, usable = data.c, []
    errors: dict[Quantity, list[Errors]] = {"loss": [], "n_star": [], "loss_star": []}
    for budget in split_budgets(data):
        prefix = flops[flops <= budget * (1 + 1e-4)]
        enough = len(prefix) >= MIN_PREFIX and np.ptp(np.log10(prefix)) >= MIN_SPAN
        if enough and (flops > AFTER * budget).any():
            usable.append(budget)
    origins = [usable[i] for i in evenly(len(usable), MOST_ORIGINS)]
    if not origins:
        return [], errors
    masks = np.array([flops <= budget * (1 + 1e-4) for budget in origins])
    scale = masks * (flops.max() / np.where(masks, flops, 0.0).max(1))[:, None]
    values: dict[str, dict[str, Array]] = {}
    for name, fit in fits.items():
        problem, begun = fit.problem, fit.problem.centred(fit.theta)
        start = np.repeat(begun[None], len(masks), 0)
        ends = continuation(problem.resampled(scale), start, problem.spread(begun))
        values[name] = fit.law.values(problem.raw(ends.theta))
    for row, budget in enumerate(origins):
        params = {name: {k: float(each[row]) for k, each in values[name].items()} for name in fits}
        prefix_data = Dataset(weighted_by_compute(data.points.take(masks[row])))
        refitted = {one.name: one for one in _candidates(params, fits, prefix_data)}
        row_of = [refitted.get(one.name, Candidate(name=one.name)) for one in candidates]
        later = flops > AFTER * budget
        missed = log_losses(row_of, data.n[later], data.d[later]) - data.log_loss[later, None]
        errors["loss"].append((np.log10(flops[later] / budget), missed))
        after = [one for one in by_isoflop.usable if one.flops > AFTER * budget]
        at = np.array([one.flops for one in after])
        for quantity in ("n_star", "loss_star") if after else ():
            measured = np.log([getattr(one, quantity) for one in after])
            missed = log_optima(row_of, at, quantity, data.cost) - measured[:, None]
            errors[quantity].append((np.log10(at / budget), missed))
    return origins, errors


def _root_mean_square(errors: Sequence[Errors], count: int, limit: float) -> Array:
    """Root mean square error (count,) of the candidates, each origin counting alike; NaN for those
    that never predicted. What lies further off than `limit` says no more against a candidate.
    """
    squares = [pd.DataFrame(np.clip(logs, -limit, limit) ** 2).mean() for _, logs in errors]
    means = pd.DataFrame(squares, columns=range(count), dtype=float).mean()
    return np.sqrt(means.to_numpy())


def _weights(
    candidates: Sequence[Candidate], errors: Mapping[Quantity, Array]
) -> dict[Quantity, Array]:
    """Weights that sum to one: inverse errors, halved for what the data do not identify.

    A law's N* and L* also count by how well the law predicts losses: where it does so exactly, its
    optimum is known, and an isoFLOP curve of few sizes only comes near it. An approach without a
    law counts there as the median law.
    """

    def or_median(values: Array) -> Array:
        known = values[np.isfinite(values)]
        return np.where(np.isfinite(values), values, np.median(known) if len(known) else 1.0)

    says: dict[Quantity, list[bool]] = {
        "loss": [bool(one.params or one.polynomial) for one in candidates],
        "n_star": [one.powers is not None for one in candidates],
        "loss_star": ["gamma" in (one.powers or {}) for one in candidates],
    }
    is_law = [one.name in LAWS for one in candidates]
    halved = [one.status is FitStatus.NOT_IDENTIFIED for one in candidates]
    losses = or_median(np.where(is_law, errors["loss"], np.nan))
    result: dict[Quantity, Array] = {}
    for quantity, each in errors.items():
        raw = says[quantity] * np.where(halved, UNIDENTIFIED, 1.0)
        raw = raw / np.hypot(or_median(each), MINIMUM_ERROR[quantity])
        if quantity != "loss":
            raw = raw / np.maximum(losses, MINIMUM_ERROR["loss"])
        result[quantity] = raw / max(raw.sum(), 1e-300)
    return result


def _size_noise(by_isoflop: FrontierEstimate, prior: float) -> float:
    """The scatter of log N* of measured minima about their power law, drawn towards a prior."""
    total, count, minima = NOISE_PRIOR * prior**2, NOISE_PRIOR, by_isoflop.usable
    if by_isoflop.frontier is not None:
        flops, sizes = np.array([(one.flops, one.n_star) for one in minima], float).T
        total += float(np.sum(np.log(sizes / by_isoflop.frontier.n_star(flops)) ** 2))
        count += len(minima) - 2
    return math.sqrt(total / count)


def _growth(
    combination: Combination, quantity: Quantity, errors: Sequence[Errors], prior: float
) -> float:
    """The error that the answer gains a decade: root mean square of the prior and of what each
    origin shows beyond spread and noise, at most the prior.
    """
    squares = [prior**2]
    for decades, logs in errors:
        mixture = combination.mix(quantity, logs, decades)
        beyond = mixture.mean**2 - mixture.spread**2 - mixture.noise**2
        said = np.isfinite(beyond)
        if said.any():
            square = float(np.mean(beyond[said]) / np.mean(decades[said] ** 2))
            squares.append(min(max(square, 0.0), prior**2))
    return math.sqrt(np.mean(squares))
