"""Which grid values to train next: successive halving of complete runs, and growth until the best
value is interior.

The next values follow from the losses so far, so an interrupted grid continues by asking again.
Values are counted by an index: index i stands for `factor`^i times what the recipe says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scaling.tuning.optimum import Losses, best_index, means


@dataclass
class ValueGrid:
    """The values of one size: how many at first, and how many more the grid may grow by.

    `safer` is the direction (-1 or 1) in which a run that diverges becomes stable. `margin` is
    relative to the loss of the best short run. By index: `short` and `full` hold the losses (nats)
    of the seeds by short runs and at the whole horizon, `excluded` why a value cannot be trained.
    """

    n_values: int
    max_extensions: int
    margin: float
    has_short_runs: bool
    safer: int = -1
    short: dict[int, list[float]] = field(default_factory=dict)
    full: dict[int, list[float]] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)

    @property
    def first(self) -> set[int]:
        """The indices that are trained in any case, at least by short runs."""
        low = -((self.n_values - 1) // 2)
        return set(range(low, low + self.n_values))

    @property
    def kept(self) -> set[int]:
        """The indices trained to the whole horizon: all without short runs, none if all
        diverged.
        """
        if not self.has_short_runs:
            return self.first
        best, mean = best_index(self.short), means(self.short)
        if best is None:
            return set()
        bound = mean[best] * (1 + self.margin)
        return {
            index
            for index, loss in mean.items()
            if loss <= bound or (abs(index - best) <= 1 and math.isfinite(loss))
        }

    def next_values(self) -> tuple[set[int], set[int]]:
        """The indices to train now, by short runs and to the whole horizon; both empty at the end.

        Short runs come first and extend until the best has neighbours on both sides. The kept
        values (within the margin of the best, and always the best and its neighbours) are trained
        to the whole horizon and extend too: a best value without a neighbour is no optimum. A value
        whose short run diverged counts as one whose whole run did.
        """
        if self.has_short_runs:
            missing = self.first - self.short.keys() - self.excluded.keys()
            missing = missing or self._extension(self.short, {*self.short})
            if missing:
                return missing, set()
        missing = self.kept - self.full.keys() - self.excluded.keys()
        if not missing:
            mean = means(self.short)
            diverged = {index: [loss] for index, loss in mean.items() if math.isinf(loss)}
            missing = self._extension({**diverged, **self.full}, {*self.short, *self.full})
        return set(), missing

    def _extension(self, measured: Losses, tried: set[int]) -> set[int]:
        """The neighbours that the best index lacks, as far as the grid may still grow; one step to
        the safer side where all diverged.
        """
        if not measured:
            return set()
        best = best_index(measured)
        ends = min(measured) - 1, max(measured) + 1
        neighbours = {ends[self.safer > 0]} if best is None else {best - 1, best + 1}
        wanted = neighbours - measured.keys() - self.excluded.keys()
        allowed = max(0, self.max_extensions - len(tried - self.first))
        known = tried | self.first
        return wanted & known | set(sorted(wanted - known)[:allowed])

    def edge_reason(self) -> str:
        """Why the best full run lacks a finite neighbour on one side once nothing is left to train;
        empty where it is interior.
        """
        best = best_index(self.full)
        if best is None:
            return "every value diverges"
        mean = means({**self.short, **self.full})
        for index, side, end in ((best - 1, "below", "lowest"), (best + 1, "above", "highest")):
            if index in self.excluded:
                return f"the value {side} the best cannot be trained: {self.excluded[index]}"
            if math.isinf(mean.get(index, 0.0)):
                return f"the value {side} the best diverges"
            if index not in self.full:
                limit = f"max_extensions = {self.max_extensions} is used up"
                return f"the best value is the {end}; {limit}"
        return ""
