"""Refits on resampled data: the spread of an estimate (Efron and Tibshirani 1993, chapter 9; Wu
1986 for `wild`).

Every refit descends from the optimum until it has converged, many at once; a resample is a vector
of counts or of shifts, so the data are never copied. `pairs` draws points anew, `clusters` whole
groups that share noise, `residual` and `wild` keep all points and draw their errors: with few
points, draws of pairs lose whole sizes, and their intervals are too wide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scaling.errors import ScalingError, unknown_choice
from scaling.fit.estimate import PointEstimate, problem_of, refitted, spread
from scaling.fit.newton import Minima, Problem, Resample, continuation
from scaling.points.points import Points

Array = np.ndarray
CELLS = 4_000_000  # resamples x points in memory at once
# points below which a refit may stay in the wrong basin, and is tried from a wide delta too
SMALL = 100
FEW = 100  # points below which errors are drawn rather than points
LARGE, PART = 20_000, 5_000  # a table larger than this is resampled by this many of its points
KINDS = ("auto", "pairs", "clusters", "residual", "wild")


@dataclass(frozen=True)
class Draws:
    """Refitted parameters `theta` (resamples - failed, P), internal; `kind` pairs, clusters,
    residual or wild. Refits that did not converge, and resamples with fewer distinct points than
    parameters, are not in `theta`: `failed` counts them.
    """

    theta: Array
    kind: str
    resamples: int
    failed: int
    seed: int


def bootstrap(
    estimate: PointEstimate,
    points: Points,
    resamples: int,
    seed: int = 0,
    cluster: Array | None = None,
    kind: str = "auto",
) -> Draws:
    """Resample and refit. `auto` draws clusters where `cluster` (n,) or `points.group` labels them,
    residuals below 100 points (of a penalty that knows no side), and pairs else. Raises
    ScalingError for an unknown kind, and for clusters of unlabelled points.
    """
    if kind not in KINDS:
        raise unknown_choice("bootstrap", kind, KINDS)
    if (
        len(points) > LARGE
        and cluster is None
        and points.group is None
        and kind in ("auto", "pairs")
    ):
        return _subsampled(estimate, points, resamples, seed)
    task = problem_of(
        estimate.law, points, estimate.objective, estimate.delta, estimate.fixed, estimate.one_sided
    )
    group = cluster if cluster is not None else points.group
    if kind == "clusters" and group is None:
        raise ScalingError(
            "no groups to resample by clusters",
            where="--resample",
            remedy="name their column: --cluster seed",
        )
    if kind == "auto":
        few = len(points) < FEW and estimate.one_sided == 1.0
        kind = "clusters" if group is not None else "residual" if few else "pairs"
    start, random = task.centred(estimate.theta), np.random.default_rng(seed)
    kept, step = [np.empty((0, len(start)))], max(1, CELLS // len(points))
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        if kind in ("residual", "wild"):
            drawn = Resample(shift=_residual_shifts(task, start, count, kind, group, random))
        else:
            counts = resampled(count, len(points), group if kind == "clusters" else None, random)
            drawn = Resample(weights=counts[_distinct(counts) >= len(start) - len(estimate.fixed)])
        ends = _refitted(task, start, drawn)
        kept.append(task.raw(ends.theta[ends.converged]))
    theta = np.concatenate(kept)
    return Draws(theta, kind, resamples, resamples - len(theta), seed)


def _subsampled(estimate: PointEstimate, points: Points, resamples: int, seed: int) -> Draws:
    """Draws of a large table: those of PART of its points about their own optimum, drawn in by
    sqrt(PART / n).

    The spread of an estimate falls with the root of the number of points (Bickel, Goetze and van
    Zwet 1997).
    """
    part = points.take(np.random.default_rng(seed).choice(len(points), PART, replace=False))
    near = refitted(estimate, part)
    drawn = bootstrap(near, part, resamples, seed, kind="pairs")
    theta = estimate.theta + (drawn.theta - near.theta) * np.sqrt(PART / len(points))
    return replace(drawn, theta=theta, kind=f"pairs of {PART:,} points, scaled to {len(points):,}")


def _distinct(counts: Array) -> Array:
    return (counts > 0).sum(1)


def _residual_shifts(
    task: Problem,
    start: Array,
    count: int,
    kind: str,
    group: Array | None,
    random: np.random.Generator,
) -> Array:
    """Shifts (count, n) of the log loss that put the optimum plus a random error where the loss
    was.

    A fit near least absolute deviations passes through as many points as it has parameters: what it
    leaves there is no error, so these take the sizes of others. All are enlarged for the degrees of
    freedom. `residual` draws sizes anew for every point, `wild` keeps each point's own (points of a
    group turn together); signs are random (Feng, He and Hu 2011).
    """
    residual = task.log_loss - task.law.bind(task.logs)(start[None]).value[0]
    free = int((task.lower < task.upper).sum())
    grown = len(residual) / max(1, len(residual) - free)
    size = np.abs(residual)
    order = np.argsort(size)
    pool, touched = size[order[free:]], order[:free]
    if kind == "residual":
        drawn = random.choice(pool, (count, len(size))) * grown ** (1 / 3)
    else:
        drawn = np.repeat(size[None], count, 0) * np.sqrt(grown)
        drawn[:, touched] = random.choice(pool, (count, free)) * np.sqrt(grown)
    _, place = np.unique(np.arange(len(size)) if group is None else group, return_inverse=True)
    signs = random.choice([-1.0, 1.0], (count, int(place.max()) + 1))[:, place]
    return np.asarray(signs * drawn - residual)


def _refitted(task: Problem, start: Array, drawn: Resample) -> Minima:
    """The refits (R, P): from the optimum, and again through narrowing deltas where that failed or
    where points are few.
    """
    drawn_rows = drawn.weights if drawn.weights is not None else drawn.shift
    count = 0 if drawn_rows is None else len(drawn_rows)
    ends = continuation(task, np.repeat(start[None], count, 0), task.delta, drawn)
    again = (
        np.ones(count, bool)
        if len(task.loss) < SMALL and task.objective.kind != "mse"
        else ~ends.converged
    )
    rows = np.flatnonzero(again)
    if len(rows):
        other = continuation(
            task, np.repeat(start[None], len(rows), 0), spread(task, start), drawn.take(rows)
        )
        better = other.converged & (~ends.converged[rows] | (other.value < ends.value[rows]))
        for name in ("theta", "value", "converged"):
            getattr(ends, name)[rows[better]] = getattr(other, name)[better]
    return ends


def resampled(resamples: int, n: int, group: Array | None, random: np.random.Generator) -> Array:
    """How often each of n points stands in each resample (resamples, n), float; points of a group
    stand together.
    """
    if group is None:
        places, width = np.arange(n), n
    else:
        _, places = np.unique(group, return_inverse=True)
        width = int(places.max()) + 1
    picks = random.integers(0, width, (resamples, width)) + np.arange(resamples)[:, None] * width
    counts = (
        np.bincount(picks.ravel(), minlength=resamples * width)
        .reshape(resamples, width)
        .astype(float)
    )
    return counts[:, places]
