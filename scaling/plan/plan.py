"""The plan: all runs of a sweep in order of cost, and the cells that are infeasible."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

from pydantic import ValidationError

from scaling import accounting, recipe
from scaling.config import (
    IsoflopDesign,
    ModelConfig,
    NConvention,
    RunConfig,
    Sweep,
    TaskConfig,
    TextTask,
)
from scaling.config.base import Document, validation_messages
from scaling.config.run_groups import RunGroup, gc_paused, group_runs
from scaling.errors import ScalingError
from scaling.plan.cells import CellRequest, check_settings, expand_design
from scaling.warning import ResultWarning, WarningCode, warn

MAX_CELLS = 200_000


class EmptyPlan(ScalingError):
    """No cell of a sweep can be trained; `reasons` says why."""

    def __init__(self, reasons: str) -> None:
        super().__init__(
            f"every cell is infeasible: {reasons[:300]}",
            remedy="change sizes, budgets or the recipe",
        )
        self.reasons = reasons


class InfeasibleCell(Document):
    """A cell of the design that cannot be trained."""

    cell: str
    reason: str


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run with its parameters by convention and its exact FLOPs."""

    run: RunConfig
    n_params: dict[str, int]
    flops: float

    @property
    def run_id(self) -> str:
        """The run's identity."""
        return self.run.run_id


@dataclass(frozen=True, repr=False)
class Plan:
    """All runs of a sweep in order of cost, the infeasible cells with the reason, the number of
    merged cells, warnings, and the runs that may come as `extensions` (`design.extend_to`).
    """

    sweep: Sweep
    runs: tuple[PlannedRun, ...]
    infeasible: tuple[InfeasibleCell, ...]
    merged: int
    warnings: tuple[ResultWarning, ...] = ()
    extensions: tuple[RunConfig, ...] = ()

    def __repr__(self) -> str:
        return f"<Plan of {self.sweep.name}: {len(self.runs)} runs, {self.shared_flops:.3g} FLOPs>"

    @property
    def flops(self) -> float:
        """Training FLOPs of the whole sweep when every run is trained alone, exact convention."""
        return sum(planned.flops for planned in self.runs)

    @cached_property
    def groups(self) -> list[RunGroup]:
        """The runs by the prefixes that they share."""
        return group_runs([planned.run for planned in self.runs])

    @property
    def shared_flops(self) -> float:
        """Training FLOPs when each shared prefix is trained once."""
        flops = {planned.run_id: planned.flops for planned in self.runs}
        steps = (pair for group in self.groups for pair in group.incremental_steps())
        return sum(flops[run.run_id] * n / run.n_steps for run, n in steps)


@gc_paused()
def plan(sweep: Sweep, task: TaskConfig, vocab_size: int, simulated: str | None = None) -> Plan:
    """Expand a sweep for a resolved task; `simulated` names the law of a simulated sweep
    ("published:NAME").

    Raises ScalingError when every cell is infeasible or there are too many.
    """
    requests = expand_design(sweep)
    count = sum(len(request.seeds) for request in requests)
    count *= math.prod(len(axis.values) for axis in sweep.axes)
    if count > MAX_CELLS:
        raise ScalingError(
            f"the sweep has {count:,} cells, the limit is {MAX_CELLS:,}",
            remedy="thin out sizes, budgets, axes or seeds",
        )
    check_settings(sweep, task, requests)
    runs: dict[str, PlannedRun] = {}
    infeasible: list[InfeasibleCell] = []
    merged = 0
    builder = _RunBuilder(sweep, task, vocab_size, simulated)
    axes = ([(axis.field, value) for value in axis.values] for axis in sweep.axes)
    for request, chosen in itertools.product(requests, list(itertools.product(*axes))):
        cell = replace(request, settings=(*chosen, *request.settings))
        try:
            planned_runs = builder.runs_of_cell(cell)
        except ScalingError as error:
            infeasible += [
                InfeasibleCell(cell=cell.describe(seed), reason=error.what) for seed in cell.seeds
            ]
            continue
        for planned in planned_runs:
            merged += planned.run_id in runs
            runs[planned.run_id] = planned
    if not runs:
        raise EmptyPlan("; ".join(dict.fromkeys(cell.reason for cell in infeasible)))
    ordered = sorted(
        runs.values(), key=lambda p: (float(f"{p.flops:.2g}"), p.n_params["total"], p.run_id)
    )
    warnings = []
    for rule, texts in builder.range_warnings.items():  # one per rule, with the first of its cells
        more = f", and {len(texts) - 1} more" if len(texts) > 1 else ""
        message = f"{next(iter(texts))}{more}"
        warnings.append(warn(WarningCode.OUTSIDE_RULE_RANGE, message, rule=rule))
    extensions: tuple[RunConfig, ...] = ()
    if (amounts := getattr(sweep.design, "extend_to", None)) is not None:
        names = {"isoflop": "budgets", "grid": "tokens", "ladder": "tokens_per_param"}
        update = {"extend_to": None, names[sweep.design.kind]: amounts}
        design = sweep.design.model_copy(update=update)
        replicates = tuple(more for more in sweep.replicates if more.amounts is None)
        extended = sweep.model_copy(update={"design": design, "replicates": replicates})
        with contextlib.suppress(EmptyPlan):
            longer = plan(extended, task, vocab_size, simulated).runs
            extensions = tuple(item.run for item in longer if item.run_id not in runs)
    return Plan(sweep, tuple(ordered), tuple(infeasible), merged, tuple(warnings), extensions)


@dataclass(frozen=True)
class _Shape:
    """What a size and its settings come to, whatever the budget and the seed. FLOPs are those of
    one token, for C is proportional to D.
    """

    model: ModelConfig
    n_params: dict[str, int]
    design_flops: float
    exact_flops: float


@dataclass
class _RunBuilder:
    """Builds the cells of a sweep, and keeps of each shape (or the reason why there is none) what
    does not depend on the budget.

    `range_warnings` holds, by rule of the recipe, in which ways it was asked outside its range.
    """

    sweep: Sweep
    task: TaskConfig
    vocab_size: int
    simulated: str | None
    shapes: dict[tuple[float, str], _Shape | str] = field(default_factory=dict)
    range_warnings: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))

    def __post_init__(self) -> None:
        base: Any = self.sweep.base
        self.base: dict[str, dict[str, Any]] = {
            "model": base.model.model_dump(exclude_none=True),
            "optim": base.optim.model_dump(exclude_none=True),
            "task": {},
        }

    def runs_of_cell(self, cell: CellRequest) -> list[PlannedRun]:
        """The runs of a cell, one for each seed. Raises ScalingError with the reason."""
        sweep, batch_size = self.sweep, self.sweep.base.batch_size
        settings = {part: dict(values) for part, values in self.base.items()}
        for path, value in cell.settings:
            part, _, name = path.partition(".")
            if part == "batch_size":
                batch_size = value
            else:
                settings[part][name] = value
        task = self._task(cell, settings["task"])
        shape, seq_len = self._shape(cell.size, settings, task), task.seq_len
        n = shape.n_params[sweep.design.params]
        tokens = cell.amount
        if cell.measure != "tokens":
            tokens = tokens / shape.design_flops if cell.measure == "flops" else tokens * n
        sequences = batch_size or recipe.batch_size(n, tokens, seq_len, sweep.recipe)
        batch_tokens = sequences * seq_len
        n_steps = round(tokens / batch_tokens)
        if n_steps < recipe.MIN_STEPS:
            raise recipe.InfeasibleCell(
                f"{n_steps} steps of {batch_tokens} tokens are fewer than {recipe.MIN_STEPS}"
            )
        window, ratio = sweep.design.tokens_per_param_range, n_steps * batch_tokens / n
        if window and not window[0] <= ratio <= window[1]:
            raise recipe.InfeasibleCell(
                f"D/N = {ratio:.3g} lies outside tokens_per_param_range {window[0]:g} to "
                f"{window[1]:g}"
            )
        optim = recipe.optim_for(
            shape.model, n, n_steps, batch_tokens, sweep.recipe, settings["optim"]
        )
        for text in recipe.range_warnings(
            n,
            tokens,
            sweep.recipe,
            lr_given="lr" in settings["optim"],
            batch_given=bool(batch_size or sweep.recipe.batch_tokens),
        ):
            self.range_warnings[text.split(":")[0]][text] = None
        try:
            first = RunConfig(
                model=shape.model,
                task=task,
                optim=optim,
                batch_size=sequences,
                n_steps=n_steps,
                seed=cell.seeds[0],
                precision=sweep.base.precision,
                evals=sweep.evals,
                simulated=self.simulated,
            )
        except ValidationError as error:
            raise recipe.InfeasibleCell(validation_messages(error)) from None
        # the sweep has validated its seeds, and nothing else differs
        runs = [first, *(first.model_copy(update={"seed": seed}) for seed in cell.seeds[1:])]
        flops = shape.exact_flops * first.tokens
        return [PlannedRun(run, shape.n_params, flops) for run in runs]

    def _task(self, cell: CellRequest, changes: dict[str, Any]) -> TaskConfig:
        """The task with what the cell changes of it, limited to the unique tokens of the cell, in
        whole windows.
        """
        task = self.task
        if changes:
            try:
                task = type(task).model_validate(task.model_dump() | changes)
            except ValidationError as error:
                raise recipe.InfeasibleCell(validation_messages(error, "task.")) from None
        if cell.unique is None:
            return task
        if not isinstance(task, TextTask):
            raise recipe.InfeasibleCell(
                "a corpus can be limited only where there is one: the task is not text"
            )
        unique_tokens = max(1, round(cell.unique / task.seq_len)) * task.seq_len
        return task.model_copy(update={"unique_tokens": unique_tokens})

    def _shape(self, size: float, settings: dict[str, dict[str, Any]], task: TaskConfig) -> _Shape:
        # by its text: 1, 1.0 and True are equal, but not alike
        key = (size, repr((settings["model"], settings["task"])))
        if key not in self.shapes:
            design, seq_len, flops = self.sweep.design, task.seq_len, 0.0
            try:
                model = recipe.model_for(
                    size,
                    self.sweep.recipe,
                    vocab_size=(settings["task"] and task.fixed_vocab_size) or self.vocab_size,
                    seq_len=seq_len,
                    params=design.params,
                    overrides=settings["model"],
                )
                if isinstance(design, IsoflopDesign):
                    flops = accounting.train_flops(model, seq_len, 1, design.flops)
                self.shapes[key] = _Shape(
                    model=model,
                    n_params={
                        name: accounting.n_params(model, seq_len, name)
                        for name in get_args(NConvention)
                    },
                    design_flops=flops,
                    exact_flops=accounting.train_flops(model, seq_len, 1, "exact"),
                )
            except ScalingError as error:
                self.shapes[key] = error.what
        shape = self.shapes[key]
        if isinstance(shape, str):
            raise recipe.InfeasibleCell(shape)
        return shape
