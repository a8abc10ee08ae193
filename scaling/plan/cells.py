"""What a sweep asks for: its sizes and amounts one by one, with the values of its axes and the
seeds of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from scaling.config import (
    Base,
    EpochsDesign,
    GridDesign,
    IsoflopDesign,
    ListDesign,
    ModelConfig,
    OptimConfig,
    Sweep,
    TaskConfig,
)
from scaling.config.base import validation_messages
from scaling.errors import ScalingError, unknown_choice
from scaling.formatting import format_count, format_flops

Measure = Literal["flops", "tokens", "tokens_per_param"]
# of a task: a sweep asks one question of one corpus
NOT_VARIED = {"kind", "corpus", "digest", "unique_tokens"}


@dataclass(frozen=True)
class CellRequest:
    """A size, and one of a budget (FLOPs), tokens, or tokens per parameter; the unique tokens it
    may use; its seeds; the values of the axes and what it alone sets, by field.
    """

    size: float
    measure: Measure
    amount: float
    seeds: tuple[int, ...]
    unique: float | None = None
    settings: tuple[tuple[str, Any], ...] = ()

    def describe(self, seed: int) -> str:
        """The cell as a plan shows it."""
        amount = (
            f"C = {format_flops(self.amount)}"
            if self.measure == "flops"
            else f"{self.measure} = {format_count(self.amount)}"
        )
        extra = "".join(f", {field} = {value}" for field, value in self.settings)
        return f"N = {format_count(self.size)}, {amount}{extra}, seed {seed}"


def expand_design(sweep: Sweep) -> list[CellRequest]:
    """Every size and amount of the design with its seeds, before the axes. Raises ScalingError for
    replicates of a cell that is not there.
    """
    requests = list(_without_replicates(sweep))
    for index, more in enumerate(sweep.replicates):
        is_known = False
        for position, request in enumerate(requests):
            has_size = more.sizes is None or request.size in more.sizes
            if has_size and (more.amounts is None or request.amount in more.amounts):
                is_known = True
                requests[position] = replace(request, seeds=request.seeds + more.seeds)
        if not is_known:
            raise ScalingError(
                "no cell of the design has these sizes and amounts",
                where=f"replicates[{index}]",
                remedy="write them as the design does, or leave one of them out for all",
            )
    return [replace(request, seeds=tuple(dict.fromkeys(request.seeds))) for request in requests]


def _without_replicates(sweep: Sweep) -> Iterator[CellRequest]:
    design, seeds = sweep.design, sweep.seeds
    if isinstance(design, ListDesign):
        for cell in design.cells:
            settings = tuple(cell.settings.items())
            yield CellRequest(
                cell.size, "tokens", cell.tokens, cell.seeds or seeds, settings=settings
            )
        return
    measure: Measure = "tokens"
    amounts: list[tuple[float, float | None]]  # with the unique tokens where these are limited
    if isinstance(design, EpochsDesign):
        pairs = list(itertools.product(design.unique_tokens, design.epochs))
        amounts = [(u * n, u) for u, n in pairs if n > 1 or not design.fresh]
        if design.fresh:  # and the same tokens, all new
            amounts += [(amount, None) for amount in sorted({u * n for u, n in pairs})]
    elif isinstance(design, IsoflopDesign):
        measure, amounts = "flops", [(budget, None) for budget in design.budgets]
    elif isinstance(design, GridDesign):
        amounts = [(tokens, None) for tokens in design.tokens]
    else:
        measure = "tokens_per_param"
        amounts = [(ratio, None) for ratio in design.tokens_per_param]
    for size, (amount, unique) in itertools.product(design.sizes, amounts):
        yield CellRequest(size, measure, amount, seeds, unique)


def check_settings(sweep: Sweep, task: TaskConfig, requests: Sequence[CellRequest]) -> None:
    """Raises ScalingError for an axis, or what a cell sets, of an unknown field, with a value that
    the field cannot take, or that stands twice.
    """
    names = [axis.field for axis in sweep.axes]
    chosen = [("axis", "axes", axis.field, value) for axis in sweep.axes for value in axis.values]
    pairs = dict.fromkeys(pair for request in requests for pair in request.settings)
    chosen += [("setting", "design.cells", *pair) for pair in pairs]
    known = [f"model.{name}" for name in ModelConfig.model_fields]
    known += [f"optim.{name}" for name in OptimConfig.model_fields]
    known += [f"task.{name}" for name in type(task).model_fields if name not in NOT_VARIED]
    known += ["batch_size"]
    for what, where, field, value in chosen:
        if field not in known:
            raise unknown_choice(f"{what} field", field, known, where=where)
        problem, remedy = "", "give each field one axis"
        table, _, name = field.rpartition(".")
        changed: dict[str, Any] = {table: {name: value}} if table else {name: value}
        changed["task"] = task.model_dump() | changed.get("task", {})
        try:
            Base.model_validate(changed)
        except ValidationError as error:
            problem = f"{what} {validation_messages(error)}, not {value!r}"
            remedy = "docs/sweep-files.md lists every key with its range"
        if not problem and what == "setting" and field in names:
            problem = f"{field} is set by cells and by an axis"
            remedy = "leave out one of the two"
        elif not problem and len(set(names)) < len(names):
            problem = f"an axis field stands twice: {', '.join(names)}"
        if problem:
            raise ScalingError(problem, where=where, remedy=remedy)
