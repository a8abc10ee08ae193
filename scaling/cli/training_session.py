"""How one command trains the plans of one or several folders: the verbs `run` and `tune` share their options and their budgets."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.device_options import check
from scaling.cli.execution_options import packing
from scaling.cli.executor_options import default_engine_workers, launcher
from scaling.cli.output import echo_err
from scaling.errors import DISK, STOPPED

if TYPE_CHECKING:
    from scaling.config import Execution
    from scaling.execute.coordinator import ExecutionPlan, Policy, SweepOutcome
    from scaling.execute.sweep_folder import SweepFolder
    from scaling.plan import Plan, PlannedRun

MaxRuns = Annotated[
    int | None, typer.Option("--max-runs", min=1, help="Train at most this many runs now.")
]
Simulate = Annotated[
    str | None,
    typer.Option(
        metavar="published:NAME",
        help="Train nothing: draw the losses from a published law, to rehearse a sweep.",
    ),
]


def checked_law(simulate: str | None) -> str | None:
    """The law to simulate, checked before anything is planned."""
    if simulate is not None:
        from scaling.execute.simulated import check_law

        check_law(simulate)
    return simulate


@dataclass(frozen=True)
class TrainOptions:
    """The options of a command that trains, as they were given."""

    executor: str
    simulate: str | None
    how: Execution
    policy: Policy
    pack: str = "auto"
    workers: int | None = None
    max_runs: int | None = None
    hosts: int = 1
    resources: str | None = None
    ray_address: str | None = None
    wait_for_nodes: bool = False
    accept_changes: bool = False
    as_json: bool = False
    track: tuple[str, ...] = ()
    keep_weights: bool = False
    as_csv: bool = False


@dataclass
class Training:
    """One command at work. Its budgets (runs, FLOPs, seconds) hold for everything it trains, in whatever folder."""

    options: TrainOptions
    begun: float | None = None
    runs: int = 0
    flops: float = 0.0
    left: int = 0

    def train(self, folder: SweepFolder, plan: Plan) -> SweepOutcome | None:
        """Train what `folder` lacks of a plan, as far as the budgets reach; None where nothing is missing.

        `left` counts the runs that --max-runs keeps from beginning.
        """
        from scaling.cli.progress import Display
        from scaling.execute.session import SweepSession
        from scaling.execute.signals import Signals
        from scaling.trackers.live import LiveTrackers

        options = self.options
        engine = launcher(
            options.executor,
            folder,
            hosts=options.hosts,
            resources=options.resources,
            address=options.ray_address,
            wait=options.wait_for_nodes,
            simulated=options.simulate,
        )
        count = default_engine_workers(options.workers, options.how, engine)
        sitting = SweepSession(
            folder,
            plan,
            echo_err,
            options.simulate,
            options.accept_changes,
            workers_here=options.executor != "ray",
        )
        if options.simulate is None and options.executor == "local":
            check(
                [item for item in plan.runs if not folder.is_finished(item.run_id)],
                options.how,
                count,
                options.hosts,
            )
        with Signals() as signals, sitting.lease:
            missing = sitting.settle()
            chosen = missing[: None if options.max_runs is None else options.max_runs - self.runs]
            manner = self._manner(folder, plan, chosen, count)
            self.begun = self.begun or time.monotonic()
            with (
                Display(
                    folder.path, plan, chosen, to_stderr=options.as_json or options.as_csv
                ) as display,
                LiveTrackers(
                    options.track, folder.path, plan.sweep.name, chosen, display.observe, signals
                ) as live,
            ):
                ended = (
                    sitting.train(chosen, manner, engine.open(count), signals, live.observe)
                    if chosen
                    else None
                )
        self.runs, self.flops, self.left = (
            self.runs + len(chosen),
            self.flops + display.tracker.flops_here,
            len(missing) - len(chosen),
        )
        return ended

    def _manner(
        self, folder: SweepFolder, plan: Plan, chosen: list[PlannedRun], count: int
    ) -> ExecutionPlan:
        from scaling.config.run_groups import constant_lr_eval_steps
        from scaling.execute.coordinator import ExecutionPlan

        options = self.options
        policy = replace(
            options.policy,
            flops_before=self.flops,
            seconds_before=time.monotonic() - self.begun if self.begun else 0.0,
        )
        packs = packing(
            "1" if options.simulate else options.pack,
            [item.run for item in chosen],
            count,
            options.how,
            folder.packing,
        )
        budgets = constant_lr_eval_steps([item.run for item in plan.runs]) if chosen else {}
        return ExecutionPlan(
            count,
            options.how,
            packs,
            options.accept_changes,
            policy,
            budgets,
            bool(options.track),
            options.keep_weights,
        )

    def stopped(self, ended: SweepOutcome | None) -> tuple[str, int] | None:
        """Why training stopped before all was trained, and the exit code of the contract; None where it did not."""
        from scaling.execute.signals import exit_code

        if ended and ended.signal:
            return "a signal", exit_code(ended.signal)
        if ended and ended.exit_code == DISK:
            return ended.stopped, DISK
        if ended and ended.stopped:
            return ended.stopped, STOPPED
        return (f"--max-runs {self.options.max_runs}", STOPPED) if self.left else None
