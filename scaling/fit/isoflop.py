"""Approach 2 (Hoffmann 2022, section 3.2): the loss against size at equal compute is a valley; its bottoms are the frontier.

N* and D* are fitted separately, so a + b says whether the runs' FLOPs are counted as N and D are. A valley without an
interior bottom is refused with its reason, never extrapolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scaling.errors import unknown
from scaling.fit.frontier import Cost, Frontier, Minimum, Road, affordable, frontier, through
from scaling.fit.valleys import METHODS, bottoms, scatter
from scaling.results import Points

WINDOW = 0.08  # runs whose C lies within 8 % share a budget
MIN_SIZES = 4
MIN_BUDGETS = 3
SAME_SIZE = 0.02  # sizes within 2 % are one size


def distinct(values: np.ndarray) -> int:
    """How many sizes there are when those within 2 % count as one; a continuum counts by its width."""
    gaps = np.diff(np.sort(np.log(values)))
    near = gaps <= SAME_SIZE
    return 1 + int((~near).sum()) + int(gaps[near].sum() / (4 * SAME_SIZE))


def budgets(n: np.ndarray, c: np.ndarray, window: float = WINDOW) -> list[np.ndarray]:
    """The indices of the runs of each budget, cheapest first: the densest windows of log C that hold four sizes or more.

    A window with three quarters as many runs beside it as in it is part of a continuum, and one with under a third of
    the fullest window's sizes came about by chance; neither is a budget.
    """
    order = np.argsort(c, kind="stable")
    x = np.log(c)[order]
    ends = np.searchsorted(x, x + window, side="right")
    inside = ends - np.arange(len(x))
    beside = np.searchsorted(x, x[ends - 1] + window, side="right") - np.searchsorted(x, x - window) - inside
    candidates = np.flatnonzero((inside >= MIN_SIZES) & (4 * beside <= 3 * inside))
    taken, found = np.zeros(len(x), bool), []
    for start in candidates[np.argsort(-inside[candidates], kind="stable")]:
        rows = np.s_[start : ends[start]]
        if not taken[rows].any() and distinct(n[order[rows]]) >= MIN_SIZES:
            taken[rows] = True
            found.append(order[rows])
    fullest = max((distinct(n[index]) for index in found), default=0)
    return sorted((index for index in found if 3 * distinct(n[index]) >= fullest), key=lambda index: float(c[index[0]]))


def isoflop(points: Points, method: str = "parabola", resamples: int = 1000, seed: int = 0) -> Road:
    """The frontier from the valleys of a table. Needs three usable budgets; else `refused` says what is lacking.

    Intervals: residuals of all valleys, scaled for leverage (HC2) and pooled, are drawn anew onto each fitted curve; with
    four to ten runs in a valley their own scatter alone would say too little. Raises ScalingError for an unknown method.
    """
    if method not in METHODS:
        raise unknown("valley method", method, METHODS)
    if points.n is None or points.d is None or points.c is None:
        return Road("isoflop", refused="the table lacks N, D or C")
    valleys = tuple(_valley(points, index, method) for index in budgets(points.n, points.c))
    usable = [valley for valley in valleys if not valley.refused]
    if len(usable) < MIN_BUDGETS:
        lacking = (
            f"{len(usable)} usable budgets; an exponent needs {MIN_BUDGETS}, each with {MIN_SIZES} sizes at equal C and an interior minimum"
        )
        return Road("isoflop", minima=valleys, refused=lacking)
    measured = np.log([[getattr(valley, name) for valley in usable] for name in ("flops", "n_star", "d_star", "loss_star")])
    found = through(*measured)
    draws = _redrawn(points, usable, method, resamples, seed) if resamples else None
    return Road("isoflop", found, draws, valleys, tuple(_warnings(valleys, found)))


def _warnings(valleys: Sequence[Minimum], found: Frontier) -> list[str]:
    warnings = [f"budget {valley.flops:.3g} is refused: {valley.refused}" for valley in valleys if valley.refused]
    if sum(not valley.refused for valley in valleys) == MIN_BUDGETS:
        warnings.append(f"{MIN_BUDGETS} budgets only: one degree of freedom is left for the exponent's error")
    if abs(float(found.a + found.b) - 1) > 0.02:
        warnings.append(f"a + b = {float(found.a + found.b):.3f}: at these sizes C is not proportional to N D")
    return warnings


def _valley(points: Points, index: np.ndarray, method: str) -> Minimum:
    n, d, c = (values[index] for values in points.inputs("NDC").values())
    loss, flops = points.loss[index], float(np.exp(np.log(c).mean()))
    by_n, by_d = (bottoms(method, np.log(values), loss) for values in (n, d))
    refused = by_n.reason or by_d.reason
    if refused:
        return Minimum(flops, refused=refused, index=index)
    curve = np.array([np.exp(by_n.curve[0]), by_n.curve[1]])
    return Minimum(flops, float(np.exp(by_n.at[0])), float(np.exp(by_d.at[0])), float(by_n.loss[0]), index=index, curve=curve)


def _redrawn(points: Points, valleys: Sequence[Minimum], method: str, resamples: int, seed: int) -> Frontier:
    """Frontiers (R,) of valleys whose residuals are drawn anew; a valley refused in a draw counts for nothing in it."""
    rows = [np.asarray(valley.index) for valley in valleys]
    log_n, log_d = ([np.log(values[row]) for row in rows] for values in points.inputs("ND").values())
    pool = np.concatenate([scatter(x, points.loss[row], method)[1] for x, row in zip(log_n, rows, strict=True)])
    rng = np.random.default_rng(seed)
    count = affordable(resamples, len(pool))
    noise = [rng.choice(pool, (count, len(row))) for row in rows]

    def drawn(axis: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Bottoms and their losses (R, budgets)."""
        parts = zip(axis, rows, noise, strict=True)
        found = [bottoms(method, x, scatter(x, points.loss[row], method)[0] + shift) for x, row, shift in parts]
        return np.stack([each.at for each in found], -1), np.stack([each.loss for each in found], -1)

    n, loss = drawn(log_n)
    d, _ = drawn(log_d)
    enough = np.isfinite(n).sum(-1) >= MIN_BUDGETS
    return through(np.log([valley.flops for valley in valleys]), n[enough], d[enough], np.log(loss[enough]))


def grid_bias(points: Points, law: str, values: dict[str, float], cost: Cost) -> str | None:
    """What the parabola makes of noiseless losses of a fitted law on this very grid, against the law's own optimum.

    A parabola is not the valley's true shape: an off-centre or drifting grid moves the exponent (the bias is in the
    method, more runs do not remove it). None where the law or the grid gives no frontier.
    """
    if points.n is None or points.d is None or law != "chinchilla":
        return None
    loss = values["E"] + values["A"] * points.n ** -values["alpha"] + values["B"] * points.d ** -values["beta"]
    noiseless = isoflop(replace(points, loss=loss), resamples=0)
    if noiseless.frontier is None:
        return None
    truth = frontier(law, {name: np.asarray(value) for name, value in values.items()}, cost)
    largest = max(minimum.flops for minimum in noiseless.minima if not minimum.refused)
    off_n = float(noiseless.frontier.n_star(largest) / truth.n_star(largest) - 1)
    return f"grid bias of a: {float(noiseless.frontier.a - truth.a):+.4f}, of N* at the largest budget: {100 * off_n:+.1f} %"
