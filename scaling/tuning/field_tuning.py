"""One [[tuning]] table as an ordinary sweep: every value of every size is a cell of a list design.

The list grows with the grids. All state is read from the table's own folder, so an interrupted or
finished tuning continues by asking again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scaling.config import ListDesign, ListedCell, Sweep, TaskConfig, Tuning
from scaling.errors import RUNS_FAILED, ScalingError
from scaling.formatting import format_count
from scaling.plan import EmptyPlan, Plan, PlannedRun, plan
from scaling.store import run_files
from scaling.store.rows import DIVERGED
from scaling.tuning.fields import FIELDS, Field
from scaling.tuning.value_grid import ValueGrid, next_values, value_grid
from scaling.warning import ResultWarning, WarningCode, warn

COLUMNS = ["run_id", "step", "split", "metric", "value"]
# Trains the runs of a plan that a folder lacks; raises where it is stopped.
Train = Callable[[Path, Plan], None]
Planner = Callable[[Sweep], Plan]


def planner(task: TaskConfig, vocab_size: int, simulated: str | None) -> Planner:
    """Expands sweeps for one resolved task; `simulated` names a law."""
    return lambda sweep: plan(sweep, task, vocab_size, simulated)


@dataclass
class SizeGrid:
    """The grid of one size: `base` is the run that the recipe plans at the horizon, `value` its
    value of the tuned field.

    By index of the value: `short` and `full` hold the losses (nats) of the seeds, `excluded` why a
    value cannot be trained, `actual` the value of its runs (whole sequences, digits of b2). `runs`
    holds the planned runs by (tokens, index).
    """

    size: float
    n: float
    tokens: float
    base: PlannedRun
    value: float
    factor: float
    grid: ValueGrid
    short: dict[int, list[float]] = field(default_factory=dict)
    full: dict[int, list[float]] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)
    actual: dict[int, float] = field(default_factory=dict)
    runs: dict[tuple[float, int], tuple[PlannedRun, ...]] = field(default_factory=dict)

    def value_at(self, index: int) -> float:
        """The value that an index stands for."""
        return self.value * self.factor**index

    @property
    def log_values(self) -> dict[int, float]:
        """log(actual value) of every index that was trained."""
        return {index: math.log(self.actual[index]) for index in {*self.short, *self.full}}


@dataclass
class FieldTuner:
    """Tunes one field of a sweep, in a folder of its own."""

    sweep: Sweep
    tuning: Tuning
    folder: Path
    planned: Planner
    warnings: list[ResultWarning] = field(default_factory=list)

    @property
    def field(self) -> Field:
        """The field that is tuned."""
        return FIELDS[self.tuning.field]

    @cached_property
    def sizes(self) -> list[SizeGrid]:
        """The sizes that are tuned, ascending. Raises ScalingError where one cannot be trained."""
        sizes = self.tuning.sizes or _smallest_middle_largest(
            [size for size, _ in horizons(self.sweep, self.planned)]
        )
        return [self._size_grid(size) for size in sorted(set(sizes))]

    def _size_grid(self, size: float) -> SizeGrid:
        cell = ListedCell(size=size, tokens=self._horizon(size))
        base = self.planned(self._cells_sweep([cell])).runs[0]
        tokens = float(base.run.tokens)
        n = float(base.n_params[self.sweep.design.params])
        grid = value_grid(self.tuning, self.field.safer)
        if grid.has_short_runs:
            short = ListedCell(size=size, tokens=self._short_tokens(tokens))
            if reason := self._infeasible_reason(short):
                message = (
                    f"N = {format_count(n)}: no short runs, every value is trained to the whole "
                    f"horizon: {reason}"
                )
                self.warnings.append(warn(WarningCode.NO_SHORT_RUNS, message, n_params=n))
                grid = replace(grid, has_short_runs=False)
        value = self.field.now(base.run)
        return SizeGrid(size, n, tokens, base, value, self.tuning.factor, grid)

    def _infeasible_reason(self, cell: ListedCell) -> str:
        """Why a cell cannot be trained; empty when it can."""
        try:
            self.planned(self._cells_sweep([cell]))
        except EmptyPlan as error:
            return error.reasons
        except ScalingError as error:
            return error.what
        return ""

    def _horizon(self, size: float) -> float:
        """The tokens of a whole run of a size."""
        if self.tuning.tokens_per_param is not None:
            return self.tuning.tokens_per_param * _n_params(self.sweep, size, self.planned)
        tokens = dict(horizons(self.sweep, self.planned, size)).get(size)
        if tokens is None:
            raise ScalingError(
                f"the design trains nothing at {size:g} parameters, so the horizon is not known",
                where="tuning",
                remedy="set tokens_per_param, or choose sizes of the design",
            )
        return tokens

    def _short_tokens(self, tokens: float) -> float:
        return (self.tuning.short_run_frac or 1.0) * tokens

    def planned_value(self, sweep: Sweep, size: SizeGrid) -> float:
        """The value that another sweep's recipe gives at the size and horizon of a grid."""
        other = FieldTuner(sweep, self.tuning, self.folder, self.planned)
        cell = ListedCell(size=size.size, tokens=size.tokens)
        return self.field.now(other.planned(other._cells_sweep([cell])).runs[0].run)

    def _cells_sweep(self, cells: list[ListedCell]) -> Sweep:
        """The ordinary sweep of some cells."""
        sweep, name = self.sweep, self.tuning.field
        design = ListDesign(
            kind="list",
            cells=tuple(cells),
            params=sweep.design.params,
            flops=sweep.design.flops,
        )
        changes: dict[str, Any] = {
            "name": f"{sweep.name[:56].rstrip('.')}-{self.field.short}",
            "question": f"Which {name} trains best at each size of the sweep {sweep.name}? "
            "Written by `scaling tune`.",
            "design": design,
            "axes": (),
            "replicates": (),
            "tuning": (),
            "forecasts": (),
            "seeds": self.tuning.seeds,
        }
        return sweep.model_copy(update=changes)

    def _cell(self, size: SizeGrid, tokens: float, index: int) -> ListedCell:
        settings = self.field.settings(size.value_at(index), size.base.run)
        return ListedCell(size=size.size, tokens=tokens, settings=settings)

    def run(self, train: Train) -> None:
        """Train until every grid is done; runs that the folder holds already are only read."""
        known = losses(self.folder)
        while sum(map(self._plan_next, self.sizes)):  # of all sizes, so that they train in parallel
            cells = [
                self._cell(size, tokens, index)
                for size in self.sizes
                for tokens, index in size.runs
            ]
            if not {run.run_id for run in self._planned_runs} <= known.keys():
                train(self.folder, self.planned(self._cells_sweep(cells)))
                known = losses(self.folder)
            self._record_losses(known)

    def _plan_next(self, size: SizeGrid) -> bool:
        """Plan what a grid asks for next; False when it is done.

        Values that cannot be trained are excluded, and the grid is asked again.
        """
        while wanted := next_values(size.grid, size.short, size.full, size.excluded):
            runs = [
                (self._short_tokens(size.tokens), index) for index in sorted(wanted.short, key=abs)
            ]
            runs += [(size.tokens, index) for index in sorted(wanted.full, key=abs)]
            planned = [self._plan_value(size, tokens, index) for tokens, index in runs]
            if any(planned):
                return True
        return False

    def _plan_value(self, size: SizeGrid, tokens: float, index: int) -> bool:
        """Plan one value; False where it is excluded.

        Of two values that give the same run, the one nearer to the recipe stays.
        """
        cell = self._cell(size, tokens, index)
        if reason := self._infeasible_reason(cell):
            size.excluded[index] = reason
            return False
        runs = self.planned(self._cells_sweep([cell])).runs
        ids = {run.run_id for run in runs}
        for (other_tokens, other), planned in size.runs.items():
            if other_tokens == tokens and ids == {run.run_id for run in planned}:
                value = size.value_at(other)
                size.excluded[index] = f"it gives the same run as {self.field.name} {value:.3g}"
                return False
        size.runs[tokens, index] = runs
        size.actual[index] = self.field.now(runs[0].run)
        return True

    def _record_losses(self, known: dict[str, float]) -> None:
        """Put losses on their values. Raises ScalingError (3) for a run that ended without any."""
        for size in self.sizes:
            for (tokens, index), runs in size.runs.items():
                failed = [run.run_id for run in runs if run.run_id not in known]
                if failed:
                    value = f"{self.field.name} {size.value_at(index):.3g}"
                    raise ScalingError(
                        f"run {failed[0]} ({value}) has failed, so its value cannot be judged",
                        where=str(self.folder),
                        remedy=f"scaling status {self.folder} gives the reason; fix it, tune again",
                        exit_code=RUNS_FAILED,
                    )
                target = size.full if tokens == size.tokens else size.short
                target[index] = [known[run.run_id] for run in runs]

    @property
    def _planned_runs(self) -> list[PlannedRun]:
        return [run for size in self.sizes for runs in size.runs.values() for run in runs]

    @property
    def flops(self) -> float:
        """Training FLOPs of all runs, each trained alone."""
        return sum({run.run_id: run.flops for run in self._planned_runs}.values())

    @property
    def n_runs(self) -> int:
        """How many runs all values give."""
        return len({run.run_id for run in self._planned_runs})


def losses(folder: Path) -> dict[str, float]:
    """The last validation loss of every finished run, nats per token; infinite if diverged."""
    table = run_files.read_folder(folder, COLUMNS).table
    ids, split, metric = (
        np.asarray(table.column(name).to_numpy(zero_copy_only=False))
        for name in ("run_id", "split", "metric")
    )
    step, value = table.column("step").to_numpy(), table.column("value").to_numpy()
    rows = np.flatnonzero((split == "val") & (metric == "loss"))
    last = {str(ids[i]): float(value[i]) for i in rows[np.argsort(step[rows], kind="stable")]}
    diverged = {str(run_id) for run_id in ids[metric == DIVERGED]} | {
        run_id for run_id, loss in last.items() if not math.isfinite(loss)
    }
    return last | dict.fromkeys(diverged, math.inf)


def horizons(
    sweep: Sweep, planned: Planner, only: float | None = None
) -> list[tuple[float, float]]:
    """(size, tokens) of every size of the design that is trained at all: the geometric mean of the
    smallest and the largest number of tokens that the design asks of it.
    """
    pairs = []
    for size in sweep.design.sizes if only is None else (only,):
        try:
            tokens = [item.run.tokens for item in planned(_at_one_size(sweep, size)).runs]
        except ScalingError:
            continue  # every cell of this size is infeasible, and the sweep's plan gives the reason
        pairs.append((size, math.sqrt(min(tokens) * max(tokens))))
    return pairs


def _at_one_size(sweep: Sweep, size: float) -> Sweep:
    """The sweep at one of its sizes, without axes. Raises ScalingError for a size it lacks."""
    design: Any = sweep.design
    if size not in design.sizes:
        raise ScalingError(f"the design has no size {size:g}", where="tuning.sizes")
    sizes = (
        {"cells": tuple(cell for cell in design.cells if cell.size == size)}
        if isinstance(design, ListDesign)
        else {"sizes": (size,)}
    )
    return _plain(sweep, design.model_copy(update=sizes))


def _n_params(sweep: Sweep, size: float, planned: Planner) -> float:
    """N of the model that is built for a size, under the design's convention."""
    cell, params = ListedCell(size=size, tokens=1000 * size), sweep.design.params
    runs = planned(_plain(sweep, ListDesign(kind="list", cells=(cell,), params=params))).runs
    return float(runs[0].n_params[params])


def _plain(sweep: Sweep, design: Any) -> Sweep:
    changes = {"design": design, "axes": (), "replicates": (), "seeds": sweep.seeds[:1]}
    return sweep.model_copy(update=changes)


def _smallest_middle_largest(sizes: list[float]) -> list[float]:
    low, high = min(sizes), max(sizes)
    return [low, min(sizes, key=lambda size: abs(math.log(size / math.sqrt(low * high)))), high]
