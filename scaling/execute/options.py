"""`RunOptions`: where and how the runs of a sweep are trained."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from scaling.config import Execution
from scaling.errors import ScalingError
from scaling.execute.events import OnEvent
from scaling.plan import Plan, PlannedRun
from scaling.plan.device_fit import to_cli_flags

OnMessage = Callable[[str], None]
Monitor = Callable[[Path, Plan, Sequence[PlannedRun]], AbstractContextManager[OnEvent]]


class Executor(StrEnum):
    """Where runs are trained."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how the runs of a sweep are trained; none of it changes what they compute.

    Args:
        executor: local processes, Ray, or an array of Slurm jobs.
        execution: mesh, micro-batch and rematerialisation of each run.
        workers: parallel training processes; default one per core, one per accelerator, what the
            Ray cluster can hold, or one element of a Slurm array.
        pack: runs of one model shape in one program, at most.
        hosts: hosts that train one run together, inside a Slurm job.
        max_runs, max_flops, max_seconds: budgets of this call; what is left can be run later.
        retries: of a run whose worker or device failed, from its checkpoint.
        fail_fast: stop at the first run that fails or diverges.
        simulate: "published:NAME": draw the losses from a law instead of training.
        allow_changes: go on although code, corpus, versions, threads or devices have changed.
        keep_weights: keep the parameters of finished runs.
        trackers: "wandb", "tensorboard", "mlflow".
        resources, ray_address, wait_for_nodes: of Ray, see `scaling.execute.ray`.
        slurm: options of sbatch; slurm_dry_run: make the batch script and submit nothing.
        source: where the sweep comes from, for error messages.
        on_event: called with each event of the runs; an exception in it ends the session.
        on_message: called with each warning or note; default: print to stderr.
        monitor: makes a context manager around each folder's training, whose value is called
            with each event (a progress display).

    Raises ScalingError for options that exclude one another, unknown laws and missing trackers.
    """

    executor: Executor = Executor.LOCAL
    execution: Execution = field(default_factory=Execution)
    workers: int | None = None
    pack: int = 1
    hosts: int = 1
    max_runs: int | None = None
    max_flops: float | None = None
    max_seconds: float | None = None
    retries: int = 2
    fail_fast: bool = False
    simulate: str | None = None
    allow_changes: bool = False
    keep_weights: bool = False
    trackers: tuple[str, ...] = ()
    resources: str | None = None
    ray_address: str | None = None
    wait_for_nodes: bool = False
    slurm: dict[str, str] = field(default_factory=dict)
    slurm_dry_run: bool = False
    source: str = ""
    on_event: OnEvent = lambda event: None
    on_message: OnMessage = lambda message: print(message, file=sys.stderr)  # noqa: T201
    monitor: Monitor = lambda folder, plan, runs: nullcontext(lambda event: None)

    def __post_init__(self) -> None:
        if self.trackers:
            from scaling.trackers import check

            check(self.trackers, "--track")
        simulated = self.simulate is not None
        conflicts = (
            (
                simulated and self.executor != Executor.LOCAL,
                "a simulated sweep needs no cluster",
                "leave out --executor",
            ),
            (
                simulated and self.keep_weights,
                "a simulated run has no weights",
                "leave out one of --keep-weights and --simulate",
            ),
            (
                self.hosts > 1 and self.keep_weights,
                f"weights that are spread over {self.hosts} hosts are not kept",
                "leave out --keep-weights, or train on the devices of one host",
            ),
            (
                self.pack > 1 and self.execution.mesh.n_devices > 1,
                f"a pack of {self.pack} runs and a mesh exclude each other",
                "leave out --pack or --mesh",
            ),
            (
                bool(self.slurm) and self.executor != Executor.SLURM,
                "--slurm is for Slurm",
                "add --executor slurm, or leave it out",
            ),
            (
                self.slurm_dry_run and self.executor != Executor.SLURM,
                "--dry-run shows the script of --executor slurm",
                "`scaling plan SWEEP` shows what would be trained",
            ),
            (
                self.executor != Executor.RAY
                and bool(self.resources or self.ray_address or self.wait_for_nodes),
                "--resources, --ray-address and --wait-for-nodes are for Ray",
                "add --executor ray, or leave them out",
            ),
            (
                self.hosts > 1
                and (
                    simulated or self.executor != Executor.LOCAL or "SLURM_JOB_ID" not in os.environ
                ),
                f"--hosts {self.hosts} is for the inside of a Slurm job",
                "use --executor slurm --slurm nodes=2",
            ),
        )
        for conflict, what, remedy in conflicts:
            if conflict:
                raise ScalingError(what, remedy=remedy)
        if self.simulate is not None:
            from scaling.execute.simulated import load_simulated_law

            load_simulated_law(self.simulate)

    def to_cli_flags(self) -> list[str]:
        """The options of `scaling run` that a process on another node takes over."""
        default = RunOptions()
        flags = to_cli_flags(self.execution, default.execution).split()
        for name in ("pack", "retries", "max_flops", "max_seconds", "max_runs"):
            if (value := getattr(self, name)) != getattr(default, name):
                flags += [f"--{name.replace('_', '-')}", str(value)]
        flags += [part for tracker in self.trackers for part in ("--track", tracker)]
        if self.fail_fast:
            flags.append("--fail-fast")
        if self.allow_changes:
            flags.append("--accept-changes")
        if self.keep_weights:
            flags.append("--keep-weights")
        return flags
