"""A sweep becomes runs: every cell of its design is a `RunConfig` or is refused with a reason, before a second is spent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from scaling import accounting, memory, recipe
from scaling.config import Axis, GridDesign, IsoflopDesign, ModelConfig, OptimConfig, RunConfig, Sweep, TaskConfig
from scaling.errors import ScalingError, unknown
from scaling.family import Family, families
from scaling.quantity import format_count, format_flops

MAX_CELLS = 200_000


@dataclass(frozen=True)
class Cell:
    """One combination that a sweep asks for: a size, and one of a budget (FLOPs), tokens, or tokens per parameter."""

    size: float
    measure: str
    amount: float
    settings: tuple[tuple[str, Any], ...]
    seed: int

    def __str__(self) -> str:
        amount = f"C = {format_flops(self.amount)}" if self.measure == "flops" else f"{self.measure} = {format_count(self.amount)}"
        extra = "".join(f", {field} = {value}" for field, value in self.settings)
        return f"N = {format_count(self.size)}, {amount}{extra}, seed {self.seed}"


@dataclass(frozen=True)
class PlannedRun:
    """A run with what it will cost: exact FLOPs, and an estimate of its memory on a CPU."""

    run: RunConfig
    n_params: dict[str, int]
    flops: float
    memory_bytes: int

    @property
    def run_id(self) -> str:
        """The run's identity."""
        return self.run.run_id


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep in order of cost, the refused cells, and how many cells fell together."""

    sweep: Sweep
    runs: tuple[PlannedRun, ...]
    refused: tuple[tuple[Cell, str], ...]
    merged: int

    @property
    def flops(self) -> float:
        """Training FLOPs of the whole sweep when every run is trained alone, exact convention."""
        return sum(planned.flops for planned in self.runs)

    @property
    def families(self) -> list[Family]:
        """The runs as they share trunks."""
        return families([planned.run for planned in self.runs])

    @property
    def shared_flops(self) -> float:
        """Training FLOPs when each trunk is trained once."""
        steps = (pair for family in self.families for pair in family.own_steps())
        return sum(accounting.train_flops(run.model, run.task.seq_len, n * run.batch_tokens, "exact") for run, n in steps)


def plan(sweep: Sweep, task: TaskConfig, vocab_size: int) -> Plan:
    """Expand a sweep for a resolved task. Raises ScalingError when every cell is refused or there are too many."""
    _check_size(sweep)
    _check_axes(sweep.axes)
    runs: dict[str, PlannedRun] = {}
    refused, merged = [], 0
    for cell in _cells(sweep):
        try:
            planned = _build(sweep, cell, task, vocab_size)
        except ScalingError as error:
            refused.append((cell, error.what))
            continue
        merged += planned.run_id in runs
        runs[planned.run_id] = planned
    if not runs:
        reasons = "; ".join(dict.fromkeys(reason for _, reason in refused))
        raise ScalingError(f"every cell is refused: {reasons[:300]}", remedy="change sizes, budgets or the recipe")
    ordered = sorted(runs.values(), key=lambda planned: (float(f"{planned.flops:.2g}"), planned.n_params["total"], planned.run_id))
    return Plan(sweep, tuple(ordered), tuple(refused), merged)


def _amounts(sweep: Sweep) -> tuple[str, tuple[float, ...]]:
    design = sweep.design
    if isinstance(design, IsoflopDesign):
        return "flops", design.budgets
    if isinstance(design, GridDesign):
        return "tokens", design.tokens
    return "tokens_per_param", design.tokens_per_param


def _check_size(sweep: Sweep) -> None:
    count = len(sweep.design.sizes) * len(_amounts(sweep)[1]) * len(sweep.seeds)
    for axis in sweep.axes:
        count *= len(axis.values)
    if count > MAX_CELLS:
        raise ScalingError(f"the sweep has {count:,} cells, the limit is {MAX_CELLS:,}", remedy="thin out sizes, budgets, axes or seeds")


def _check_axes(axes: tuple[Axis, ...]) -> None:
    known = [f"model.{name}" for name in ModelConfig.model_fields] + [f"optim.{name}" for name in OptimConfig.model_fields] + ["batch_size"]
    for axis in axes:
        if axis.field not in known:
            raise unknown("axis field", axis.field, known, where="axes")
    fields = [axis.field for axis in axes]
    if len(set(fields)) < len(fields):
        raise ScalingError(f"an axis field stands twice: {', '.join(fields)}", where="axes", remedy="give each field one axis")


def _cells(sweep: Sweep) -> Iterator[Cell]:
    measure, amounts = _amounts(sweep)
    settings = itertools.product(*([(axis.field, value) for value in axis.values] for axis in sweep.axes))
    for size, amount, chosen, seed in itertools.product(sweep.design.sizes, amounts, list(settings), sweep.seeds):
        yield Cell(size, measure, amount, chosen, seed)


def _build(sweep: Sweep, cell: Cell, task: TaskConfig, vocab_size: int) -> PlannedRun:
    settings = {part: _overrides(sweep, cell, part) for part in ("model", "optim")}
    model = recipe.model_for(
        cell.size, sweep.recipe, vocab_size=vocab_size, seq_len=task.seq_len, params=sweep.design.params, overrides=settings["model"]
    )
    counted = {name: accounting.n_params(model, task.seq_len, name) for name in ("with_head", "total", "nonembedding")}
    n = counted[sweep.design.params]
    sequences = dict(cell.settings).get("batch_size") or sweep.base.batch_size or recipe.batch_size(n, task.seq_len, sweep.recipe)
    batch_tokens = sequences * task.seq_len
    n_steps = round(_tokens(sweep, cell, model, n, task.seq_len) / batch_tokens)
    _check_horizon(sweep, n_steps, batch_tokens, n)
    optim = recipe.optim_for(model, n, n_steps, batch_tokens, sweep.recipe, settings["optim"])
    run = _validated(
        model=model, task=task, optim=optim, batch_size=sequences, n_steps=n_steps,
        seed=cell.seed, precision=sweep.base.precision, evals=sweep.evals,
    )  # fmt: skip
    flops = accounting.train_flops(model, task.seq_len, run.tokens, "exact")
    return PlannedRun(run, counted, flops, memory.estimate(run).total)


def _overrides(sweep: Sweep, cell: Cell, part: str) -> dict[str, Any]:
    base: BaseModel = getattr(sweep.base, part)
    chosen = {field.partition(".")[2]: value for field, value in cell.settings if field.startswith(f"{part}.")}
    return base.model_dump(exclude_none=True) | chosen


def _tokens(sweep: Sweep, cell: Cell, model: ModelConfig, n: int, seq_len: int) -> float:
    if cell.measure == "flops":
        return cell.amount / accounting.train_flops(model, seq_len, 1, sweep.design.flops)
    return cell.amount if cell.measure == "tokens" else cell.amount * n


def _check_horizon(sweep: Sweep, n_steps: int, batch_tokens: int, n: int) -> None:
    if n_steps < recipe.MIN_STEPS:
        raise recipe.Refused(f"{n_steps} steps of {batch_tokens} tokens are fewer than {recipe.MIN_STEPS}")
    window = sweep.design.tokens_per_param_range
    ratio = n_steps * batch_tokens / n
    if window and not window[0] <= ratio <= window[1]:
        raise recipe.Refused(f"D/N = {ratio:.3g} lies outside tokens_per_param_range {window[0]:g} to {window[1]:g}")


def _validated(**fields: Any) -> RunConfig:
    try:
        return RunConfig(**fields)
    except ValidationError as error:
        raise recipe.Refused("; ".join(str(item["msg"]).removeprefix("Value error, ") for item in error.errors())) from None
