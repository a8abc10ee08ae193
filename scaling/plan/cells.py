"""What a sweep asks for: its sizes and amounts one by one, the values of its axes, and the seeds of
each cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from scaling.config import (
    Axis,
    EpochsDesign,
    GridDesign,
    IsoflopDesign,
    ListDesign,
    ModelConfig,
    OptimConfig,
    Sweep,
    TaskConfig,
)
from scaling.errors import ScalingError, unknown_choice
from scaling.formatting import format_count, format_flops

MAX_CELLS = 200_000
WORDS = (
    "model.norm",
    "model.pos",
    "model.ffn",
    "optim.name",
    "optim.schedule",
    "task.operation",
)  # fields whose values are words
NOT_VARIED = {
    "kind",
    "corpus",
    "digest",
    "unique_tokens",
}  # of a task: a sweep asks one question of one corpus


@dataclass(frozen=True)
class CellRequest:
    """A size, and one of a budget (FLOPs), tokens, or tokens per parameter; the unique tokens it
    may use; its seeds; what it alone sets.
    """

    size: float
    measure: str
    amount: float
    seeds: tuple[int, ...]
    unique: float | None = None
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Cell:
    """One combination that a sweep asks for, as a plan shows it."""

    size: float
    measure: str
    amount: float
    settings: tuple[tuple[str, Any], ...]
    seed: int

    def __str__(self) -> str:
        amount = (
            f"C = {format_flops(self.amount)}"
            if self.measure == "flops"
            else f"{self.measure} = {format_count(self.amount)}"
        )
        extra = "".join(f", {field} = {value}" for field, value in self.settings)
        return f"N = {format_count(self.size)}, {amount}{extra}, seed {self.seed}"


@dataclass(frozen=True)
class Settings:
    """One value of every axis: as the cell shows them, and as overrides of the sweep's base.

    `task` holds only what an axis or a cell changes of the task. `shape` tells apart what decides
    the model and the batch, by its text: 1, 1.0 and True are equal, but not alike.
    """

    chosen: tuple[tuple[str, Any], ...]
    model: dict[str, Any]
    optim: dict[str, Any]
    task: dict[str, Any]
    batch_size: Any
    shape: str

    def over(self, own: tuple[tuple[str, Any], ...]) -> Settings:
        """The same with what a cell sets for itself."""
        base = {"model": self.model, "optim": self.optim, "task": self.task}
        return _settings((*self.chosen, *own), base, self.batch_size) if own else self


def expand_design(sweep: Sweep) -> list[CellRequest]:
    """Every size and amount of the design with its seeds. Raises ScalingError for replicates of a
    cell that is not there.
    """
    plain = list(_plain(sweep))
    seeds: list[dict[int, None]] = [dict.fromkeys(ask.seeds) for ask in plain]
    for index, more in enumerate(sweep.replicates):
        chosen = [
            place
            for place, ask in enumerate(plain)
            if _chosen(ask.size, more.sizes) and _chosen(ask.amount, more.amounts)
        ]
        if not chosen:
            raise ScalingError(
                "no cell of the design has these sizes and amounts",
                where=f"replicates[{index}]",
                remedy="write them as the design does, or leave one of them out for all",
            )
        for place in chosen:
            seeds[place] |= dict.fromkeys(more.seeds)
    return [replace(ask, seeds=tuple(values)) for ask, values in zip(plain, seeds, strict=True)]


def _chosen(value: float, among: tuple[float, ...] | None) -> bool:
    return among is None or value in among


def _plain(sweep: Sweep) -> Iterator[CellRequest]:
    design = sweep.design
    if isinstance(design, ListDesign):
        for cell in design.cells:
            yield CellRequest(
                cell.size,
                "tokens",
                cell.tokens,
                cell.seeds or sweep.seeds,
                settings=tuple(cell.settings.items()),
            )
    elif isinstance(design, EpochsDesign):
        for size in design.sizes:
            yield from (
                CellRequest(size, "tokens", amount, sweep.seeds, unique)
                for amount, unique in _repeats(design)
            )
    else:
        measure, amounts = _amounts(design)
        yield from (
            CellRequest(size, measure, amount, sweep.seeds)
            for size, amount in itertools.product(design.sizes, amounts)
        )


def _amounts(design: Any) -> tuple[str, tuple[float, ...]]:
    if isinstance(design, IsoflopDesign):
        return "flops", design.budgets
    return (
        ("tokens", design.tokens)
        if isinstance(design, GridDesign)
        else ("tokens_per_param", design.tokens_per_param)
    )


def _repeats(design: EpochsDesign) -> Iterator[tuple[float, float | None]]:
    """(D, U) of every limited corpus and number of epochs, and (D, None) of the same tokens all
    new.
    """
    repeated = [
        (unique * epochs, unique)
        for unique in design.unique_tokens
        for epochs in design.epochs
        if epochs > 1 or not design.fresh
    ]
    yield from repeated
    if design.fresh:
        yield from (
            (amount, None)
            for amount in sorted(
                {unique * epochs for unique in design.unique_tokens for epochs in design.epochs}
            )
        )


def check_axes(
    task: TaskConfig, axes: tuple[Axis, ...], cells: Iterable[tuple[tuple[str, Any], ...]] = ()
) -> None:
    """Raises ScalingError for an axis, or what a cell sets, of an unknown field, of words where
    numbers belong, or that stands twice.
    """
    fields = [axis.field for axis in axes]
    for axis in axes:
        _check_field(task, "axis", axis.field, axis.values, "axes")
    if len(set(fields)) < len(fields):
        raise ScalingError(
            f"an axis field stands twice: {', '.join(fields)}",
            where="axes",
            remedy="give each field one axis",
        )
    for field, value in dict.fromkeys(pair for cell in cells for pair in cell):
        _check_field(task, "setting", field, (value,), "design.cells")
        if field in fields:
            raise ScalingError(
                f"{field} is set by cells and by an axis",
                where="design.cells",
                remedy="leave out one of the two",
            )


def _check_field(
    task: TaskConfig, what: str, field: str, values: tuple[Any, ...], where: str
) -> None:
    own = [f"task.{name}" for name in type(task).model_fields if name not in NOT_VARIED]
    known = [f"model.{name}" for name in ModelConfig.model_fields] + [
        f"optim.{name}" for name in OptimConfig.model_fields
    ]
    known += [*own, "batch_size"]
    if field not in known:
        raise unknown_choice(f"{what} field", field, known, where=where)
    wrong = [value for value in values if isinstance(value, str) and field not in WORDS]
    if wrong:
        raise ScalingError(
            f"{what} {field} has the value {wrong[0]!r}, which is not a number",
            where=where,
            remedy="write numbers",
        )
    wrong = [
        value for value in values if field == "batch_size" and (type(value) is not int or value < 1)
    ]
    if wrong:
        raise ScalingError(
            f"{what} batch_size has the value {wrong[0]!r}, which is no number of sequences",
            where=where,
            remedy="write whole numbers from 1 on",
        )


def check_size(sweep: Sweep, requests: list[CellRequest]) -> None:
    """Raises ScalingError for more than MAX_CELLS cells."""
    count = sum(len(ask.seeds) for ask in requests)
    for axis in sweep.axes:
        count *= len(axis.values)
    if count > MAX_CELLS:
        raise ScalingError(
            f"the sweep has {count:,} cells, the limit is {MAX_CELLS:,}",
            remedy="thin out sizes, budgets, axes or seeds",
        )


def settings(sweep: Sweep) -> list[Settings]:
    """Every combination of the values of the axes, in order."""
    base = {
        part: getattr(sweep.base, part).model_dump(exclude_none=True) for part in ("model", "optim")
    }
    combinations = itertools.product(
        *([(axis.field, value) for value in axis.values] for axis in sweep.axes)
    )
    return [_settings(chosen, base, sweep.base.batch_size) for chosen in combinations]


def _settings(
    chosen: tuple[tuple[str, Any], ...], base: dict[str, dict[str, Any]], batch_size: Any
) -> Settings:
    """The base with the chosen values over it."""
    over: dict[str, dict[str, Any]] = {"task": {}} | {
        part: dict(each) for part, each in base.items()
    }
    for path, value in chosen:
        part, _, name = path.partition(".")
        if part in over:
            over[part][name] = value
    batch_size = dict(chosen).get("batch_size") or batch_size
    return Settings(
        chosen,
        over["model"],
        over["optim"],
        over["task"],
        batch_size,
        repr((over["model"], over["task"], batch_size)),
    )
