"""A sweep becomes runs: every cell of its design is a `RunConfig` or is refused with a reason, before a second is spent."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from scaling import accounting, memory, recipe
from scaling.config import Axis, GridDesign, IsoflopDesign, ModelConfig, OptimConfig, RunConfig, Sweep, TaskConfig
from scaling.errors import ScalingError, unknown
from scaling.family import Family, families, uncollected
from scaling.quantity import format_count, format_flops

MAX_CELLS = 200_000
WORDS = ("model.norm", "model.pos", "model.ffn", "optim.name", "optim.schedule")  # fields whose values are words


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


@dataclass(frozen=True, slots=True)
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

    @cached_property
    def families(self) -> list[Family]:
        """The runs as they share trunks."""
        return families([planned.run for planned in self.runs])

    @property
    def shared_flops(self) -> float:
        """Training FLOPs when each trunk is trained once."""
        models = {id(planned.run.model): planned.run for planned in self.runs}
        a_token = {key: accounting.train_flops(run.model, run.task.seq_len, 1, "exact") for key, run in models.items()}
        steps = (pair for family in self.families for pair in family.own_steps())
        return sum(a_token[id(run.model)] * (n * run.batch_tokens) for run, n in steps)


@uncollected()
def plan(sweep: Sweep, task: TaskConfig, vocab_size: int, simulated: str | None = None) -> Plan:
    """Expand a sweep for a resolved task; `simulated` names the law of a simulated sweep ("published:NAME").

    Raises ScalingError when every cell is refused or there are too many.
    """
    _check_size(sweep)
    _check_axes(sweep.axes)
    runs: dict[str, PlannedRun] = {}
    refused, merged = [], 0
    builder = _Builder(sweep, task, vocab_size, simulated)
    for size, amount, settings in itertools.product(sweep.design.sizes, _amounts(sweep)[1], _settings(sweep)):
        try:
            siblings = builder.siblings(size, amount, settings)
        except ScalingError as error:
            refused += [(cell, error.what) for cell in _cells(sweep, size, amount, settings)]
            continue
        for planned in siblings:
            run_id = planned.run_id
            merged += run_id in runs
            runs[run_id] = planned
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
        wrong = [value for value in axis.values if isinstance(value, str) and axis.field not in WORDS]
        if wrong:
            raise ScalingError(f"axis {axis.field} has the value {wrong[0]!r}, which is not a number", where="axes", remedy="write numbers")
    fields = [axis.field for axis in axes]
    if len(set(fields)) < len(fields):
        raise ScalingError(f"an axis field stands twice: {', '.join(fields)}", where="axes", remedy="give each field one axis")


@dataclass(frozen=True)
class _Settings:
    """One value of every axis: as the cell shows them, and as overrides of the sweep's base.

    `shape` tells apart what decides the model and the batch, by its text: 1, 1.0 and True are equal, but not alike.
    """

    chosen: tuple[tuple[str, Any], ...]
    model: dict[str, Any]
    optim: dict[str, Any]
    batch_size: Any
    shape: str


def _settings(sweep: Sweep) -> list[_Settings]:
    """Every combination of the values of the axes, in order."""
    base = {part: getattr(sweep.base, part).model_dump(exclude_none=True) for part in ("model", "optim")}
    found = []
    for chosen in itertools.product(*([(axis.field, value) for value in axis.values] for axis in sweep.axes)):
        over: dict[str, dict[str, Any]] = {part: dict(settings) for part, settings in base.items()}
        for path, value in chosen:
            part, _, name = path.partition(".")
            if part in over:
                over[part][name] = value
        batch_size = dict(chosen).get("batch_size") or sweep.base.batch_size
        found.append(_Settings(chosen, over["model"], over["optim"], batch_size, repr((over["model"], batch_size))))
    return found


def _cells(sweep: Sweep, size: float, amount: float, settings: _Settings) -> list[Cell]:
    """The cells of one size, amount and combination of settings: one for each seed."""
    measure, _ = _amounts(sweep)
    return [Cell(size, measure, amount, settings.chosen, seed) for seed in sweep.seeds]


@dataclass
class _Shape:
    """What a size and its settings come to, whatever the budget and the seed.

    FLOPs are those of one token, for C is proportional to D; the memory is known once a run is.
    """

    model: ModelConfig
    n_params: dict[str, int]
    sequences: Any
    design_flops: float
    exact_flops: float
    memory_bytes: int | None = None


@dataclass
class _Builder:
    """Builds the cells of a sweep, and keeps of each shape what does not depend on the budget; a refusal is kept too."""

    sweep: Sweep
    task: TaskConfig
    vocab_size: int
    simulated: str | None
    shapes: dict[tuple[float, str], _Shape | str] = field(default_factory=dict)

    def siblings(self, size: float, amount: float, settings: _Settings) -> list[PlannedRun]:
        """The runs of one size, amount and combination of settings: one for each seed. Raises ScalingError with the reason."""
        sweep, seq_len, shape = self.sweep, self.task.seq_len, self._shape(size, settings)
        n, batch_tokens = shape.n_params[sweep.design.params], shape.sequences * seq_len
        n_steps = round(_tokens(sweep, amount, shape, n) / batch_tokens)
        _check_horizon(sweep, n_steps, batch_tokens, n)
        optim = recipe.optim_for(shape.model, n, n_steps, batch_tokens, sweep.recipe, settings.optim)
        first = _validated(
            model=shape.model, task=self.task, optim=optim, batch_size=shape.sequences, n_steps=n_steps,
            seed=sweep.seeds[0], precision=sweep.base.precision, evals=sweep.evals, simulated=self.simulated,
        )  # fmt: skip
        # the sweep has validated its seeds, and nothing else differs
        runs = [first, *(first.model_copy(update={"seed": seed}) for seed in sweep.seeds[1:])]
        if shape.memory_bytes is None:
            shape.memory_bytes = memory.estimate(first).total
        flops = shape.exact_flops * first.tokens
        return [PlannedRun(run, shape.n_params, flops, shape.memory_bytes) for run in runs]

    def _shape(self, size: float, settings: _Settings) -> _Shape:
        key = (size, settings.shape)
        if key not in self.shapes:
            try:
                self.shapes[key] = self._new_shape(size, settings)
            except ScalingError as error:
                self.shapes[key] = error.what
        found = self.shapes[key]
        if isinstance(found, str):
            raise recipe.Refused(found)
        return found

    def _new_shape(self, size: float, settings: _Settings) -> _Shape:
        sweep, seq_len = self.sweep, self.task.seq_len
        model = recipe.model_for(
            size, sweep.recipe, vocab_size=self.vocab_size, seq_len=seq_len, params=sweep.design.params, overrides=settings.model
        )
        counted = {name: accounting.n_params(model, seq_len, name) for name in ("with_head", "total", "nonembedding")}
        sequences = settings.batch_size or recipe.batch_size(counted[sweep.design.params], seq_len, sweep.recipe)
        design = accounting.train_flops(model, seq_len, 1, sweep.design.flops) if isinstance(sweep.design, IsoflopDesign) else 0.0
        return _Shape(model, counted, sequences, design, accounting.train_flops(model, seq_len, 1, "exact"))


def _tokens(sweep: Sweep, amount: float, shape: _Shape, n: int) -> float:
    if isinstance(sweep.design, IsoflopDesign):
        return amount / shape.design_flops
    return amount if isinstance(sweep.design, GridDesign) else amount * n


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
