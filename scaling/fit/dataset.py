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
    `counts` of each cell, and the sum of `squares` of log losses about the means of their cells.
    """

    cell: Array
    counts: Array
    squares: float

    @property
    def freedom(self) -> int:
        """Degrees of freedom within cells."""
        return int((self.counts - 1).sum())

    @property
    def cells(self) -> int:
        """Cells with more than one run."""
        return int((self.counts > 1).sum())


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
        if self.points.n is None or self.points.c is None:
            return []
        return budgets(self.points.n, self.points.c, self.points.budget)

    @cached_property
    def size(self) -> Array:
        """A label (n,) for each run by size, rising with N; sizes within 2 % of their neighbour are
        one.
        """
        return groups_by_gap(np.log(np.asarray(self.points.n)), SAME_SIZE)

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
        return Replicates(cell, counts, float(((self.log_loss - means[cell]) ** 2).sum()))
