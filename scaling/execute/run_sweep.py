"""`run_sweep`: everything that `scaling run` does with a sweep, as one function for Python."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from scaling import tuning
from scaling.config import Sweep
from scaling.config.run_groups import constant_lr_eval_steps, later_groups
from scaling.errors import RUNS_FAILED, STOPPED
from scaling.execute import slurm
from scaling.execute.coordinator import ExecutionPlan, SessionEnd, Stop, StopReason
from scaling.execute.devices import check_devices, resolve_workers
from scaling.execute.events import RunEvent
from scaling.execute.local import Launcher, LocalLauncher
from scaling.execute.options import Executor, RunOptions
from scaling.execute.packing import choose_packing
from scaling.execute.planning import (
    errors_name_file,
    load_tuned_rules,
    make_plan,
    with_eval_sets,
)
from scaling.execute.session import SweepSession, origin
from scaling.execute.signals import Signals
from scaling.execute.status import Status, read_status
from scaling.execute.sweep_folder import SweepFolder
from scaling.plan import Plan
from scaling.plan.device_fit import DeviceMemory
from scaling.tasks import open_task, resolve
from scaling.tuning import TuningResult

TUNED_FILE = "tuned.toml"


@dataclass(frozen=True, kw_only=True)
class SlurmArray:
    """An array of Slurm jobs; `job_id` is None where it was not submitted."""

    script: str
    elements: int
    job_id: str | None = None
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class TuneOutcome:
    """The result of a tuning and the tuned sweep, or the outcome that stopped it."""

    sweep: Sweep
    result: TuningResult | None = None
    stopped: SweepOutcome | None = None


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
    trainer = SweepTrainer(replace(options, keep_weights=False))
    if tuning.is_pending(sweep):
        tuned = _tune(sweep, folder, trainer, None)
        if tuned.stopped is not None:
            return tuned.stopped
        assert tuned.result is not None
        for entry in tuned.result.fields:
            rule = entry.rule
            text = (
                f"{rule.coef:.3g} x N^{rule.n_power:.3f}"
                if rule.kind == "power"
                else f"{rule.ratio:.3g} x the recipe's rule"
            )
            source = folder.path / "tuning.json"
            options.on_message(f"tuned {entry.field} = {text}, {entry.runs} runs ({source})")
        sweep = tuned.sweep
    trainer.options = options
    plan = make_plan(
        sweep, source=options.source, simulated=options.simulate, on_message=options.on_message
    )
    end = trainer.train(folder, plan)
    return SweepOutcome(sweep=sweep, folder=folder, counts=end.counts, stop=end.stop)


def tune_sweep(
    sweep: Sweep, folder: SweepFolder | Path, options: RunOptions, emit: Path | None = None
) -> TuneOutcome:
    """Measure what the [[tuning]] tables of a sweep ask for, and write tuning.json and the tuned
    sweep file (`emit`; default FOLDER/tuned.toml).
    """
    folder = folder if isinstance(folder, SweepFolder) else SweepFolder(folder)
    return _tune(sweep, folder, SweepTrainer(options), emit)


class _TuningStopped(Exception):
    """Training of a tuning stage stopped early, with all states saved."""

    def __init__(self, folder: SweepFolder, end: SessionEnd, stop: Stop) -> None:
        super().__init__(stop.message)
        self.folder, self.counts, self.stop = folder, end.counts, stop


def _tune(
    sweep: Sweep, folder: SweepFolder, trainer: SweepTrainer, emit_to: Path | None
) -> TuneOutcome:
    options = trainer.options

    def train(path: Path, plan: Plan) -> None:
        stage = SweepFolder(path)
        end = trainer.train(stage, plan)
        stop = end.stop
        if stop is None and end.runs_left:
            stop = Stop(StopReason.MAX_RUNS, f"--max-runs {options.max_runs}", STOPPED)
        if stop is not None:
            raise _TuningStopped(stage, end, stop)

    folder.check_same_sweep(sweep, options.simulate)
    try:
        with errors_name_file(options.source):
            task = resolve(sweep.base.task)
            sweep = with_eval_sets(sweep)
            planner = tuning.planner(task, open_task(task).vocab_size, options.simulate)
            tuned = tuning.tune(sweep, planner, folder.path, train, options.simulate)
    except _TuningStopped as stopped:
        outcome = SweepOutcome(
            sweep=sweep,
            folder=stopped.folder,
            counts=stopped.counts,
            stop=stopped.stop,
            in_tuning=True,
        )
        return TuneOutcome(sweep=sweep, stopped=outcome)
    plan = make_plan(
        tuned.sweep,
        source=options.source,
        simulated=options.simulate,
        on_message=options.on_message,
    )
    result = tuning.tuning_result(tuned, plan.shared_flops)
    result.save(folder.path)
    tuning.write_tuned_sweep(emit_to or folder.path / TUNED_FILE, tuned.sweep)
    for warning in result.warnings:
        options.on_message(f"warning: {warning}")
    return TuneOutcome(sweep=tuned.sweep, result=result)


@dataclass
class SweepTrainer:
    """Trains the plans of one or several folders under the budgets of one `RunOptions`."""

    options: RunOptions
    began: float | None = None
    runs: int = 0
    flops: float = 0.0

    def train(self, folder: SweepFolder, plan: Plan) -> SessionEnd:
        """Train what `folder` lacks of a plan, as far as the budgets reach."""
        from scaling.execute.tracking import LiveTrackers

        options = self.options
        with contextlib.closing(_make_launcher(folder, options)) as launcher:
            slots = launcher.slots()
            count = (
                resolve_workers(options.workers, options.execution)
                if slots is None
                else options.workers or max(1, slots)
            )
            session = SweepSession(
                folder,
                plan,
                options.on_message,
                options.simulate,
                options.allow_changes,
                workers_here=options.executor != Executor.RAY,
            )
            device = None
            if options.simulate is None and options.executor == Executor.LOCAL:
                unfinished = [item for item in plan.runs if not folder.is_finished(item.run_id)]
                device = check_devices(unfinished, options.execution, count, options.hosts)
            with Signals() as signals, session.lease as lease:
                missing = session.prepare()
                limit = None if options.max_runs is None else options.max_runs - self.runs
                chosen = missing[:limit]
                launcher.attach(lease, count)
                self.began = self.began or time.monotonic()
                with options.monitor(folder.path, plan, chosen) as display:

                    def on_event(event: RunEvent) -> None:
                        display(event)
                        options.on_event(event)

                    name, kinds = plan.sweep.name, options.trackers
                    trackers = LiveTrackers(kinds, folder.path, name, chosen, on_event, signals)
                    end = SessionEnd()
                    if chosen:
                        execution = self._execution_plan(plan, count, device)
                        with trackers:
                            end = session.train(
                                chosen, execution, launcher, signals, trackers.handle
                            )
        self.runs += len(chosen)
        self.flops += end.flops
        return replace(end, runs_left=len(missing) - len(chosen))

    def _execution_plan(self, plan: Plan, count: int, device: DeviceMemory | None) -> ExecutionPlan:
        options, runs = self.options, [item.run for item in plan.runs]
        return ExecutionPlan(
            options=options,
            workers=count,
            packing=choose_packing(options.pack, options.execution, device),
            planned={item.run_id: item.run for item in plan.runs},
            eval_steps=constant_lr_eval_steps(runs),
            later=later_groups(runs, plan.later),
            flops_before=self.flops,
            seconds_before=time.monotonic() - self.began if self.began else 0.0,
        )


def _make_launcher(folder: SweepFolder, options: RunOptions) -> Launcher:
    """The launcher of an executor. Raises ScalingError for a cluster that does not answer."""
    if options.simulate is not None:
        from scaling.execute.simulated import SimulatedLauncher

        return SimulatedLauncher(folder)
    if options.executor == Executor.RAY:
        from scaling.execute.ray import RayLauncher, Resources, parse_resources

        return RayLauncher(
            folder.path,
            parse_resources(options.resources) if options.resources else Resources(),
            hosts=options.hosts,
            address=options.ray_address,
            wait_for_nodes=options.wait_for_nodes,
            notice=options.on_message,
        )
    if options.hosts == 1:
        return LocalLauncher(folder.path)
    prefix, arguments = slurm.launch_prefix(options.hosts), ("--coordinator", "auto")
    return LocalLauncher(folder.path, prefix=prefix, arguments=arguments)


def _submit(sweep: Sweep, folder: SweepFolder, options: RunOptions) -> SweepOutcome:
    """Hand an array of jobs to Slurm, each of which is `scaling run` on the same folder."""
    plan = make_plan(sweep, source=options.source, on_message=options.on_message)
    hosts = slurm.nodes(options.slurm)
    forwarded = _forwarded_options(options) + (["--hosts", str(hosts)] if hosts > 1 else [])
    job = slurm.Job(
        name=sweep.name,
        folder=folder.path,
        elements=options.workers or 1,
        settings=options.slurm,
        options=tuple(forwarded),
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


def _forwarded_options(options: RunOptions) -> list[str]:
    """The options of `scaling run` that each element of a Slurm array takes over."""
    from scaling.plan.device_fit import to_cli_flags

    default = RunOptions()
    flags = to_cli_flags(options.execution, default.execution).split()
    for name in ("pack", "retries", "max_flops", "max_seconds", "max_runs"):
        value = getattr(options, name)
        if value != getattr(default, name):
            flags += [f"--{name.replace('_', '-')}", str(value)]
    flags += [part for tracker in options.trackers for part in ("--track", tracker)]
    if options.fail_fast:
        flags.append("--fail-fast")
    if options.allow_changes:
        flags.append("--accept-changes")
    if options.keep_weights:
        flags.append("--keep-weights")
    return flags
