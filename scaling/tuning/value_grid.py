"""Which grid values to train next: successive halving of complete runs, and growth until the best
value is interior.

The grid is a pure function of the losses so far, so an interrupted one continues by asking again.
Values are counted by an index: index i stands for `factor`^i times what the recipe says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scaling.tuning.optimum import Losses, best_index, means

Excluded = Mapping[int, str]  # indices that cannot be trained, with the reason


@dataclass(frozen=True)
class ValueGrid:
    """The values of one size: how many at first, and how many more the grid may grow by.

    `safer` is the direction (-1 or 1) in which a run that diverges becomes stable. `margin` is
    relative to the loss of the best short run.
    """

    n_values: int
    max_extensions: int
    margin: float
    has_short_runs: bool
    safer: int = -1

    @property
    def first(self) -> frozenset[int]:
        """The indices that are trained in any case, at least by short runs."""
        low = -((self.n_values - 1) // 2)
        return frozenset(range(low, low + self.n_values))


@dataclass(frozen=True)
class NextValues:
    """The indices to train now: by short runs and to the whole horizon. Both empty at the end."""

    short: frozenset[int] = frozenset()
    full: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.short or self.full)


def next_values(grid: ValueGrid, short: Losses, full: Losses, excluded: Excluded) -> NextValues:
    """What to train next, given the losses of short and of whole runs.

    Short runs come first and extend until the best has neighbours on both sides. The kept values
    (within the margin of the best, and always the best and its neighbours) are trained to the whole
    horizon and extend too: a best value without a neighbour is no optimum. A value whose short run
    diverged counts as one whose whole run did.
    """
    if grid.has_short_runs:
        missing = grid.first - short.keys() - excluded.keys()
        missing = missing or _extension(grid, short, excluded, {*short})
        if missing:
            return NextValues(short=missing)
    missing = kept_indices(grid, short) - full.keys() - excluded.keys()
    if not missing:
        diverged = {index: [loss] for index, loss in means(short).items() if math.isinf(loss)}
        missing = _extension(grid, {**diverged, **full}, excluded, {*short, *full})
    return NextValues(full=missing)


def kept_indices(grid: ValueGrid, short: Losses) -> frozenset[int]:
    """The indices trained to the whole horizon: all without short runs, none if all diverged."""
    if not grid.has_short_runs:
        return grid.first
    best = best_index(short)
    if best is None:
        return frozenset()
    mean = means(short)
    bound = mean[best] * (1 + grid.margin)
    return frozenset(
        index
        for index, loss in mean.items()
        if loss <= bound or (abs(index - best) <= 1 and math.isfinite(loss))
    )


def _extension(
    grid: ValueGrid, measured: Losses, excluded: Excluded, tried: set[int]
) -> frozenset[int]:
    """The neighbours that the best index lacks, as far as the grid may still grow; one step to the
    safer side where all diverged.
    """
    if not measured:
        return frozenset()
    best = best_index(measured)
    ends = min(measured) - 1, max(measured) + 1
    neighbours = {ends[grid.safer > 0]} if best is None else {best - 1, best + 1}
    wanted = neighbours - measured.keys() - excluded.keys()
    known = tried | grid.first
    allowed = max(0, grid.max_extensions - len(tried - grid.first))
    return frozenset(wanted & known) | frozenset(sorted(wanted - known)[:allowed])


@dataclass(frozen=True)
class OptimumStatus:
    """Whether the best value has a finite neighbour on both sides; if not, why."""

    state: Literal["interior", "edge"]
    why: str = ""


def optimum_status(
    grid: ValueGrid, short: Losses, full: Losses, excluded: Excluded
) -> OptimumStatus:
    """The status of the best value once nothing is left to train."""
    best = best_index(full)
    if best is None:
        return OptimumStatus("edge", "every value diverges")
    mean = means({**short, **full})
    for index, side, end in ((best - 1, "below", "lowest"), (best + 1, "above", "highest")):
        if index in excluded:
            why = f"the value {side} the best cannot be trained: {excluded[index]}"
        elif math.isinf(mean.get(index, 0.0)):
            why = f"the value {side} the best diverges"
        elif index not in full:
            why = f"the best value is the {end}; max_extensions = {grid.max_extensions} is used up"
        else:
            continue
        return OptimumStatus("edge", why)
    return OptimumStatus("interior")
