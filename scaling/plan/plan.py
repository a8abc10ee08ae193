"""The plan: all runs of a sweep in order of cost, and what it refuses."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from scaling import accounting
from scaling.config import RunConfig, Sweep, TaskConfig
from scaling.config.base import Document
from scaling.config.run_groups import RunGroup, gc_paused, group_runs
from scaling.errors import ScalingError
from scaling.plan.build import PlannedRun, RunBuilder
from scaling.plan.cells import check_axes, expand_design, settings
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
        models = {id(planned.run.model): planned.run for planned in self.runs}
        a_token = {
            key: accounting.train_flops(run.model, run.task.seq_len, 1, "exact")
            for key, run in models.items()
        }
        steps = (pair for group in self.groups for pair in group.incremental_steps())
        return sum(a_token[id(run.model)] * (n * run.batch_tokens) for run, n in steps)


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
    check_axes(task, sweep.axes, (request.settings for request in requests))
    runs: dict[str, PlannedRun] = {}
    infeasible: list[InfeasibleCell] = []
    merged = 0
    builder = RunBuilder(sweep, task, vocab_size, simulated)
    for request, shared in itertools.product(requests, settings(sweep)):
        chosen = shared.over(request.settings)
        try:
            planned_runs = builder.runs_of_cell(request, chosen)
        except ScalingError as error:
            for seed in request.seeds:
                cell = request.describe(chosen.chosen, seed)
                infeasible.append(InfeasibleCell(cell=cell, reason=error.what))
            continue
        for planned in planned_runs:
            merged += planned.run_id in runs
            runs[planned.run_id] = planned
    if not runs:
        raise EmptyPlan("; ".join(dict.fromkeys(cell.reason for cell in infeasible)))
    ordered = sorted(
        runs.values(),
        key=lambda planned: (
            float(f"{planned.flops:.2g}"),
            planned.n_params["total"],
            planned.run_id,
        ),
    )
    warnings = tuple(_one_per_rule(builder.range_warnings))
    extensions: tuple[RunConfig, ...] = ()
    if (extended := _extended(sweep)) is not None:
        with contextlib.suppress(EmptyPlan):
            longer = plan(extended, task, vocab_size, simulated).runs
            extensions = tuple(item.run for item in longer if item.run_id not in runs)
    return Plan(sweep, tuple(ordered), tuple(infeasible), merged, warnings, extensions)


def _extended(sweep: Sweep) -> Sweep | None:
    """The sweep of the amounts that may be added later, if it names any."""
    amounts = getattr(sweep.design, "extend_to", None)
    if amounts is None:
        return None
    names = {"isoflop": "budgets", "grid": "tokens", "ladder": "tokens_per_param"}
    changes = {"extend_to": None, names[sweep.design.kind]: amounts}
    replicates = tuple(more for more in sweep.replicates if more.amounts is None)
    design = sweep.design.model_copy(update=changes)
    return sweep.model_copy(update={"design": design, "replicates": replicates})


def _one_per_rule(counts: Counter[str]) -> Iterator[ResultWarning]:
    """One warning per rule, with the first of its cells and how many there are."""
    rules: dict[str, list[str]] = {}
    for text in counts:
        rules.setdefault(text.split(":")[0], []).append(text)
    for rule, texts in rules.items():
        more = f", and {len(texts) - 1} more" if len(texts) > 1 else ""
        yield warn(WarningCode.OUTSIDE_RULE_RANGE, f"{texts[0]}{more}", rule=rule)
