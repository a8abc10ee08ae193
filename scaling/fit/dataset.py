"""A table of runs with what its analyses share: budgets, sizes, replicates, cost; each computed
once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scaling.fit.frontier.budgets import SAME_SIZE, budgets, groups_by_gap
from scaling.fit.frontier.frontier import Cost, fit_cost
from scaling.points.points import Points

Array = np.ndarray


@dataclass(frozen=True)
class Replicates:
    """Runs that differ in nothing but their seed are a cell: the `cell` (n,) of each run, the
    `counts` of each cell, how many `cells` have more than one run, and the sum of `squares` of log
    losses about the means of their cells with its degrees of `freedom`.
    """

    cell: Array
    counts: Array
    cells: int
    squares: float
    freedom: int


@dataclass(frozen=True, eq=False)
class Dataset:
    """Points, one per run, and their groups."""

    points: Points

    @staticmethod
    def of(data: Dataset | Points) -> Dataset:
        """The dataset itself, or one of points."""
        return data if isinstance(data, Dataset) else Dataset(data)

    def __len__(self) -> int:
        return len(self.points)

    def has(self, letters: str) -> bool:
        """Whether all of some of N, D and C are known."""
        return all(getattr(self.points, letter.lower()) is not None for letter in letters)

    @cached_property
    def n(self) -> Array:
        """The parameters N (n,). Raises ScalingError where there is none, as `d` and `c` do."""
        return self.points.inputs("N")["N"]

    @cached_property
    def d(self) -> Array:
        """The tokens D (n,)."""
        return self.points.inputs("D")["D"]

    @cached_property
    def c(self) -> Array:
        """The FLOPs C (n,)."""
        return self.points.inputs("C")["C"]

    @cached_property
    def log_loss(self) -> Array:
        """Natural logs of the losses (n,)."""
        return np.log(np.maximum(self.points.loss, 1e-300))

    @cached_property
    def weight(self) -> Array:
        """The weights (n,), ones where the table has none."""
        weight = self.points.weight
        return np.ones(len(self)) if weight is None else np.asarray(weight, float)

    @cached_property
    def budgets(self) -> list[Array]:
        """The indices of the runs of each budget, cheapest first; empty without N or C."""
        return budgets(self.n, self.c, self.points.budget) if self.has("NC") else []

    @cached_property
    def size(self) -> Array:
        """A label (n,) for each run by size, rising with N; sizes within 2 % of their neighbour are
        one.
        """
        return groups_by_gap(np.log(self.n), SAME_SIZE)

    @cached_property
    def cost(self) -> Cost:
        """The cost of the runs: C = c0 N^p D."""
        return fit_cost(self.points)

    @cached_property
    def replicates(self) -> Replicates | None:
        """The cells of runs that differ in their seed alone; None where no cell has two runs."""
        if self.points.cell is None:
            return None
        cell = np.unique(np.asarray(self.points.cell), return_inverse=True)[1]
        counts = np.bincount(cell)
        if counts.max() < 2:
            return None
        means = np.bincount(cell, self.log_loss) / counts
        squares = float(((self.log_loss - means[cell]) ** 2).sum())
        return Replicates(cell, counts, int((counts > 1).sum()), squares, int((counts - 1).sum()))
