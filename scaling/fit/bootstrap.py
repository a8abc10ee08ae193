"""Refits on resampled points: the spread of an estimate without a model of the noise (Efron and Tibshirani 1993, chapter 9).

Every refit descends from the optimum until it has converged, many at once; a resample is a vector of counts, so the data
are never copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.fit.estimate import Estimate, problem_of, spread
from scaling.fit.optimise import Minima, Problem, follow
from scaling.results import Points

Array = np.ndarray
CELLS = 4_000_000  # resamples x points held at once
SMALL = 100  # points below which a refit may stay in the wrong basin, and is tried from a wide delta too


@dataclass(frozen=True)
class Draws:
    """Refitted parameters `theta` (resamples - failed, P), internal; `kind` pairs or clusters. Refits that did not
    converge, and resamples with fewer distinct points than parameters, are not in `theta`: `failed` counts them.
    """

    theta: Array
    kind: str
    resamples: int
    failed: int
    seed: int


def bootstrap(estimate: Estimate, points: Points, resamples: int, seed: int = 0, cluster: Array | None = None) -> Draws:
    """Resample the points, or whole clusters where `cluster` (n,) or `points.group` labels them, and refit each resample."""
    task = problem_of(estimate.law, points, estimate.objective, estimate.delta, estimate.fixed)
    group = cluster if cluster is not None else points.group
    start, random = task.centred(estimate.theta), np.random.default_rng(seed)
    kept, step = [np.empty((0, len(start)))], max(1, CELLS // len(points))
    for first in range(0, resamples, step):
        counts = resampled(min(step, resamples - first), len(points), group, random)
        ends = _refitted(task, start, counts[_distinct(counts) >= len(start) - len(estimate.fixed)])
        kept.append(task.raw(ends.theta[ends.converged]))
    theta = np.concatenate(kept)
    return Draws(theta, "pairs" if group is None else "clusters", resamples, resamples - len(theta), seed)


def _distinct(counts: Array) -> Array:
    return (counts > 0).sum(1)


def _refitted(task: Problem, start: Array, counts: Array) -> Minima:
    """The refits (R, P): from the optimum, and again through narrowing deltas where that failed or where points are few."""
    ends = follow(task, np.repeat(start[None], len(counts), 0), task.delta, counts)
    again = np.ones(len(counts), bool) if len(task.loss) < SMALL and task.objective.kind != "mse" else ~ends.converged
    rows = np.flatnonzero(again)
    if len(rows):
        other = follow(task, np.repeat(start[None], len(rows), 0), spread(task, start), counts[rows])
        better = other.converged & (~ends.converged[rows] | (other.value < ends.value[rows]))
        for name in ("theta", "value", "converged"):
            getattr(ends, name)[rows[better]] = getattr(other, name)[better]
    return ends


def resampled(resamples: int, n: int, group: Array | None, random: np.random.Generator) -> Array:
    """How often each of n points stands in each resample (resamples, n), float; points of a group stand together."""
    if group is None:
        places, width = np.arange(n), n
    else:
        _, places = np.unique(group, return_inverse=True)
        width = int(places.max()) + 1
    picks = random.integers(0, width, (resamples, width)) + np.arange(resamples)[:, None] * width
    counts = np.bincount(picks.ravel(), minlength=resamples * width).reshape(resamples, width).astype(float)
    return counts[:, places]
