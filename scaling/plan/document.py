"""`PlanDocument`, which `scaling plan --json` prints, and `PlanFile`, plan.json of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from scaling import accounting
from scaling.config import Execution, RunConfig
from scaling.config.base import Document
from scaling.config.task import TextFacts
from scaling.plan import memory
from scaling.plan.device_fit import DeviceMemory, suggest_execution, to_cli_flags
from scaling.plan.plan import InfeasibleCell, Plan, PlannedRun
from scaling.warning import ResultWarning


@dataclass(frozen=True)
class Speed:
    """Seconds of a step measured at a few costs (FLOPs of a step, ascending), and the seconds to
    compile a shape.
    """

    flops: tuple[float, ...]
    seconds: tuple[float, ...]
    compile_seconds: float

    def step_seconds(self, flops: float) -> float:
        """Interpolated in log-log between the timed shapes; never less than the first, and beyond
        the last proportional to FLOPs.
        """
        log_seconds = np.interp(np.log(flops), np.log(self.flops), np.log(self.seconds))
        return float(np.exp(log_seconds)) * max(1.0, flops / self.flops[-1])

    def run_seconds(self, run: RunConfig, n_steps: int | None = None) -> float:
        """Training (all steps, or some) and evaluations (a third of a training token each)."""
        eval_steps = run.evals.points * run.evals.tokens / (3.0 * run.batch_tokens)
        n_steps = run.n_steps if n_steps is None else n_steps
        return self.step_seconds(step_flops(run)) * (n_steps + eval_steps)


def step_flops(run: RunConfig) -> float:
    """Exact FLOPs of one optimiser step."""
    return accounting.train_flops(run.model, run.task.seq_len, run.batch_tokens, "exact")


class RunEntry(Document):
    """A planned run. `seconds` is null without a probe; the last three fields are of a device."""

    run_id: str
    n_params: int
    n_params_with_head: int
    n_params_nonembedding: int
    n_layers: int
    d_model: int
    tokens: int
    tokens_per_param: float
    flops: float
    batch_tokens: int
    lr: float
    n_steps: int
    seed: int
    seconds: float | None
    memory_bytes: int
    n_params_active: int
    fits: bool | None = None
    remedy: str | None = None
    device_memory_bytes: int | None = None


class PlanDocument(Document):
    """A plan: its runs, infeasible cells and totals. `flops` counts shared prefixes once."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    sweep: str
    question: str
    runs: tuple[RunEntry, ...]
    infeasible: tuple[InfeasibleCell, ...]
    merged: int
    warnings: tuple[ResultWarning, ...]
    flops: float
    flops_alone: float
    shared_prefixes: int
    workers: int
    seconds: float | None
    wall_seconds: float | None
    device: str | None = None
    expected: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; without a device its fields are absent."""
        document = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return {"schema": self.schema_version, **document}


class ParamCounts(Document):
    """Parameters of a run by convention; plans of older versions lack `active`."""

    with_head: int
    total: int
    nonembedding: int
    active: int | None = None


class PlannedRunEntry(Document):
    """A planned run of a folder."""

    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    n_params: ParamCounts
    tokens: int
    flops: float
    seed: int


class RunOrigin(Document):
    """What runs are trained by: digests of corpus and code, versions, flags of XLA, or the
    simulated law.
    """

    corpus: str | None = None
    simulated: str | None = None
    code: str | None = None
    versions: dict[str, str] | None = None
    xla_flags: str | None = None
    text: TextFacts | None = None


class PlanFile(RunOrigin):
    """plan.json of a sweep's folder: the runs by which it explains itself without the corpus;
    `flops` counts shared prefixes once.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    sweep: str
    runs: tuple[PlannedRunEntry, ...]
    infeasible: tuple[InfeasibleCell, ...]
    flops: float | None = None


def plan_file(plan: Plan, origin: RunOrigin) -> PlanFile:
    """The file of a plan whose runs are trained by `origin`."""
    return PlanFile(
        sweep=plan.sweep.name,
        runs=tuple(
            PlannedRunEntry(
                run_id=item.run_id,
                n_params=ParamCounts(**item.n_params),
                tokens=item.run.tokens,
                flops=item.flops,
                seed=item.run.seed,
            )
            for item in plan.runs
        ),
        infeasible=plan.infeasible,
        flops=plan.shared_flops,
        **origin.model_dump(),
    )


def plan_document(
    plan: Plan,
    speed: Speed | None,
    workers: int,
    *,
    execution: Execution | None = None,
    device: DeviceMemory | None = None,
    expected: dict[str, Any] | None = None,
) -> PlanDocument:
    """The document of a plan: seconds by `speed`, memory under `execution`, fit to `device`."""
    execution = execution or Execution()
    runs = tuple(_run_entry(item, speed, execution, device) for item in plan.runs)
    shapes = len({(item.run.model, item.run.batch_size) for item in plan.runs})
    seconds = wall_seconds = None
    if speed:
        steps = [pair for group in plan.groups for pair in group.incremental_steps()]
        seconds = sum(speed.run_seconds(run, n_steps) for run, n_steps in steps)
        seconds += shapes * speed.compile_seconds
        longest = max((entry.seconds or 0.0 for entry in runs), default=0.0)
        wall_seconds = max(seconds / workers, longest)
    optional: dict[str, Any] = {"device": device.name} if device else {}
    if expected is not None:
        optional["expected"] = expected
    return PlanDocument(
        sweep=plan.sweep.name,
        question=plan.sweep.question,
        runs=runs,
        infeasible=plan.infeasible,
        merged=plan.merged,
        warnings=plan.warnings,
        flops=plan.shared_flops,
        flops_alone=plan.flops,
        shared_prefixes=sum(bool(group.branches) for group in plan.groups),
        workers=workers,
        seconds=seconds,
        wall_seconds=wall_seconds,
        **optional,
    )


def _run_entry(
    planned: PlannedRun,
    speed: Speed | None,
    execution: Execution,
    device: DeviceMemory | None,
) -> RunEntry:
    run, fit = planned.run, dict[str, Any]()
    if device is None:
        memory_bytes = memory.estimate(run, execution).total
    else:
        memory_bytes = device.required_bytes(run, execution)
        fits = memory_bytes <= device.capacity_bytes
        chosen = None if fits else suggest_execution([run], execution, device)
        fit = {
            "fits": fits,
            "remedy": to_cli_flags(chosen, execution) if chosen else None,
            "device_memory_bytes": device.capacity_bytes,
        }
    return RunEntry(
        run_id=planned.run_id,
        n_params=planned.n_params["total"],
        n_params_with_head=planned.n_params["with_head"],
        n_params_nonembedding=planned.n_params["nonembedding"],
        n_params_active=planned.n_params["active"],
        n_layers=run.model.n_layers,
        d_model=run.model.d_model,
        tokens=run.tokens,
        tokens_per_param=run.tokens / planned.n_params["active"],
        flops=planned.flops,
        batch_tokens=run.batch_tokens,
        lr=run.optim.lr,
        n_steps=run.n_steps,
        seed=run.seed,
        seconds=speed.run_seconds(run) if speed else None,
        memory_bytes=memory_bytes,
        **fit,
    )
