"""The coordinator: hands run groups to workers, the most expensive first, and turns what happens to
them into outcomes.

It holds a lease, so that any number of coordinators can share one folder.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from scaling.config import RunConfig
from scaling.config.run_groups import RunGroup
from scaling.errors import DISK, STOPPED
from scaling.execute import events
from scaling.execute.events import FailureCause, OnEvent, RunEnded, RunEvent
from scaling.execute.lease import Lease, lost_error
from scaling.execute.ledger import Ledger
from scaling.execute.local import ExitReason, Worker
from scaling.execute.options import RunOptions
from scaling.execute.progress import ENDED, SweepProgress
from scaling.execute.run_queue import RunQueue
from scaling.execute.signals import Signals, exit_code
from scaling.execute.sweep_folder import SweepFolder
from scaling.execute.worker import REQUESTS, TrainRequest
from scaling.plan import Plan, PlannedRun

PROGRESS_SECONDS = 1.0  # between two updates of the lease's progress


class StopReason(StrEnum):
    """Why training stopped before all runs had ended."""

    SIGNAL = "signal"
    DISK = "disk"
    FAIL_FAST = "fail-fast"
    WORKER_START = "worker-start"
    MAX_RUNS = "max-runs"
    MAX_FLOPS = "max-flops"
    MAX_SECONDS = "max-seconds"


@dataclass(frozen=True)
class Stop:
    """Why training stopped, for programs and for people, and the exit code of the CLI contract."""

    reason: StopReason
    message: str
    exit_code: int = STOPPED


@dataclass(frozen=True, kw_only=True)
class SessionEnd:
    """How training in one folder ended: runs by outcome, FLOPs trained, and runs that a budget
    kept from beginning.
    """

    counts: dict[str, int] = field(default_factory=dict)
    flops: float = 0.0
    stop: Stop | None = None
    runs_left: int = 0


@dataclass
class _GroupTraining:
    """A group in a worker: each run's outcome, the runs to try again, and FLOPs trained.

    `finished` runs are trained again only because their pack is.
    """

    group: RunGroup
    finished: set[str]
    ended: dict[str, str] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    flops: float = 0.0
    is_starting: bool = False  # the worker imports what it needs
    began: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True)
class Coordinator:
    """Trains the chosen `runs` of a plan in `workers` workers that `start` starts, sharing them
    with other coordinators.

    It stops when `flops_left` are trained or at the `deadline` (of `time.monotonic`).
    """

    folder: SweepFolder
    plan: Plan
    runs: Sequence[PlannedRun]
    options: RunOptions
    lease: Lease
    signals: Signals
    on_event: OnEvent
    start: Callable[[int], Worker]
    workers: int
    flops_left: float | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        self.events: queue.SimpleQueue[RunEvent] = queue.SimpleQueue()
        self.run_queue = RunQueue(
            self.folder,
            self.lease,
            self.plan,
            {planned.run_id: planned.flops for planned in self.runs},
            self.options.pack,
            lambda run_id: self.events.put(events.RunEndedByOtherProcess(run_id=run_id)),
        )
        self.ledger = Ledger(self.folder.path, self.lease.name)
        self.stopping = threading.Event()
        self.started: list[Worker] = []
        self.errors: list[BaseException] = []
        self.retries: Counter[str] = Counter()

    def run(self) -> SessionEnd:
        """Returns when all runs have ended anywhere, or a stop was asked for.

        The first signal asks every worker to save its state; a second one kills them and exits at
        once.
        """
        self.lease.on_lost = self._on_lease_lost
        threads = [
            threading.Thread(target=self.worker_thread, args=(index,), daemon=True)
            for index in range(min(self.workers, len(self.runs)))
        ]
        for thread in threads:
            thread.start()
        end = self._pass_events(threads)
        is_disk_error = end.stop is not None and end.stop.reason == StopReason.DISK
        if (self.errors or is_disk_error) and not self.lease.folder.exists():
            raise lost_error(self.lease.path)  # a save may notice it before the heartbeat
        if self.errors:
            raise self.errors[0]
        return end

    def _stop(self, number: int = signal.SIGTERM) -> None:
        """Begin nothing new, and let every worker save its state (or, with SIGKILL, die)."""
        self.run_queue.close()
        self.stopping.set()
        for worker in self.started:
            worker.signal(number)

    def _on_lease_lost(self) -> None:
        """Another process has ended our lease, or the folder is gone: nothing that our workers
        still do may be published.
        """
        self.errors.append(lost_error(self.lease.path))
        self._stop(signal.SIGKILL)

    def _pass_events(self, threads: Sequence[threading.Thread]) -> SessionEnd:
        """Pass events on until every worker thread has ended; keep the lease's progress up to
        date.
        """
        stop: Stop | None = None
        progress, written, is_signalled = SweepProgress(self.runs), 0.0, False
        while any(thread.is_alive() for thread in threads) or not self.events.empty():
            if self.signals.count and not is_signalled:
                self._stop()
                is_signalled = True
            if self.signals.force_quit:
                self._stop(signal.SIGKILL)
                os._exit(exit_code(self.signals.received))
            try:
                event = self.events.get(timeout=0.1)
            except queue.Empty:
                pass
            else:
                progress.handle(event)
                self.on_event(event)
                if isinstance(event, RunEnded):
                    stop = self._stop_after(event) or stop
            stop = stop or self._exhausted_budget(progress.flops_trained)
            if stop and not self.stopping.is_set():
                self._stop()
            is_disk_full = stop is not None and stop.reason == StopReason.DISK
            if time.monotonic() - written > PROGRESS_SECONDS and not is_disk_full:
                self.lease.publish_progress(progress.running.values(), progress.eta_seconds)
                written = time.monotonic()
        if self.signals.received:
            stop = Stop(StopReason.SIGNAL, "a signal", exit_code(self.signals.received))
        counts: dict[str, int] = {kind: progress.counts[kind] for kind in ENDED}
        return SessionEnd(counts=counts, flops=progress.flops_trained, stop=stop)

    def _exhausted_budget(self, flops: float) -> Stop | None:
        if self.flops_left is not None and flops >= self.flops_left:
            message = f"--max-flops {self.options.max_flops:.3g} is used up"
            return Stop(StopReason.MAX_FLOPS, message)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            message = f"--max-seconds {self.options.max_seconds:g} are over"
            return Stop(StopReason.MAX_SECONDS, message)
        return None

    def _stop_after(self, ended: RunEnded) -> Stop | None:
        """Why the end of a run ends the session, if it does."""
        if ended.cause == FailureCause.DISK:
            return Stop(StopReason.DISK, "disk full or not writable", DISK)
        if ended.cause == FailureCause.START:
            return Stop(StopReason.WORKER_START, ended.reason)
        if self.options.fail_fast and ended.event in ("failed", "diverged"):
            return Stop(StopReason.FAIL_FAST, f"--fail-fast: run {ended.run_id} {ended.event}")
        return None

    def worker_thread(self, index: int) -> None:
        """Hand one group after another to a worker; start another worker when it dies.

        An error in this thread ends the sweep and is raised by `run`.
        """
        worker: Worker | None = None
        lines: Iterator[str] = iter(())
        try:
            while (group := self.run_queue.next_group()) is not None:
                if worker is None or not worker.alive():
                    worker = self.start(index)
                    self.started.append(worker)
                    if self.stopping.is_set():
                        worker.signal(signal.SIGTERM)
                    lines = iter(worker.events())
                self.run_queue.done(group, self._train_group(worker, lines, group))
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self.errors.append(error)
            self._stop()
        finally:
            if worker is not None:
                worker.close()

    def _train_group(
        self, worker: Worker, lines: Iterator[str], group: RunGroup
    ) -> list[RunConfig]:
        """Hand a group to a worker and handle its events to the end; returns the runs to try
        again, and those of branches whose checkpoints were not reached.
        """
        run_ids = [run.run_id for run in group.runs]
        finished = {run_id for run_id in run_ids if self.folder.is_finished(run_id)}
        leading = [run_id for run_id in run_ids if run_id not in finished]
        for run_id in leading:
            self.folder.remove_failure(run_id)
        self.ledger.add(event="started", run_ids=leading, time=round(time.time(), 3))
        request = TrainRequest(
            sweep=self.plan.sweep.name,
            group=group,
            execution=self.options.execution,
            notes={
                "pack": len(group.runs),
                "branches": [branch.name for branch in group.branches],
            },
            allow_changes=self.options.allow_changes,
            lease=self.lease.name,
            keep_weights=self.options.keep_weights,
        )
        training = _GroupTraining(group, finished)
        worker.send(REQUESTS.dump_json(request).decode())
        if not any(self._handle(training, events.EVENTS.validate_json(line)) for line in lines):
            self._handle_worker_death(training, worker.exit_reason())
        seconds, flops = time.monotonic() - training.began, training.flops
        for kind in sorted(set(training.ended.values())):
            run_ids = [run_id for run_id, outcome in training.ended.items() if outcome == kind]
            self.ledger.add(event=kind, run_ids=run_ids, seconds=round(seconds, 3), flops=flops)
            seconds = flops = 0.0
        self.events.put(events.GroupFinished(run_id=leading[0]))
        if self.stopping.is_set():
            return []
        again = [run for run in group.runs if run.run_id in training.again]
        branches = [run for branch in training.group.branches for run in branch.runs]
        return again + [run for run in branches if run.run_id not in training.ended]

    def _handle(self, training: _GroupTraining, event: RunEvent) -> bool:
        """Handle one event of a worker; True when its group is over."""
        match event:
            case events.GroupFinished():
                return True
            case events.WorkerState():
                training.is_starting = event.event == "starting"
            case events.RunProgress():
                training.flops = event.flops
                seconds = round(time.monotonic() - training.began, 3)
                event = event.model_copy(update={"seconds": seconds})
            case events.Branched(run_ids=run_ids):  # any process may claim them from now on
                branches = [b for b in training.group.branches if b.runs[0].run_id in run_ids]
                training.group = training.group.without(run_ids)
                self.run_queue.add_branches(branches)
            case RunEnded(run_id=run_id) if run_id in training.finished:
                return False
            case RunEnded(event="failed"):
                self._handle_failure(training, event)
                return False
            case RunEnded(event="stopped") if not self.stopping.is_set():
                # the worker alone was signalled
                reason = f"its worker was asked to stop: {event.reason}"
                self._handle_failure(training, _death(event.run_id, FailureCause.DIED, reason))
                return False
            case RunEnded():
                training.ended[event.run_id] = event.event
        self.events.put(event)
        return False

    def _handle_failure(self, training: _GroupTraining, failure: RunEnded) -> None:
        """Record why a run failed, or try it again where the cause may be transient."""
        run_id, reason = failure.run_id, failure.reason
        # some may have been published before their pack failed
        if run_id in training.ended or run_id in training.finished:
            return
        if failure.cause == FailureCause.DISK:
            training.ended[run_id] = "stopped"
            self.events.put(failure.model_copy(update={"event": "stopped"}))
        elif failure.cause in events.TRANSIENT and self.retries[run_id] < self.options.retries:
            self.retries[run_id] += 1
            training.ended[run_id] = "interrupted"
            training.again.add(run_id)
            attempt = f"{reason}; retry {self.retries[run_id]} of {self.options.retries}"
            self.events.put(events.RunInterrupted(run_id=run_id, reason=attempt))
        else:
            self.folder.write_failure(run_id, failure.details)
            training.ended[run_id] = "failed"
            self.events.put(failure)

    def _handle_worker_death(self, training: _GroupTraining, exit_reason: ExitReason) -> None:
        """The worker died in this group: its runs stopped if that was asked for, else failed.

        One that dies of itself before it was ready is not tried again.
        """
        could_not_start = training.is_starting and exit_reason.cause != "SIGKILL"
        cause = FailureCause.START if could_not_start else FailureCause.DIED
        what = "could not start" if could_not_start else "died"
        reason = f"the worker process {what}: {exit_reason.cause}"
        if exit_reason.message:
            reason += f": {exit_reason.message}"
        elif exit_reason.cause in ("SIGKILL", "SIGABRT"):
            reason += " (out of memory?)"
        for run in training.group.runs:
            if run.run_id in training.ended or run.run_id in training.finished:
                continue
            if self.stopping.is_set():
                training.ended[run.run_id] = "stopped"
                stopped = "killed before it could save"
                self.events.put(RunEnded(event="stopped", run_id=run.run_id, reason=stopped))
            else:
                self._handle_failure(training, _death(run.run_id, cause, reason, exit_reason.log))


def _death(run_id: str, cause: FailureCause, reason: str, log: str = "") -> RunEnded:
    details = f"{reason}\n\n{log}"
    return RunEnded(event="failed", run_id=run_id, cause=cause, reason=reason, details=details)
