"""Approach 1 (Hoffmann 2022, section 3.1): at each compute, which run has the lowest loss? Its N
and D are the frontier.

Runs are tracks of loss against C: all evaluations of a run where the source is a results folder,
else the final losses of runs of one size. This approach reads off runs that exist, so its answer is
a step function smoothed by a line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.fit.dataset import Dataset
from scaling.fit.frontier.budgets import SAME_SIZE, WINDOW
from scaling.fit.frontier.estimate import FrontierEstimate
from scaling.fit.frontier.frontier import cap_resamples, fit_power_frontier
from scaling.fit.frontier.isoflop import MIN_BUDGETS
from scaling.fit.result import BudgetMinimum
from scaling.points.points import Points
from scaling.warning import WarningCode, warn

Array = np.ndarray

GRID = 64
MIN_TRACKS = 3  # runs that must compete at a budget
MIN_WINNERS = 3  # sizes that must win somewhere


@dataclass(frozen=True)
class LossByCompute:
    """Log losses (track, budget) at each of `log_c`, NaN where a track has none; log N of each
    track; log D like the losses.
    """

    log_c: Array
    loss: Array
    log_n: Array
    log_d: Array


def envelope(
    data: Dataset | Points, curves: Points | None = None, resamples: int = 1000, seed: int = 0
) -> FrontierEstimate:
    """The frontier through the winners at up to 64 budgets; `curves` are all evaluations of the
    runs, where there are.

    A budget whose winner is the smallest or the largest that competes is left out: the true winner
    may lie beyond. Intervals resample whole tracks. `unavailable` says what is lacking.
    """
    data = Dataset.of(data)
    if not data.has("NDC"):
        return FrontierEstimate(unavailable="the table lacks N, D or C")
    tracks = _tracks(data if curves is None else Dataset(curves), curves is not None)
    if tracks is None:
        return FrontierEstimate(unavailable="no compute at which runs of several sizes compete")
    count = len(tracks.log_n)
    n, d, loss = _winners(tracks, np.ones((1, count), bool))[:, 0]
    interior = np.isfinite(n)
    sizes = len(np.unique(np.round(n[interior], 6)))
    if interior.sum() < MIN_BUDGETS or sizes < MIN_WINNERS:
        lacking = (
            f"at {interior.sum()} budgets neither the smallest nor the largest size is best, "
            f"and {sizes} sizes are best there; "
            f"an exponent needs {MIN_BUDGETS} such budgets and {MIN_WINNERS} such sizes"
        )
        return FrontierEstimate(unavailable=lacking)
    frontier, draws, warnings = fit_power_frontier(tracks.log_c, n, d, loss), None, []
    minima = [
        BudgetMinimum(flops=at, n_star=n_star, d_star=d_star, loss_star=loss_star)
        for at, n_star, d_star, loss_star in np.exp([tracks.log_c, n, d, loss]).T[interior].tolist()
    ]
    if resamples:  # of whole tracks; draws with too few winners are left out
        size = (cap_resamples(resamples, count), count)
        drawn = np.random.default_rng(seed).integers(0, count, size)
        present = np.zeros(size, bool)
        np.put_along_axis(present, drawn, True, axis=1)
        rows = _winners(tracks, present)
        n = rows[0]
        usable = (np.isfinite(n).sum(1) >= MIN_BUDGETS) & (
            np.nanmax(n, 1, initial=-np.inf) > np.nanmin(n, 1, initial=np.inf)
        )
        draws = fit_power_frontier(tracks.log_c, *rows[:, usable])
    if curves is None:
        message = "built from final losses only; runs of one size are joined across budgets"
        warnings.append(warn(WarningCode.FINAL_LOSSES_ONLY, message))
    total = float(frontier.a + frontier.b)
    if abs(total - 1) > 0.05:
        message = f"a + b = {total:.3f}: the winners do not lie on a line"
        warnings.append(warn(WarningCode.EXPONENTS_SUM, message, a_plus_b=total))
    return FrontierEstimate(frontier, draws, minima, warnings, n_points=len(data))


def _tracks(data: Dataset, by_run: bool) -> LossByCompute | None:
    """Tracks on common budgets, evenly spaced in log C; where sizes were not trained twice, those
    of an isoFLOP design.
    """
    group, (log_c, log_n, log_d) = data.points.group, np.log([data.c, data.n, data.d])
    label = data.size
    if by_run and group is not None:
        label = np.unique(group, return_inverse=True)[1]
    order = np.lexsort((log_c, label))
    along = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    grid = np.linspace(log_c.min(), log_c.max(), GRID)
    if np.median([len(row) for row in along]) < 2:
        centres = np.array([log_c[index].mean() for index in data.budgets])
        grid = centres if len(centres) >= MIN_BUDGETS else grid
    loss = np.array([_read(grid, log_c[row], data.log_loss[row]) for row in along])
    tokens = np.array([_read(grid, log_c[row], log_d[row]) for row in along])
    contested = np.isfinite(loss).sum(0) >= MIN_TRACKS
    if not contested.any():
        return None
    return LossByCompute(
        grid[contested],
        loss[:, contested],
        np.array([log_n[row].mean() for row in along]),
        tokens[:, contested],
    )


def _read(grid: Array, x: Array, y: Array) -> Array:
    """Interpolation that reaches half a window beyond its ends, so that a single run counts at its
    own budget.
    """
    inside = (grid > x[0] - WINDOW / 2) & (grid < x[-1] + WINDOW / 2)
    return np.where(inside, np.interp(grid, x, y), np.nan)


def _winners(tracks: LossByCompute, present: Array) -> Array:
    """The log N, log D and log loss (3, R, budgets) of the lowest track among those `present` (R,
    tracks); NaN where it is at the edge.
    """
    best = np.full((3, len(present), len(tracks.log_c)), np.nan)
    for column, loss in enumerate(tracks.loss.T):
        competing = present & np.isfinite(loss)
        won = np.where(competing, loss, np.inf).argmin(1)
        smallest = np.where(competing, tracks.log_n, np.inf).min(1)
        largest = np.where(competing, tracks.log_n, -np.inf).max(1)
        size = tracks.log_n[won]
        interior = (size > smallest + SAME_SIZE) & (size < largest - SAME_SIZE)
        winner = [size, tracks.log_d[won, column], loss[won]]
        best[:, :, column] = np.where(interior, winner, np.nan)
    return best
