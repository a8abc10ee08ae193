"""Approach 2 (Hoffmann 2022, section 3.2): the loss against size at equal compute is a valley; its bottoms are the frontier.

N* and D* are fitted separately, so a + b says whether the runs' FLOPs are counted as N and D are. A valley without an
interior bottom is refused with its reason, never extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from scaling.errors import ScalingError, unknown
from scaling.fit.frontier import Cost, Frontier, Minimum, Road, affordable, fit_power, frontier
from scaling.results import Points

WINDOW = 0.08  # runs whose C lies within 8 % share a budget
MIN_SIZES = 4
MIN_BUDGETS = 3
SAME_SIZE = 0.02  # sizes within 2 % are one size
METHODS = ("parabola", "cubic", "akima")


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
    found = _through(usable)
    draws = _redrawn(points, usable, resamples, seed) if resamples and method == "parabola" else None
    return Road("isoflop", found, draws, valleys, tuple(_warnings(valleys, found, method)))


def _warnings(valleys: Sequence[Minimum], found: Frontier, method: str) -> list[str]:
    warnings = [f"budget {valley.flops:.3g} is refused: {valley.refused}" for valley in valleys if valley.refused]
    if abs(float(found.a + found.b) - 1) > 0.02:
        warnings.append(f"a + b = {float(found.a + found.b):.3f}: at these sizes C is not proportional to N D")
    if method != "parabola":
        warnings.append(f"no interval: the bootstrap knows the parabola only, not {method}")
    return warnings


def _through(valleys: Sequence[Minimum]) -> Frontier:
    """Powers through the bottoms: N*, D*."""
    c, n, d = np.log([[getattr(valley, name) for valley in valleys] for name in ("flops", "n_star", "d_star")])
    (a, log_n), (b, log_d) = fit_power(c, n), fit_power(c, d)
    return Frontier(a, log_n, b, log_d)


def _valley(points: Points, index: np.ndarray, method: str) -> Minimum:
    n, d, c = (values[index] for values in points.inputs("NDC").values())
    loss, flops = points.loss[index], float(np.exp(np.log(c).mean()))
    bottom = BOTTOMS[method]
    try:
        log_n, loss_star, grid = bottom(np.log(n), loss)
        log_d = bottom(np.log(d), loss)[0]
    except ScalingError as error:
        return Minimum(flops, refused=error.what, index=index)
    curve = np.array([np.exp(grid[0]), grid[1]])
    return Minimum(flops, float(np.exp(log_n)), float(np.exp(log_d)), float(loss_star), index=index, curve=curve)


Bottom = tuple[float, float, np.ndarray]


def parabola(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares coefficients (..., 3) of y (..., n) in powers of x - mean(x)."""
    return y @ np.linalg.pinv(np.vander(x - x.mean(), 3, increasing=True)).T


def _by_parabola(x: np.ndarray, y: np.ndarray) -> Bottom:
    c0, c1, c2 = parabola(x, y)
    if c2 <= 0:
        raise ScalingError("the fitted parabola is not convex")
    bottom = -c1 / (2 * c2)
    grid = np.linspace(x.min(), x.max(), 41)
    u = grid - x.mean()
    return _inside(bottom + x.mean(), c0 + c1 * bottom / 2, x, np.array([grid, c0 + c1 * u + c2 * u**2]))


def _by_cubic(x: np.ndarray, y: np.ndarray) -> Bottom:
    cubic = np.polynomial.Polynomial.fit(x, y, 3)
    grid = np.linspace(x.min(), x.max(), 41)
    roots = cubic.deriv().roots()
    bottoms = [float(root.real) for root in roots if abs(root.imag) < 1e-12 and cubic.deriv(2)(root.real) > 0]
    if not bottoms:
        raise ScalingError("the fitted cubic has no minimum")
    return _inside(bottoms[0], float(cubic(bottoms[0])), x, np.array([grid, cubic(grid)]))


def _by_akima(x: np.ndarray, y: np.ndarray) -> Bottom:
    """Akima's interpolant of log loss, as Porian 2024 use it; runs of equal size are averaged first."""
    from scipy.interpolate import Akima1DInterpolator  # 0.3 s, needed here only

    sizes, where = np.unique(x, return_inverse=True)
    means = np.bincount(where, np.log(y)) / np.bincount(where)
    curve = Akima1DInterpolator(sizes, means)
    grid = np.linspace(sizes[0], sizes[-1], 4001)
    values = curve(grid)
    best = int(np.argmin(values))
    return _inside(float(grid[best]), float(np.exp(values[best])), x, np.array([grid, np.exp(values)])[:, ::100])


def _inside(bottom: float, loss: float, x: np.ndarray, curve: np.ndarray) -> Bottom:
    if not x.min() < bottom < x.max():
        side = "below the smallest" if bottom <= x.min() else "above the largest"
        raise ScalingError(f"the minimum lies at the edge, {side} size")
    return bottom, loss, curve


BOTTOMS: dict[str, Callable[[np.ndarray, np.ndarray], Bottom]] = {"parabola": _by_parabola, "cubic": _by_cubic, "akima": _by_akima}


def _redrawn(points: Points, valleys: Sequence[Minimum], resamples: int, seed: int) -> Frontier:
    """Frontiers (R,) of valleys whose residuals are drawn anew; a valley refused in a draw counts for nothing in it."""
    rows = [np.asarray(valley.index) for valley in valleys]
    log_c = np.log([valley.flops for valley in valleys])
    axes = [[np.log(values[row]) for row in rows] for values in points.inputs("ND").values()]
    fits = [[_residuals(x, points.loss[row]) for x, row in zip(axis, rows, strict=True)] for axis in axes]
    pool = np.concatenate([residual for _, residual in fits[0]])
    rng = np.random.default_rng(seed)
    noise = [rng.choice(pool, (affordable(resamples, len(pool)), len(row))) for row in rows]
    log_n, log_d = (
        np.stack([_vertices(x, fitted + drawn) for x, (fitted, _), drawn in zip(axis, fit, noise, strict=True)], axis=-1)
        for axis, fit in zip(axes, fits, strict=True)
    )
    enough = np.isfinite(log_n).sum(-1) >= MIN_BUDGETS
    (a, k_n), (b, k_d) = fit_power(log_c, log_n[enough]), fit_power(log_c, log_d[enough])
    return Frontier(a, k_n, b, k_d)


def _residuals(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fitted parabola at the runs, and its residuals divided by sqrt(1 - leverage)."""
    design = np.vander(x - x.mean(), 3, increasing=True)
    hat = design @ np.linalg.pinv(design)
    fitted = hat @ y
    return fitted, (y - fitted) / np.sqrt(np.maximum(1 - np.diag(hat), 0.05))


def _vertices(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The bottoms (R,) of parabolas through y (R, n); NaN where the rule for data would refuse them."""
    _, c1, c2 = np.moveaxis(parabola(x, y), -1, 0)
    bottoms = x.mean() - c1 / (2 * np.where(c2 > 0, c2, 1.0))
    return np.where((c2 > 0) & (bottoms > x.min()) & (bottoms < x.max()), bottoms, np.nan)


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
