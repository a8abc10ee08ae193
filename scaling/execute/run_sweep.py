"""`run_sweep`: everything that `scaling run` does with a sweep, as one function for Python."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.config import Sweep
from scaling.errors import RUNS_FAILED
from scaling.execute.coordinator import Coordinator, Stop, StopReason
from scaling.execute.events import OnEvent, RunEvent
from scaling.execute.lease import Lease
from scaling.execute.local import Worker, WorkerEvents, local_launcher
from scaling.execute.machine import check_devices, resolve_workers
from scaling.execute.options import Executor, RunOptions
from scaling.execute.planning import (
    errors_name_file,
    load_tuned_rules,
    make_plan,
    resolved,
)
from scaling.execute.prepare_folder import compact_many, origin, prepare
from scaling.execute.signals import Signals
from scaling.execute.status import Status, read_status
from scaling.execute.sweep_folder import SweepFolder
from scaling.plan import Plan

if TYPE_CHECKING:
    from scaling.tuning.document import TuningResult

TUNED_FILE = "tuned.toml"


@dataclass(frozen=True, kw_only=True)
class SlurmArray:
    """An array of Slurm jobs; `job_id` is None where it was not submitted."""

    script: str
    elements: int
    job_id: str | None = None
    path: Path | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepOutcome:
    """How a call of `run_sweep` ended.

    Args:
        sweep: the sweep with its measured rules.
        folder: what was trained last: the sweep's folder, or the stage of its tuning that was
            stopped (then `in_tuning`).
        counts: runs that ended in this session, by outcome.
        stop: why it stopped before all was trained.
        array: the Slurm jobs that will train the sweep.
    """

    sweep: Sweep
    folder: SweepFolder
    counts: dict[str, int] = field(default_factory=dict)
    stop: Stop | None = None
    in_tuning: bool = False
    array: SlurmArray | None = None

    def __repr__(self) -> str:
        ended = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        return f"<SweepOutcome of {self.folder.path}: {ended or 'no run ended'}>"

    @property
    def status(self) -> Status:
        """The status of every run of the folder, read now."""
        return read_status(self.folder)

    @property
    def exit_code(self) -> int:
        """The exit code of the CLI contract; reads the folder's status."""
        if self.stop and (
            self.in_tuning or self.stop.reason in (StopReason.SIGNAL, StopReason.DISK)
        ):
            return self.stop.exit_code
        if self.array is None and self.status.counts.failed:
            return RUNS_FAILED
        return self.stop.exit_code if self.stop else 0


class TuningStopped(Exception):
    """Training of a tuning stage stopped early, with all states saved."""

    def __init__(self, outcome: SweepOutcome) -> None:
        super().__init__()
        self.outcome = outcome


def run_sweep(sweep: Sweep, folder: SweepFolder | Path, options: RunOptions) -> SweepOutcome:
    """Train what a folder lacks of a sweep, after measuring the rules that the sweep asks for.

    Safe to call again, and from several processes at once: finished runs are kept, unfinished ones
    continue from their checkpoints. A first Ctrl-C or SIGTERM saves all states.

    Raises ScalingError, before anything is trained, for a sweep, folder or machine that does not
    fit.
    """
    folder = folder if isinstance(folder, SweepFolder) else SweepFolder(folder)
    if options.executor == Executor.SLURM:
        return _submit(load_tuned_rules(sweep, folder, simulated=options.simulate), folder, options)
    from scaling.tuning.fields import is_pending

    trainer = SweepTrainer(replace(options, keep_weights=False))
    if is_pending(sweep):
        try:
            result = tune_sweep(sweep, folder, trainer.options, trainer=trainer)
        except TuningStopped as stopped:
            return stopped.outcome
        for entry in result.fields:
            rule = entry.rule
            text = rule.formula if rule.kind == "power" else f"{rule.ratio:.3g} x the recipe's rule"
            source = folder.path / "tuning.json"
            options.on_message(f"tuned {entry.field} = {text}, {entry.runs} runs ({source})")
        sweep = result.tuned_sweep
    trainer.options = options
    return trainer.train(folder, _plan(sweep, options))


def tune_sweep(
    sweep: Sweep,
    folder: SweepFolder | Path,
    options: RunOptions,
    emit: Path | None = None,
    *,
    trainer: SweepTrainer | None = None,
) -> TuningResult:
    """Measure what the [[tuning]] tables of a sweep ask for, and write tuning.json and the tuned
    sweep file (`emit`; default FOLDER/tuned.toml). A `trainer` goes on with its budgets. Raises
    TuningStopped.
    """
    from scaling.tuning.document import write_tuned_sweep
    from scaling.tuning.tune import tune

    folder = folder if isinstance(folder, SweepFolder) else SweepFolder(folder)
    trainer, asked = trainer or SweepTrainer(options), sweep

    def train(path: Path, planned: Plan) -> None:
        outcome = trainer.train(SweepFolder(path), planned)
        stop = outcome.stop
        if stop is None and outcome.status.counts.missing:
            stop = Stop(StopReason.MAX_RUNS, f"--max-runs {options.max_runs}")
        if stop is not None:
            raise TuningStopped(replace(outcome, sweep=asked, stop=stop, in_tuning=True))

    folder.check_same_sweep(sweep, options.simulate)
    with errors_name_file(options.source):
        sweep, _, planned = resolved(sweep, options.simulate)
        result = tune(sweep, planned, folder.path, train, options.simulate)
    result.save(folder.path)
    write_tuned_sweep(emit or folder.path / TUNED_FILE, result.tuned_sweep)
    for warning in result.warnings:
        options.on_message(f"warning: {warning}")
    return result


def _plan(sweep: Sweep, options: RunOptions) -> Plan:
    return make_plan(
        sweep, source=options.source, simulated=options.simulate, on_message=options.on_message
    )


@dataclass
class SweepTrainer:
    """Trains the plans of one or several folders under the budgets of one `RunOptions`."""

    options: RunOptions
    began: float | None = None
    runs: int = 0
    flops: float = 0.0

    def train(self, folder: SweepFolder, plan: Plan) -> SweepOutcome:
        """Train what `folder` lacks of a plan, as far as the budgets reach."""
        options, simulated = self.options, self.options.simulate
        count = 1 if simulated else resolve_workers(options.workers, options.execution)
        counts, stop, cluster = Counter[str](), None, None
        with contextlib.ExitStack() as stack:
            if options.executor == Executor.RAY:
                from scaling.execute.ray import RayCluster

                cluster = stack.enter_context(contextlib.closing(RayCluster(options)))
            elif simulated is None:
                unfinished = [item for item in plan.runs if not folder.is_finished(item.run_id)]
                check_devices(unfinished, options.execution, count, options.hosts)
            signals = stack.enter_context(Signals())
            lease = stack.enter_context(Lease(folder.path))
            missing = prepare(
                folder,
                plan,
                lease,
                options.on_message,
                simulated=simulated,
                allow_changes=options.allow_changes,
            )
            chosen = missing
            if options.max_runs is not None and cluster is None:
                chosen = missing[: options.max_runs - self.runs]
            self.began = self.began or time.monotonic()
            display = stack.enter_context(options.monitor(folder.path, plan, chosen))

            def show(event: RunEvent) -> None:
                display(event)
                options.on_event(event)

            if chosen and cluster is not None:
                run_ids = {item.run_id for item in chosen}
                stop = cluster.train(folder.path, len(chosen), signals)
                ended = [run.status for run in read_status(folder).runs if run.run_id in run_ids]
                counts.update(kind for kind in ended if kind in ("done", "failed"))
            elif chosen:
                start: Callable[[WorkerEvents], Worker]
                start = local_launcher(folder.path, lease, count, options.hosts)
                if simulated:
                    from scaling.execute.simulated import SimulatedWorker

                    start = partial(SimulatedWorker, folder)
                on_event: OnEvent = show
                for kind in dict.fromkeys(options.trackers):
                    from scaling.execute.tracking import track

                    on_event = stack.enter_context(track(kind, folder.path, on_event, signals))
                left, seconds = options.max_flops, options.max_seconds
                coordinator = Coordinator(
                    folder=folder,
                    plan=plan,
                    runs=chosen,
                    options=options,
                    lease=lease,
                    signals=signals,
                    on_event=on_event,
                    start=start,
                    workers=count,
                    deadline=None if seconds is None else self.began + seconds,
                    flops_left=None if left is None else left - self.flops,
                )
                coordinator.run()
                counts, stop = coordinator.progress.counts, coordinator.stop
                self.flops += coordinator.progress.flops_trained
            compact_many(folder.path, lease)
        self.runs += len(chosen)
        return SweepOutcome(sweep=plan.sweep, folder=folder, counts=counts, stop=stop)


def _submit(sweep: Sweep, folder: SweepFolder, options: RunOptions) -> SweepOutcome:
    """Hand an array of jobs to Slurm, each of which is `scaling run` on the same folder."""
    from scaling.execute import slurm

    plan = _plan(sweep, options)
    hosts = slurm.nodes(options.slurm)
    job = slurm.Job(
        name=sweep.name,
        folder=folder.path,
        elements=options.workers or 1,
        settings=options.slurm,
        options=(*options.to_cli_flags(), *(["--hosts", str(hosts)] if hosts > 1 else [])),
    )
    script = slurm.script(job)
    array = SlurmArray(script=script, elements=job.elements)
    if not options.slurm_dry_run:
        slurm.find_sbatch()  # before anything is written
        folder.check_same_sweep(sweep)
        folder.write_plan(plan, origin(plan))
        job_id = slurm.submit(folder.path, script)
        array = replace(array, job_id=job_id, path=folder.path / slurm.SCRIPT)
    return SweepOutcome(sweep=sweep, folder=folder, array=array)
