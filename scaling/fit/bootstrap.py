"""Refits on resampled data: the spread of an estimate (Efron and Tibshirani 1993, chapter 9).

Every refit descends from the optimum until it has converged, many at once; a resample is a vector
of counts or of shifts, so the data are never copied. `pairs` draws points anew, `clusters` whole
groups that share noise, `residual` keeps all points and draws their errors: with few points, draws
of pairs lose whole sizes, and their intervals are too wide.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from scaling.errors import ScalingError, unknown_choice
from scaling.fit.dataset import Dataset
from scaling.fit.estimate import Draws, LawFit, estimate, refit
from scaling.fit.fit_options import RESAMPLE_KINDS, FitOptions
from scaling.fit.laws.law import Law
from scaling.fit.newton import Problem, continuation

Array = np.ndarray
CELLS = 4_000_000  # resamples x points in memory at once
# points below which a refit may stay in the wrong basin, and is tried from a wide delta too
SMALL = 100
FEW = 100  # points below which errors are drawn rather than points
LARGE, PART = 20_000, 5_000  # a table larger than this is resampled by this many of its points


def fit_law(data: Dataset, law: Law, options: FitOptions) -> LawFit:
    """A law fitted and bootstrapped as the options say. Raises ScalingError when the data cannot
    identify it.
    """
    fit = estimate(
        law,
        data,
        options.objective or law.default_objective,
        options.delta,
        fixed=options.fixed() if law.name == options.law else {},
    )
    if not options.bootstrap:
        return fit
    draws = bootstrap(fit, options.bootstrap, options.seed, options.resample)
    return replace(fit, draws=draws)


def part_of(fit: LawFit, seed: int = 0) -> tuple[LawFit, float]:
    """The fit of PART of the points of a large table, and what a distance from its optimum is worth
    in one of all points.
    """
    points = fit.data.points
    chosen = np.random.default_rng(seed).choice(len(points), PART, replace=False)
    return refit(fit, points.take(chosen), fit.values), math.sqrt(PART / len(points))


def bootstrap(fit: LawFit, resamples: int, seed: int = 0, kind: str = "auto") -> Draws:
    """Resample and refit. `auto` draws clusters where the runs have groups, errors below 100 runs,
    and pairs else. Raises ScalingError for an unknown kind, and
    for clusters of unlabelled runs.
    """
    if kind not in RESAMPLE_KINDS:
        raise unknown_choice("bootstrap", kind, RESAMPLE_KINDS)
    points, group = fit.data.points, fit.data.points.group
    if len(points) > LARGE and group is None and kind in ("auto", "pairs"):
        # the spread of an estimate falls with the root of the number of points (Bickel, Goetze and
        # van Zwet 1997): draws of a part about its own optimum, scaled
        near, share = part_of(fit, seed)
        drawn = bootstrap(near, resamples, seed, kind="pairs")
        theta = fit.theta + (drawn.theta - near.theta) * share
        return Draws(theta, f"pairs of {PART:,} points, scaled to {len(points):,}")
    if kind == "clusters" and group is None:
        raise ScalingError(
            "no groups to resample by clusters",
            where="--resample",
            remedy="name their column: --cluster seed",
        )
    if kind == "auto":
        few = len(points) < FEW and bool((points.loss > 0).all())
        kind = "clusters" if group is not None else "residual" if few else "pairs"
    if kind == "residual" and not (points.loss > 0).all():
        raise ScalingError(
            "errors of what is 0 have no logs", where="--resample", remedy="write --resample pairs"
        )
    labels = np.arange(len(points)) if group is None or kind == "pairs" else group
    place = np.unique(labels, return_inverse=True)[1]
    problem, random = fit.problem, np.random.default_rng(seed)
    start = problem.centred(fit.theta)
    is_small = len(points) < SMALL and problem.objective.kind != "mse"
    kept, step = [np.empty((0, len(start)))], max(1, CELLS // len(points))
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        if kind == "residual":
            sample = problem.resampled(shift=_residual_shifts(problem, start, count, place, random))
        else:
            counts = resampled(count, place, random)
            counts = counts[(counts > 0).sum(1) >= fit.n_free]
            sample, count = problem.resampled(counts), len(counts)
        ends = continuation(sample, np.repeat(start[None], count, 0), problem.delta)
        rows = np.flatnonzero(~ends.converged | is_small)
        if len(rows):  # again through narrowing deltas
            starts = np.repeat(start[None], len(rows), 0)
            other = continuation(sample, starts, problem.spread(start), rows)
            better = other.converged & (~ends.converged[rows] | (other.value < ends.value[rows]))
            ends.put(rows[better], other.take(better))
        kept.append(problem.raw(ends.theta[ends.converged]))
    return Draws(np.concatenate(kept), kind)


def _residual_shifts(
    problem: Problem, start: Array, count: int, place: Array, random: np.random.Generator
) -> Array:
    """Shifts (count, n) of the log loss that put the optimum plus a random error where the loss
    was.

    Sizes are drawn anew for every point, enlarged for the degrees of freedom; signs are random,
    those of one `place` (n,) alike. A fit near least absolute deviations passes through as many
    points as it has parameters: what it leaves there is no error (Feng, He and Hu 2011). Where most
    residuals lie within delta the fit is one of least squares, and all count.
    """
    residual = problem.log_loss - problem.bound(start[None]).value[0]
    n, free = len(residual), len(problem.free)
    grown = n / max(1, n - free)
    size = np.sort(np.abs(residual))
    if problem.objective.kind == "mse" or np.median(size) < problem.delta:
        pool = size * grown ** (1 / 2)
    else:
        pool = size[free:] * grown ** (1 / 3)
    signs = random.choice([-1.0, 1.0], (count, int(place.max()) + 1))[:, place]
    return signs * random.choice(pool, (count, n)) - residual


def resampled(resamples: int, place: Array, random: np.random.Generator) -> Array:
    """How often each of n points stands in each resample (resamples, n), float; points of one
    `place` (n,) stand together.
    """
    width = int(place.max()) + 1
    picks = random.integers(0, width, (resamples, width)) + np.arange(resamples)[:, None] * width
    counts = np.bincount(picks.ravel(), minlength=resamples * width).astype(float)
    return counts.reshape(resamples, width)[:, place]
