"""One [[tuning]] table as an ordinary sweep: every rung of every size is a cell of a list, and the list grows with its ladders.

What is known is read from the stage's folder alone, so a stage that was interrupted, or is done, is taken up by asking again.
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
from scaling.errors import ScalingError
from scaling.formatting import format_count
from scaling.plan import Plan, PlannedRun, plan
from scaling.store import run_files
from scaling.store.rows import DIVERGED
from scaling.tuning.fields import FIELDS, Field
from scaling.tuning.ladder import Ladder, ladder, next_rungs

COLUMNS = ["run_id", "step", "split", "metric", "value"]
Train = Callable[
    [Path, Plan], None
]  # trains what a folder lacks of a plan; raises, or ends the command, where it is stopped
Planner = Callable[[Sweep], Plan]


def planner(task: TaskConfig, vocab_size: int, simulated: str | None) -> Planner:
    """Expands sweeps for one resolved task; `simulated` names a law."""
    return lambda sweep: plan(sweep, task, vocab_size, simulated)


@dataclass
class SizeGrid:
    """The rungs of one size: `base` is the run that the recipe plans at the horizon, `value` what it has of the tuned field.

    `scouts` and `full` hold the losses (nats) of each rung's seeds, `closed` the rungs that cannot be trained, and why;
    `had` what the runs of a rung have of the field, `runs` of each horizon (tokens) and rung the planned runs.
    """

    size: float
    n: float
    tokens: float
    base: PlannedRun
    value: float
    factor: float
    rules: Ladder
    scouts: dict[int, list[float]] = field(default_factory=dict)
    full: dict[int, list[float]] = field(default_factory=dict)
    closed: dict[int, str] = field(default_factory=dict)
    had: dict[int, float] = field(default_factory=dict)
    runs: dict[tuple[float, int], tuple[PlannedRun, ...]] = field(default_factory=dict)

    def value_of(self, rung: int) -> float:
        """What a rung asks for."""
        return self.value * self.factor**rung

    @property
    def log_values(self) -> dict[int, float]:
        """log(value) of every rung that was tried: what its runs have, which is what it asked for up to whole sequences and digits of b2."""
        return {rung: math.log(self.had[rung]) for rung in {*self.scouts, *self.full}}

    @property
    def measured(self) -> list[tuple[float, int]]:
        """(tokens, rung) of all that was asked for."""
        return list(self.runs)


@dataclass
class FieldTuner:
    """A field that is being tuned for a sweep, in a folder of its own."""

    sweep: Sweep
    tuning: Tuning
    folder: Path
    planned: Planner
    warnings: list[str] = field(default_factory=list)

    @property
    def field(self) -> Field:
        """What is tuned."""
        return FIELDS[self.tuning.field]

    @cached_property
    def sizes(self) -> list[SizeGrid]:
        """The sizes that are tuned, ascending. Raises ScalingError where one cannot be trained."""
        asked = self.tuning.sizes or _spread(
            [size for size, _ in horizons(self.sweep, self.planned)]
        )
        return [self._size(size) for size in sorted(set(asked))]

    def _size(self, size: float) -> SizeGrid:
        held = self.planned(self._sweep([ListedCell(size=size, tokens=self._tokens(size))]))
        base = held.runs[0]
        n = float(base.n_params[self.sweep.design.params])
        rules = ladder(self.tuning, self.field.safer)
        if rules.scouted and (
            reason := self._refusal(
                ListedCell(size=size, tokens=self._scout_tokens(base.run.tokens))
            )
        ):
            self.warnings.append(
                f"N = {format_count(n)}: no scouts, every rung is trained to the whole horizon: {reason}"
            )
            rules = replace(rules, scouted=False)
        return SizeGrid(
            size,
            n,
            float(base.run.tokens),
            base,
            self.field.now(base.run),
            self.tuning.factor,
            rules,
        )

    def _refusal(self, cell: ListedCell) -> str:
        """Why a cell cannot be trained; empty when it can."""
        try:
            self.planned(self._sweep([cell]))
        except ScalingError as error:
            return error.what.removeprefix("every cell is refused: ")
        return ""

    def _tokens(self, size: float) -> float:
        """The horizon of a size, in tokens."""
        if self.tuning.tokens_per_param is not None:
            return self.tuning.tokens_per_param * _parameters(self.sweep, size, self.planned)
        known = dict(horizons(self.sweep, self.planned, size))
        if size not in known:
            what = f"the design trains nothing at {size:g} parameters, so the horizon is not known"
            raise ScalingError(
                what, where="tuning", remedy="set tokens_per_param, or choose sizes of the design"
            )
        return known[size]

    def planned_value(self, sweep: Sweep, size: SizeGrid) -> float:
        """What another recipe's sweep gives the field at the size and horizon of a ladder."""
        other = FieldTuner(sweep, self.tuning, self.folder, self.planned)
        return self.field.now(
            other.planned(other._sweep([ListedCell(size=size.size, tokens=size.tokens)]))
            .runs[0]
            .run
        )

    def _sweep(self, cells: list[ListedCell]) -> Sweep:
        """The ordinary sweep of some cells."""
        design = ListDesign(
            kind="list",
            cells=tuple(cells),
            params=self.sweep.design.params,
            flops=self.sweep.design.flops,
        )
        question = f"Which {self.tuning.field} trains best, at which size of the sweep {self.sweep.name}? Rungs of `scaling tune`."
        name = f"{self.sweep.name[:56].rstrip('.')}-{self.field.short}"
        plain: dict[str, Any] = {
            "axes": (),
            "replicates": (),
            "tuning": (),
            "forecasts": (),
            "seeds": self.tuning.seeds,
        }
        return self.sweep.model_copy(
            update={"name": name, "question": question, "design": design, **plain}
        )

    def _cell(self, size: SizeGrid, tokens: float, rung: int) -> ListedCell:
        settings = self.field.settings(size.value_of(rung), size.base.run)
        return ListedCell(size=size.size, tokens=tokens, settings=settings)

    def advance(self, train: Train) -> None:
        """Train rung after rung until every ladder has learnt what it can; what is in the folder already is only read."""
        known = losses(self.folder)
        while sum(
            map(self._grow, self.sizes)
        ):  # every ladder is asked, so that the rungs of all sizes train side by side
            everything = [
                self._cell(size, tokens, rung)
                for size in self.sizes
                for tokens, rung in size.measured
            ]
            if missing(self.sizes, known):
                train(self.folder, self.planned(self._sweep(everything)))
                known = losses(self.folder)
            self._take(known)

    def _grow(self, size: SizeGrid) -> bool:
        """Plan what the ladder of a size asks for next; one that cannot be trained is closed, and the ladder is asked again."""
        while asked := next_rungs(size.rules, size.scouts, size.full, size.closed):
            planned = [
                self._plan(size, self._scout_tokens(size.tokens), rung)
                for rung in sorted(asked.scouts, key=abs)
            ]
            planned += [self._plan(size, size.tokens, rung) for rung in sorted(asked.full, key=abs)]
            if any(planned):
                return True
        return False

    def _scout_tokens(self, tokens: float) -> float:
        return (self.tuning.scout or 1.0) * tokens

    def _plan(self, size: SizeGrid, tokens: float, rung: int) -> bool:
        """Plan one rung; False where it is closed. Of two that come to the same run, the one nearer to the recipe stays."""
        cell = self._cell(size, tokens, rung)
        if reason := self._refusal(cell):
            size.closed[rung] = reason
            return False
        runs = self.planned(self._sweep([cell])).runs
        ids = {run.run_id for run in runs}
        twin = next(
            (
                other
                for (known, other), held in size.runs.items()
                if known == tokens and ids == {run.run_id for run in held}
            ),
            None,
        )
        if twin is not None:
            size.closed[rung] = (
                f"it would be the same run as {self.field.name} {size.value_of(twin):.3g}"
            )
            return False
        size.runs[tokens, rung] = runs
        size.had[rung] = self.field.now(runs[0].run)
        return True

    def _take(self, known: dict[str, float]) -> None:
        """Put losses on their rungs. Raises ScalingError (3) for a rung that ended without any."""
        for size in self.sizes:
            for (tokens, rung), runs in size.runs.items():
                target = size.full if tokens == size.tokens else size.scouts
                absent = [run.run_id for run in runs if run.run_id not in known]
                if absent:
                    what = f"run {absent[0]} ({self.field.name} {size.value_of(rung):.3g}) has failed, so its rung cannot be judged"
                    raise ScalingError(
                        what,
                        where=str(self.folder),
                        remedy=f"scaling status {self.folder} says why; mend it and tune again",
                        exit_code=3,
                    )
                target[rung] = [known[run.run_id] for run in runs]

    @property
    def flops(self) -> float:
        """Training FLOPs of all rungs, each run alone."""
        held = {
            run.run_id: run.flops
            for size in self.sizes
            for runs in size.runs.values()
            for run in runs
        }
        return sum(held.values())

    @property
    def n_runs(self) -> int:
        """How many runs all rungs come to."""
        return len(
            {run.run_id for size in self.sizes for runs in size.runs.values() for run in runs}
        )


def missing(sizes: list[SizeGrid], known: dict[str, float]) -> bool:
    """Whether a planned rung has no loss yet."""
    return any(
        run.run_id not in known for size in sizes for runs in size.runs.values() for run in runs
    )


def losses(folder: Path) -> dict[str, float]:
    """The last validation loss of every finished run of a folder, in nats per token; infinite where it diverged."""
    table = run_files.read_folder(folder, COLUMNS).table
    ids, split, metric = (
        np.asarray(table.column(name).to_numpy(zero_copy_only=False))
        for name in ("run_id", "split", "metric")
    )
    step, value = table.column("step").to_numpy(), table.column("value").to_numpy()
    chosen = np.flatnonzero((split == "val") & (metric == "loss"))
    found = {str(ids[i]): float(value[i]) for i in chosen[np.argsort(step[chosen], kind="stable")]}
    gone = {str(run_id) for run_id in ids[metric == DIVERGED]} | {
        run_id for run_id, loss in found.items() if not math.isfinite(loss)
    }
    return found | dict.fromkeys(gone, math.inf)


def horizons(
    sweep: Sweep, planned: Planner, only: float | None = None
) -> list[tuple[float, float]]:
    """(size, tokens) of every size of the design that is trained at all: the geometric middle of what is asked of it."""
    found = []
    for size in sweep.design.sizes if only is None else (only,):
        try:
            tokens = [item.run.tokens for item in planned(_alone(sweep, size)).runs]
        except ScalingError:
            continue  # every cell of this size is refused, and the plan of the sweep says why
        found.append((size, math.sqrt(min(tokens) * max(tokens))))
    return found


def _alone(sweep: Sweep, size: float) -> Sweep:
    """The sweep at one of its sizes, once and without axes. Raises ScalingError where the design has no such size."""
    design: Any = sweep.design
    if size not in design.sizes:
        raise ScalingError(f"the design has no size {size:g}", where="tuning.sizes")
    only = (
        {"cells": tuple(cell for cell in design.cells if cell.size == size)}
        if isinstance(design, ListDesign)
        else {"sizes": (size,)}
    )
    plain: dict[str, Any] = {"axes": (), "replicates": (), "seeds": sweep.seeds[:1]}
    return sweep.model_copy(update={"design": design.model_copy(update=only), **plain})


def _parameters(sweep: Sweep, size: float, planned: Planner) -> float:
    """N of the model that is built for a size, under the design's convention."""
    design = ListDesign(
        kind="list", cells=(ListedCell(size=size, tokens=1000 * size),), params=sweep.design.params
    )
    held = planned(
        sweep.model_copy(
            update={"design": design, "axes": (), "replicates": (), "seeds": sweep.seeds[:1]}
        )
    )
    return float(held.runs[0].n_params[sweep.design.params])


def _spread(sizes: list[float]) -> list[float]:
    """The smallest, a middle (in ln N) and the largest."""
    low, high = min(sizes), max(sizes)
    return [low, min(sizes, key=lambda size: abs(math.log(size / math.sqrt(low * high)))), high]
