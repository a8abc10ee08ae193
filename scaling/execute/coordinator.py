"""The coordinator: hands run groups to workers, the most expensive first, and turns what happens to
them into outcomes.

It holds a lease, so that any number of coordinators can share one folder.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from scaling.config import RunConfig
from scaling.config.run_groups import RunGroup
from scaling.errors import DISK, STOPPED, ScalingError
from scaling.execute import events, ledger
from scaling.execute.events import FailureCause, OnEvent, RunEnded, RunEvent
from scaling.execute.lease import Lease, lost_error
from scaling.execute.local import ExitReason, Worker, WorkerEvents
from scaling.execute.options import RunOptions
from scaling.execute.progress import SweepProgress
from scaling.execute.run_queue import RunQueue
from scaling.execute.signals import Signals, exit_code
from scaling.execute.sweep_folder import SweepFolder
from scaling.execute.worker import TrainRequest
from scaling.plan import Plan, PlannedRun

PROGRESS_SECONDS = 1.0  # between two updates of the lease's progress


class StopReason(StrEnum):
    """Why training stopped before all runs had ended."""

    SIGNAL = "signal"
    DISK = "disk"
    FAIL_FAST = "fail-fast"
    WORKER_START = "worker-start"
    MAX_RUNS = "max-runs"
    MAX_SECONDS = "max-seconds"
    MAX_FLOPS = "max-flops"


@dataclass(frozen=True)
class Stop:
    """Why training stopped, for programs and for people, and the exit code of the CLI contract."""

    reason: StopReason
    message: str
    exit_code: int = STOPPED


@dataclass
class _GroupTraining:
    """A group in a worker: the runs that wait for their end, what became of the others, and FLOPs
    trained.

    Finished runs, which are trained again only because their pack is, do not wait.
    """

    group: RunGroup
    leading: str  # the run that names it in events
    waiting: dict[str, RunConfig]
    is_starting: bool  # the worker imports what it needs
    ended: dict[str, str] = field(default_factory=dict)
    flops: float = 0.0
    began: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True)
class Coordinator:
    """Trains the chosen `runs` of a plan in `workers` workers that `start` starts, sharing them
    with other coordinators.

    It stops at the `deadline` (of `time.monotonic`) or when `flops_left` are trained. `stop` says
    why it ended before all runs had, `progress` what has ended.
    """

    folder: SweepFolder
    plan: Plan
    runs: Sequence[PlannedRun]
    options: RunOptions
    lease: Lease
    signals: Signals
    on_event: OnEvent
    start: Callable[[WorkerEvents], Worker]
    workers: int
    deadline: float | None = None
    flops_left: float | None = None

    def __post_init__(self) -> None:
        costs = {planned.run_id: planned.flops for planned in self.runs}
        self.run_queue = RunQueue(self.folder, self.lease, self.plan, costs, self.options.pack)
        self.progress = SweepProgress(self.runs)
        self.ledger = self.folder.path_of("ledger", self.lease.name)
        self.events = WorkerEvents()
        self.idle: list[Worker] = []
        self.training: dict[Worker, _GroupTraining] = {}
        self.retries: Counter[str] = Counter()
        self.stop: Stop | None = None

    def run(self) -> None:
        """Train until all runs have ended anywhere, or a stop was asked for.

        The first signal asks every worker to save its state; a second one kills them and exits at
        once.
        """
        self.signals.on_force_quit = self._quit
        written = 0.0
        try:
            while self._hand_out_groups():
                with contextlib.suppress(queue.Empty):
                    self._handle(*self.events.get(timeout=0.1))
                self._check_stop()
                is_disk_full = self.stop is not None and self.stop.reason == StopReason.DISK
                if time.monotonic() - written > PROGRESS_SECONDS and not is_disk_full:
                    running, eta = self.progress.running.values(), self.progress.eta_seconds
                    self.lease.publish_progress(running, eta)
                    written = time.monotonic()
        except ScalingError:
            if self.lease.folder.exists():
                raise
        finally:
            for worker in [*self.idle, *self.training]:
                worker.close()
            self.signals.on_force_quit = lambda: None
        if not self.lease.folder.exists():  # a save may notice it before the heartbeat
            raise lost_error(self.lease.path)

    def _quit(self) -> None:
        self._signal(signal.SIGKILL)
        os._exit(exit_code(self.signals.received))

    def _signal(self, number: int) -> None:
        """SIGTERM asks every worker to save its state."""
        for worker in [*self.idle, *self.training]:
            worker.signal(number)

    def _stop(self, reason: StopReason, message: str, code: int = STOPPED) -> None:
        """Begin nothing new, and let every worker save its state."""
        if self.stop is None:
            self._signal(signal.SIGTERM)
        self.stop = Stop(reason, message, code)

    def _check_stop(self) -> None:
        """Stop where a signal or the deadline asks for it. Raises ScalingError where another
        process has ended our lease, or the folder is gone.
        """
        if self.lease.is_lost:
            self._signal(signal.SIGKILL)  # nothing that they still do may be published
            raise lost_error(self.lease.path)
        if self.signals.received:
            self._stop(StopReason.SIGNAL, "a signal", exit_code(self.signals.received))
        elif self.stop is not None:
            return
        elif self.deadline is not None and time.monotonic() >= self.deadline:
            message = f"--max-seconds {self.options.max_seconds:g} are over"
            self._stop(StopReason.MAX_SECONDS, message)
        elif self.flops_left is not None and self.progress.flops_trained >= self.flops_left:
            message = f"--max-flops {self.options.max_flops:.3g} is used up"
            self._stop(StopReason.MAX_FLOPS, message)

    def _emit(self, event: RunEvent) -> None:
        """Count an event, pass it on, and stop where the end of a run asks for it."""
        self.progress.handle(event)
        self.on_event(event)
        if not isinstance(event, RunEnded):
            return
        if event.cause == FailureCause.DISK:
            self._stop(StopReason.DISK, event.reason, DISK)
        elif event.cause == FailureCause.START:
            self._stop(StopReason.WORKER_START, event.reason)
        elif self.options.fail_fast and event.event in ("failed", "diverged"):
            self._stop(StopReason.FAIL_FAST, f"--fail-fast: run {event.run_id} {event.event}")

    def _hand_out_groups(self) -> bool:
        """Hand groups out as long as there are groups and workers; whether to wait for events."""
        while self.stop is None and len(self.training) < min(self.workers, len(self.runs)):
            group = self.run_queue.next_group()
            for run_id in self.run_queue.ended_elsewhere:
                self._emit(events.RunEndedByOtherProcess(run_id=run_id))
            self.run_queue.ended_elsewhere.clear()
            if group is None:
                break
            self._hand_out(group)
        return bool(self.training) or (self.stop is None and not self.run_queue.is_empty)

    def _hand_out(self, group: RunGroup) -> None:
        """Hand a group to an idle worker, or to a new one."""
        is_finished = self.folder.is_finished
        waiting = {run.run_id: run for run in group.all_runs() if not is_finished(run.run_id)}
        leading = [run.run_id for run in group.runs if run.run_id in waiting]
        for run_id in leading:
            self.folder.remove_failure(run_id)
        while self.idle and not self.idle[-1].alive():
            self.idle.pop().close()
        is_new = not self.idle
        worker = self.start(self.events) if is_new else self.idle.pop()
        self.training[worker] = _GroupTraining(group, leading[0], waiting, is_new)
        ledger.add(self.ledger, event="started", run_ids=leading, time=round(time.time(), 3))
        request = TrainRequest(
            sweep=self.plan.sweep.name,
            group=group,
            execution=self.options.execution,
            allow_changes=self.options.allow_changes,
            lease=self.lease.name,
            keep_weights=self.options.keep_weights,
        )
        worker.train(request)

    def _handle(self, worker: Worker, event: RunEvent | BaseException | None) -> None:
        """Handle one event of a worker."""
        if isinstance(event, BaseException):
            raise event
        training = self.training.get(worker)
        if training is None:  # it died while it was idle
            return
        match event:
            case None:
                self._handle_worker_death(training, worker.exit_reason())
                self._end_group(worker)
            case events.GroupFinished():
                self._end_group(worker)
            case events.WorkerReady():
                training.is_starting = False
            case events.RunProgress():
                training.flops = event.flops
                seconds = round(time.monotonic() - training.began, 3)
                self._emit(event.model_copy(update={"seconds": seconds}))
            case events.Branched(run_ids=run_ids):  # any process may claim them from now on
                branches = [b for b in training.group.branches if b.runs[0].run_id in run_ids]
                training.group = training.group.without(run_ids)
                for run_id in run_ids:
                    training.waiting.pop(run_id, None)
                self.run_queue.add_branches(branches)
            case RunEnded(run_id=run_id) if run_id not in training.waiting:
                pass
            case RunEnded(event="failed"):
                self._handle_failure(training, event)
            case RunEnded(event="stopped") if self.stop is None:
                # the worker alone was signalled
                reason = f"its worker was asked to stop: {event.reason}"
                self._handle_failure(training, _death(event.run_id, FailureCause.DIED, reason))
            case RunEnded():
                del training.waiting[event.run_id]
                training.ended[event.run_id] = event.event
                self._emit(event)
            case _:
                self._emit(event)

    def _end_group(self, worker: Worker) -> None:
        """A worker has no more to do with its group: what has not ended waits again."""
        training = self.training.pop(worker)
        self.idle.append(worker)
        seconds, flops = time.monotonic() - training.began, training.flops
        for kind in sorted(set(training.ended.values())):
            run_ids = [run_id for run_id, outcome in training.ended.items() if outcome == kind]
            spent = {"seconds": round(seconds, 3), "flops": flops}
            ledger.add(self.ledger, event=kind, run_ids=run_ids, **spent)
            seconds = flops = 0.0
        self._emit(events.GroupFinished(run_id=training.leading))
        unfinished = () if self.stop is not None else tuple(training.waiting.values())
        self.run_queue.done(training.group, unfinished)

    def _handle_failure(self, training: _GroupTraining, failure: RunEnded) -> None:
        """Record why a run failed, or try it again where the cause may be transient."""
        run_id, reason = failure.run_id, failure.reason
        if failure.cause == FailureCause.DISK:
            training.ended[run_id] = "stopped"
            self._emit(failure.model_copy(update={"event": "stopped"}))
        elif failure.cause in events.TRANSIENT and self.retries[run_id] < self.options.retries:
            self.retries[run_id] += 1
            training.ended[run_id] = "interrupted"
            attempt = f"{reason}; retry {self.retries[run_id]} of {self.options.retries}"
            self._emit(events.RunInterrupted(run_id=run_id, reason=attempt))
        else:
            self.folder.write_failure(run_id, failure.details)
            del training.waiting[run_id]
            training.ended[run_id] = "failed"
            self._emit(failure)

    def _handle_worker_death(self, training: _GroupTraining, exit_reason: ExitReason) -> None:
        """The worker died in this group: its runs stopped if that was asked for, else failed.

        One that dies of itself before it was ready is not tried again.
        """
        is_killed = exit_reason.code in (-signal.SIGKILL, -signal.SIGTERM)
        could_not_start = training.is_starting and not is_killed
        cause = FailureCause.START if could_not_start else FailureCause.DIED
        what = "could not start" if could_not_start else "died"
        reason = f"the worker process {what}: {exit_reason}"
        for run in training.group.runs:
            if run.run_id in training.ended or run.run_id not in training.waiting:
                continue
            if self.stop is not None:
                training.ended[run.run_id] = "stopped"
                why = "before it began" if training.is_starting else "killed before it could save"
                self._emit(RunEnded(event="stopped", run_id=run.run_id, reason=why))
            else:
                self._handle_failure(training, _death(run.run_id, cause, reason, exit_reason.log))


def _death(run_id: str, cause: FailureCause, reason: str, log: str = "") -> RunEnded:
    details = f"{reason}\n\n{log}"
    return RunEnded(event="failed", run_id=run_id, cause=cause, reason=reason, details=details)
