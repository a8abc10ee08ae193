"""Approach 2 (Hoffmann 2022, section 3.2): the loss against size at equal compute has a minimum;
these minima are the frontier.

N* and D* are fitted separately, so a + b says whether the runs' FLOPs are counted as N and D are. A
curve without an interior minimum is unavailable with its reason, never extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from scaling.errors import unknown_choice
from scaling.fit.dataset import Dataset
from scaling.fit.frontier.budgets import MIN_SIZES, WINDOW, at_one_budget
from scaling.fit.frontier.estimate import FrontierEstimate
from scaling.fit.frontier.frontier import Cost, Frontier, cap_resamples, fit_power_frontier
from scaling.fit.laws.law import Law
from scaling.fit.result import BudgetMinimum, Curve, MinimumFault
from scaling.formatting import format_flops
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray
MIN_BUDGETS = 3
GRID = 41  # points of the curve that is drawn
FINE = 4001  # points on which the interpolant's minimum is sought; a draw makes do with a fifth
LEAST_FREE = 0.05  # 1 - leverage of a run that alone decides the curve


def isoflop(
    data: Dataset | Points, method: str = "parabola", resamples: int = 1000, seed: int = 0
) -> FrontierEstimate:
    """The frontier from the isoFLOP curves of a table. Needs three budgets; else `unavailable` says
    what is lacking.

    Intervals: residuals of all curves, scaled for leverage (HC2) and pooled, are drawn anew onto
    each fitted curve; with four to ten runs on a curve their own scatter alone would say too
    little. Raises ScalingError for an unknown method.
    """
    if method not in METHODS:
        raise unknown_choice("minimum", method, METHODS)
    data = Dataset.of(data)
    if not data.has("NDC"):
        return FrontierEstimate(unavailable="the table lacks N, D or C")
    width = max((float(np.ptp(np.log(data.c[index]))) for index in data.budgets), default=0.0)
    moved = data if width <= WINDOW else Dataset(at_one_budget(data.points, data.budgets))
    minima = [_budget_minimum(data, moved, index, method) for index in data.budgets]
    pairs = zip(data.budgets, minima, strict=True)
    rows = [index for index, minimum in pairs if minimum.unavailable is None]
    used, estimate = sum(map(len, rows)), FrontierEstimate(minima=minima)
    if len(rows) < MIN_BUDGETS:
        lacking = (
            f"{len(rows)} usable budgets; an exponent needs {MIN_BUDGETS}, each with "
            f"{MIN_SIZES} sizes at equal C and an interior minimum"
        )
        return replace(estimate, unavailable=lacking, n_points=used)
    optima = [[one.flops, one.n_star, one.d_star, one.loss_star] for one in estimate.usable]
    log_c, log_n, log_d, log_loss = np.log(np.array(optima, float)).T
    frontier = fit_power_frontier(log_c, log_n, log_d, log_loss)
    draws = _bootstrap(moved, log_c, rows, method, resamples, seed) if resamples else None
    warnings = []
    if used < len(data):
        message = f"{used} of {len(data)} runs share a budget that is used; the others are not used"
        warnings.append(warn(WarningCode.RUNS_UNUSED, message, used=used, runs=len(data)))
    for minimum in minima:
        if minimum.unavailable is not None:
            message = f"budget {format_flops(minimum.flops)} is not used: {minimum.unavailable}"
            warnings.append(warn(WarningCode.BUDGET_UNAVAILABLE, message, flops=minimum.flops))
    if len(rows) == MIN_BUDGETS:
        message = f"{MIN_BUDGETS} budgets only: one degree of freedom is left for the error of a"
        warnings.append(warn(WarningCode.FEW_BUDGETS, message, budgets=MIN_BUDGETS))
    total = float(frontier.a + frontier.b)
    if abs(total - 1) > 0.02:
        message = f"a + b = {total:.3f}: at these sizes C is not proportional to N D"
        warnings.append(warn(WarningCode.EXPONENTS_SUM, message, a_plus_b=total))
    if width > WINDOW:
        message = (
            f"budgets are met within {100 * np.expm1(width):.0f} % only: losses are brought to one "
            "C each along a fitted surface"
        )
        warnings.append(warn(WarningCode.APPROXIMATE_BUDGETS, message, width=width))
    return FrontierEstimate(frontier, draws, minima, warnings, n_points=used)


def _budget_minimum(runs: Dataset, moved: Dataset, index: Array, method: str) -> BudgetMinimum:
    """The minimum of the curve through a budget's runs as `moved` to one C, with the `runs` as they
    are by size.
    """
    loss = moved.points.loss[index]
    log_n, lowest, fault_n, curve = find_minima(method, np.log(moved.n[index]), loss)
    log_d, _, fault_d, _ = find_minima(method, np.log(moved.d[index]), loss)
    fault = fault_n or fault_d
    order = index[np.argsort(moved.n[index], kind="stable")]
    return BudgetMinimum(
        flops=np.exp(np.log(moved.c[index]).mean()),
        n_star=None if fault else np.exp(log_n[0]),
        d_star=None if fault else np.exp(log_d[0]),
        loss_star=None if fault else lowest[0],
        n_params=runs.n[order],
        tokens=runs.d[order],
        loss=runs.points.loss[order],
        curve=None if fault else Curve(n_params=np.exp(curve[0]), loss=curve[1]),
        unavailable=fault,
    )


def _bootstrap(
    data: Dataset, log_c: Array, rows: Sequence[Array], method: str, resamples: int, seed: int
) -> Frontier:
    """Frontiers (R,) of curves whose residuals are drawn anew; a curve without a minimum in a draw
    counts for nothing in it. `rows` are the runs of each curve.
    """
    loss, log_n, log_d = data.points.loss, np.log(data.n), np.log(data.d)
    pool = np.concatenate([hc2_residuals(log_n[row], loss[row], method)[1] for row in rows])
    rng = np.random.default_rng(seed)
    count = cap_resamples(resamples, len(pool))
    noise = [rng.choice(pool, (count, len(row))) for row in rows]

    def minima(axis: Array) -> Array:
        """Minima and their losses (2, R, budgets)."""
        curves = [hc2_residuals(axis[row], loss[row], method)[0] for row in rows]
        drawn = zip(rows, curves, noise, strict=True)
        ends = [find_minima(method, axis[row], fit + shift)[:2] for row, fit, shift in drawn]
        return np.stack([np.stack(pair) for pair in ends], -1)

    (n, lowest), (d, _) = minima(log_n), minima(log_d)
    enough = np.isfinite(n).sum(-1) >= MIN_BUDGETS
    return fit_power_frontier(log_c, n[enough], d[enough], np.log(lowest[enough]))


def grid_bias(points: Points, law: Law, theta: Array, cost: Cost) -> ResultWarning | None:
    """What the parabola makes of noiseless losses of a law on this very grid, against the law's own
    optimum.

    A parabola is not the true shape of the curve: an off-centre or drifting grid moves the exponent
    (the bias is in the method, more runs do not remove it). None where the law or the grid gives no
    frontier.
    """
    if law.name != "chinchilla":
        return None
    loss = np.exp(law.log_predict(theta, points.inputs(law.inputs)))
    noiseless = isoflop(replace(points, loss=loss), resamples=0)
    if noiseless.frontier is None:
        return None
    truth = law.frontier(law.values(theta), cost)
    largest = max(minimum.flops for minimum in noiseless.usable)
    of_n = float(noiseless.frontier.n_star(largest) / truth.n_star(largest) - 1)
    of_a = float(noiseless.frontier.a - truth.a)
    message = f"grid bias of a: {of_a:+.4f}, of N* at the largest budget: {100 * of_n:+.1f} %"
    return warn(WarningCode.GRID_BIAS, message, a=of_a, n_star=of_n)


def find_minima(method: str, x: Array, y: Array) -> tuple[Array, Array, MinimumFault | None, Array]:
    """Where losses y (R, n) at log sizes x (n,) are lowest: log size and loss (R,), NaN where there
    is no minimum inside the sizes; and of the first row the fault and the curve (2, k), log size
    and loss.
    """
    at, loss, curve = METHODS[method](x, np.atleast_2d(y))
    inside = (at > x.min()) & (at < x.max())
    if inside[0]:
        fault = None
    elif np.isnan(at[0]):
        fault = MinimumFault.NOT_CONVEX if method == "parabola" else MinimumFault.ABSENT
    else:
        fault = MinimumFault.BELOW_SIZES if at[0] <= x.min() else MinimumFault.ABOVE_SIZES
    return np.where(inside, at, np.nan), np.where(inside, loss, np.nan), fault, curve


def hc2_residuals(x: Array, y: Array, method: str) -> tuple[Array, Array]:
    """The fitted curve (n,) at the runs and its residuals divided by sqrt(1 - leverage) (HC2).

    Akima's interpolant passes through every run, so its scatter is that about a cubic (about a
    parabola, of four runs).
    """
    degree = 2 if method == "parabola" or len(y) < 5 else 3
    design = np.vander(x - x.mean(), degree + 1, increasing=True)
    hat = design @ np.linalg.pinv(design)
    fitted = hat @ y
    residual = (y - fitted) / np.sqrt(np.maximum(1 - np.diag(hat), LEAST_FREE))
    return (y if method == "akima" else fitted), residual


def _parabola(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Least squares of degree two in x - mean(x), which has a minimum where it bends upwards."""
    coefficients = np.linalg.pinv(np.vander(x - x.mean(), 3, increasing=True)) @ y.T
    c0, c1, c2 = coefficients
    u = -c1 / np.where(c2 > 0, 2 * c2, np.nan)
    grid = np.linspace(x.min(), x.max(), GRID)
    curve = np.polynomial.polynomial.polyval(grid - x.mean(), coefficients[:, 0])
    return u + x.mean(), c0 + u * (c1 + u * c2), np.array([grid, curve])


def _akima(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Akima's interpolant of log loss, as Porian 2024 use it; runs of equal size are averaged
    first.
    """
    from scipy.interpolate import Akima1DInterpolator  # 0.3 s, needed here only

    sizes, where = np.unique(x, return_inverse=True)
    member = (where == np.arange(len(sizes))[:, None]) / np.bincount(where)[:, None]
    grid = np.linspace(sizes[0], sizes[-1], FINE if len(y) == 1 else FINE // 5)
    values = Akima1DInterpolator(sizes, member @ np.log(y).T)(grid)
    best = np.argmin(values, axis=0)
    curve = np.array([grid, np.exp(values[:, 0])])[:, :: len(grid) // (GRID - 1)]
    return grid[best], np.exp(np.take_along_axis(values, best[None], 0)[0]), curve


METHODS: dict[str, Callable[[Array, Array], tuple[Array, Array, Array]]] = {
    "parabola": _parabola,
    "akima": _akima,
}
