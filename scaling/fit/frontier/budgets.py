"""Budgets: which runs share one, by a nominal column, in dense windows of log C, or at gaps of
it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scaling.points.points import Points

Array = np.ndarray

WINDOW = 0.08  # runs whose C lies within 8 % share a budget
MIN_SIZES = 4
SAME_SIZE = 0.02  # sizes within 2 % are one size
MAX_WIDTH = 0.7  # of an approximate budget, in log C: a factor of 2
MIN_SEPARATION = 1.5  # the narrowest gap between budgets over the widest gap within one
ENOUGH_RUNS = 0.9  # of all runs in windows: then gaps are not looked at
MIN_SURFACE_RUNS = 12


def groups_by_gap(values: Array, gap: float) -> Array:
    """Labels (n,) that rise with the values; neighbours no further apart than `gap` share one."""
    order = np.argsort(values, kind="stable")
    labels = np.empty(len(values), int)
    labels[order] = np.cumsum(np.r_[0, np.diff(values[order]) > gap])
    return labels


def distinct(values: Array) -> int:
    """How many sizes there are when those within 2 % count as one; a continuum counts
    by its width.
    """
    gaps = np.diff(np.sort(np.log(values)))
    near = gaps <= SAME_SIZE
    return 1 + int((~near).sum()) + int(gaps[near].sum() / (4 * SAME_SIZE))


def budgets(n: Array, c: Array, nominal: Array | None = None) -> list[Array]:
    """The indices of the runs of each budget with four sizes or more, cheapest first.

    Budgets are the values of the nominal column; else windows of 8 % of C; where these leave out a
    tenth of the runs, the groups between clear gaps of log C, where all runs form such groups.
    """
    if nominal is not None:
        labels = [np.flatnonzero(nominal == value) for value in np.unique(nominal)]
        groups = [index for index in labels if distinct(n[index]) >= MIN_SIZES]
        if len(groups) > 1:
            return sorted(groups, key=lambda index: float(np.median(c[index])))
    windows = _windows(n, c)
    if sum(map(len, windows)) >= ENOUGH_RUNS * len(c):
        return windows
    return _groups_at_gaps(n, c) or windows


def _groups_at_gaps(n: Array, c: Array) -> list[Array]:
    """The groups that the widest gaps of log C separate; empty where there are no clear ones."""
    order = np.argsort(c, kind="stable")
    x = np.log(c)[order]
    gaps = np.diff(x)
    ranked = np.argsort(-gaps, kind="stable")
    best: list[Array] = []
    clearest = MIN_SEPARATION
    for count in range(2, len(x) // MIN_SIZES):
        inner = float(gaps[ranked[count]]) if count < len(gaps) else 0.0
        separation = float(gaps[ranked[count - 1]]) / max(inner, 1e-12)
        if separation < clearest:
            continue
        groups = np.split(order, np.sort(ranked[:count]) + 1)
        if all(
            distinct(n[index]) >= MIN_SIZES and np.ptp(np.log(c[index])) <= MAX_WIDTH
            for index in groups
        ):
            best, clearest = groups, separation
    return best


def quadratic(x: Array, y: Array) -> Array:
    """The columns (n, 6) of a polynomial of second degree."""
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)


def at_one_budget(points: Points, groups: list[Array]) -> Points:
    """The points with C of each group at its geometric mean, D in proportion, and the loss at that
    C.

    The slope of log loss in log C at one N is that of a quadratic surface in log N and log C,
    fitted to all runs of the groups.
    """
    rows = np.concatenate(groups)
    n, d, c = (np.asarray(getattr(points, name), float).copy() for name in ("n", "d", "c"))
    loss = points.loss.copy()
    shift = np.zeros(len(c))
    for index in groups:
        shift[index] = np.log(c[index]).mean() - np.log(c[index])
    if len(rows) >= MIN_SURFACE_RUNS:
        x, y = (np.log(values) - np.log(values[rows]).mean() for values in (n, c))
        design = quadratic(x, y)
        surface = np.linalg.lstsq(design[rows], np.log(loss[rows]), rcond=None)[0]
        slope = surface[2] + surface[4] * x + 2 * surface[5] * y
        loss *= np.exp(slope * shift)
    return replace(points, c=c * np.exp(shift), d=d * np.exp(shift), loss=loss)


def _windows(n: Array, c: Array) -> list[Array]:
    """The indices of the runs of each budget, cheapest first: the densest windows of log C that
    hold four sizes or more.

    A window with three quarters as many runs next to it as in it is part of a continuum, and one
    with under a third of the fullest window's sizes came about by chance; neither is a budget.
    """
    order = np.argsort(c, kind="stable")
    x = np.log(c)[order]
    ends = np.searchsorted(x, x + WINDOW, side="right")
    inside = ends - np.arange(len(x))
    adjacent = (
        np.searchsorted(x, x[ends - 1] + WINDOW, side="right")
        - np.searchsorted(x, x - WINDOW)
        - inside
    )
    candidates = np.flatnonzero((inside >= MIN_SIZES) & (4 * adjacent <= 3 * inside))
    taken, groups = np.zeros(len(x), bool), []
    for start in candidates[np.argsort(-inside[candidates], kind="stable")]:
        rows = np.s_[start : ends[start]]
        if not taken[rows].any() and distinct(n[order[rows]]) >= MIN_SIZES:
            taken[rows] = True
            groups.append(order[rows])
    fullest = max((distinct(n[index]) for index in groups), default=0)
    return sorted(
        (index for index in groups if 3 * distinct(n[index]) >= fullest),
        key=lambda index: float(c[index[0]]),
    )
