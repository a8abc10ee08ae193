"""One [[tuning]] table as an ordinary sweep: every value of every size is a cell of a list design.

The list grows with the grids. All state is read from the table's own folder, so an interrupted or
finished tuning continues by asking again.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scaling.config import ListDesign, ListedCell, Sweep, Tuning
from scaling.errors import RUNS_FAILED, ScalingError
from scaling.formatting import format_count
from scaling.plan import EmptyPlan, Plan, PlannedRun
from scaling.store import run_files
from scaling.store.rows import DIVERGED
from scaling.tuning.document import Optimum
from scaling.tuning.fields import FIELDS, Field
from scaling.tuning.optimum import fit_optimum
from scaling.tuning.value_grid import ValueGrid
from scaling.warning import ResultWarning, WarningCode, warn

COLUMNS = ["run_id", "step", "split", "metric", "value"]
# Trains the runs of a plan that a folder lacks; raises where it is stopped.
Train = Callable[[Path, Plan], None]
Planner = Callable[[Sweep], Plan]  # of sweeps for one resolved task


@dataclass(kw_only=True)
class SizeGrid(ValueGrid):
    """The grid of one size (and batch, where the table asks for several): `base` is the run that
    the recipe plans at the horizon, `value` its value of the tuned field.

    `actual` is the value of the runs of an index (whole sequences, digits of b2), `runs` holds the
    planned runs by (tokens, index). What is cached is asked once every run has ended.
    """

    size: float
    n: float
    tokens: float
    base: PlannedRun
    value: float
    factor: float
    actual: dict[int, float] = field(default_factory=dict)
    runs: dict[tuple[float, int], tuple[PlannedRun, ...]] = field(default_factory=dict)

    def value_at(self, index: int) -> float:
        """The value that an index stands for."""
        return self.value * self.factor**index

    @property
    def log_values(self) -> dict[int, float]:
        """log(actual value) of every index that was trained."""
        return {index: math.log(self.actual[index]) for index in {*self.short, *self.full}}

    @cached_property
    def optimum(self) -> Optimum | None:
        """The optimum at the whole horizon; None where every value diverged."""
        return fit_optimum(self.full, self.log_values)

    @cached_property
    def why(self) -> str:
        """Why the optimum is not interior; empty where it is."""
        return self.edge_reason()


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
    def design_horizons(self) -> dict[float, float]:
        """By size of the design the geometric mean of the smallest and the largest number of tokens
        that it asks for. A size whose every cell is infeasible is left out; the sweep's plan gives
        the reason.
        """
        design: Any = self.sweep.design
        plain = {"axes": (), "replicates": (), "seeds": self.sweep.seeds[:1]}
        horizons = {}
        for size in design.sizes:
            only: dict[str, Any] = {"sizes": (size,)}
            if isinstance(design, ListDesign):
                only = {"cells": tuple(cell for cell in design.cells if cell.size == size)}
            one = {**plain, "design": design.model_copy(update=only)}
            with contextlib.suppress(ScalingError):
                planned = self.planned(self.sweep.model_copy(update=one)).runs
                tokens = [item.run.tokens for item in planned]
                horizons[size] = math.sqrt(min(tokens) * max(tokens))
        return horizons

    @cached_property
    def sizes(self) -> list[SizeGrid]:
        """The sizes that are tuned, ascending: those of the table, or the smallest, the middle and
        the largest that the design trains. Raises ScalingError where one cannot be trained.
        """
        sizes = self.tuning.sizes
        if not sizes:
            trained = self.design_horizons
            low, high = min(trained), max(trained)
            middle = math.sqrt(low * high)
            sizes = (low, min(trained, key=lambda size: abs(math.log(size / middle))), high)
        batches = self.tuning.batch_sizes or (None,)
        return [self._size_grid(*each) for each in itertools.product(sorted(set(sizes)), batches)]

    def _size_grid(self, size: float, batch: int | None) -> SizeGrid:
        settings: dict[str, Any] = {"batch_size": batch} if batch else {}
        cell = ListedCell(size=size, tokens=self._horizon(size), settings=settings)
        base = self.planned(self._cells_sweep([cell])).runs[0]
        n, tokens = float(base.n_params[self.sweep.design.params]), float(base.run.tokens)
        tuning, fraction = self.tuning, self.tuning.short_run_frac
        if fraction:
            short = cell.model_copy(update={"tokens": fraction * tokens})
            if isinstance(reason := self._runs_of(short), str):
                message = (
                    f"N = {format_count(n)}: no short runs, every value is trained to the whole "
                    f"horizon: {reason}"
                )
                self.warnings.append(warn(WarningCode.NO_SHORT_RUNS, message, n_params=n))
                fraction = False
        value = self.field.now(base.run)
        if not value:
            raise ScalingError(
                f"{self.field.name} is 0, and a grid needs a value to start from",
                where="tuning",
                remedy=f"set recipe.{self.field.rule} to a number near the best value",
            )
        return SizeGrid(
            n_values=tuning.n_values,
            max_extensions=tuning.max_extensions,
            margin=tuning.margin,
            has_short_runs=bool(fraction),
            safer=self.field.safer,
            size=size,
            n=n,
            tokens=tokens,
            base=base,
            value=value,
            factor=tuning.factor,
        )

    def _runs_of(self, cell: ListedCell) -> tuple[PlannedRun, ...] | str:
        """The runs of a cell, or why it cannot be trained."""
        try:
            return tuple(self.planned(self._cells_sweep([cell])).runs)
        except EmptyPlan as error:
            return error.reasons
        except ScalingError as error:
            return error.what

    def _horizon(self, size: float) -> float:
        """The tokens of a whole run of a size."""
        if self.tuning.tokens_per_param is not None:
            sweep = self._cells_sweep([ListedCell(size=size, tokens=1000 * size)])
            n = float(self.planned(sweep).runs[0].n_params[self.sweep.design.params])
            return self.tuning.tokens_per_param * n
        if size not in self.design_horizons:
            raise ScalingError(
                f"the design trains nothing at {size:g} parameters, so the horizon is not known",
                where="tuning",
                remedy="set tokens_per_param, or choose sizes of the design",
            )
        return self.design_horizons[size]

    def _cells_sweep(self, cells: list[ListedCell]) -> Sweep:
        """The ordinary sweep of some cells."""
        sweep, design = self.sweep, self.sweep.design
        changes: dict[str, Any] = {
            "name": f"{sweep.name[:56].rstrip('.')}-{self.field.short}",
            "question": f"Which {self.field.name} trains best at each size of the sweep "
            f"{sweep.name}? Written by `scaling tune`.",
            "design": ListDesign(
                kind="list", cells=tuple(cells), params=design.params, flops=design.flops
            ),
            "axes": (),
            "replicates": (),
            "tuning": (),
            "forecasts": (),
            "seeds": self.tuning.seeds,
        }
        return sweep.model_copy(update=changes)

    def _cell(self, size: SizeGrid, tokens: float, index: int) -> ListedCell:
        run = size.base.run
        n_steps = max(1, round(run.n_steps * tokens / size.tokens))
        like = run.model_copy(update={"n_steps": n_steps})
        settings = self.field.settings(size.value_at(index), like)
        if self.tuning.batch_sizes:
            settings = {"batch_size": run.batch_size} | settings
        return ListedCell(size=size.size, tokens=tokens, settings=settings)

    def run(self, train: Train) -> None:
        """Train until every grid is done; runs that the folder holds already are only read. Raises
        ScalingError (3) for a run that ended without a loss.
        """
        known = losses(self.folder)
        while sum(map(self._plan_next, self.sizes)):  # of all sizes, so that they train in parallel
            cells = [self._cell(size, *key) for size in self.sizes for key in size.runs]
            if not {run.run_id for run in self.runs} <= known.keys():
                train(self.folder, self.planned(self._cells_sweep(cells)))
                known = losses(self.folder)
            for size in self.sizes:
                for (tokens, index), runs in size.runs.items():
                    failed = [run.run_id for run in runs if run.run_id not in known]
                    if failed:
                        value = f"{self.field.name} {size.value_at(index):.3g}"
                        raise ScalingError(
                            f"run {failed[0]} ({value}) has failed, so its value cannot be judged",
                            where=self.folder,
                            remedy=f"scaling status {self.folder} gives the reason; fix it, tune "
                            "again",
                            exit_code=RUNS_FAILED,
                        )
                    target = size.full if tokens == size.tokens else size.short
                    target[index] = [known[run.run_id] for run in runs]

    def _plan_next(self, size: SizeGrid) -> bool:
        """Plan what a grid asks for next; False when it is done.

        Values that cannot be trained are excluded, and the grid is asked again.
        """
        short_tokens = (self.tuning.short_run_frac or 1.0) * size.tokens
        while any(wanted := size.next_values()):
            horizons = zip((short_tokens, size.tokens), wanted, strict=True)
            runs = [(d, index) for d, indices in horizons for index in sorted(indices, key=abs)]
            if sum(self._plan_value(size, tokens, index) for tokens, index in runs):
                return True
        return False

    def _plan_value(self, size: SizeGrid, tokens: float, index: int) -> bool:
        """Plan one value; False where it is excluded.

        Of two values that give the same run, the one nearer to the recipe stays.
        """
        runs = self._runs_of(self._cell(size, tokens, index))
        if isinstance(runs, str):
            size.excluded[index] = runs
            return False
        ids = {run.run_id for run in runs}
        for (other_tokens, other), planned in size.runs.items():
            if other_tokens == tokens and ids == {run.run_id for run in planned}:
                value = size.value_at(other)
                size.excluded[index] = f"it gives the same run as {self.field.name} {value:.3g}"
                return False
        size.runs[tokens, index] = runs
        size.actual[index] = self.field.now(runs[0].run)
        return True

    @property
    def runs(self) -> list[PlannedRun]:
        """The runs of all values, each once."""
        runs = [run for size in self.sizes for planned in size.runs.values() for run in planned]
        return list({run.run_id: run for run in runs}.values())


def losses(folder: Path) -> dict[str, float]:
    """The last validation loss of every finished run, nats per token; infinite if diverged."""
    rows = run_files.read_folder(folder, COLUMNS).table.to_pandas()
    rows = rows.sort_values("step", kind="stable")
    is_loss = (rows["split"] == "val") & (rows["metric"] == "loss")
    ends = rows[is_loss].drop_duplicates("run_id", keep="last").set_index("run_id")["value"]
    diverged = rows.loc[rows["metric"] == DIVERGED, "run_id"]
    return ends.where(np.isfinite(ends), np.inf).to_dict() | dict.fromkeys(diverged, math.inf)
