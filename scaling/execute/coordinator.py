"""The coordinator: hands run groups to workers, the most expensive first, and turns what happens to
them into outcomes.

It is the same for every executor. It holds a lease, so that any number of coordinators can share
one folder.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from scaling.config import RunConfig
from scaling.config.run_groups import RunGroup
from scaling.errors import DISK, STOPPED
from scaling.execute import events
from scaling.execute.attempts import Ledger
from scaling.execute.events import OnEvent, RunEvent
from scaling.execute.group_events import GroupEvents
from scaling.execute.lease import Lease, lost_error
from scaling.execute.local import Launcher, Worker
from scaling.execute.options import RunOptions
from scaling.execute.packing import Packing
from scaling.execute.progress import ENDED, SweepProgress
from scaling.execute.run_queue import RunQueue
from scaling.execute.signals import Signals, exit_code
from scaling.execute.sweep_folder import SweepFolder
from scaling.execute.worker import TrainRequest
from scaling.plan import PlannedRun

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


@dataclass(frozen=True, kw_only=True)
class ExecutionPlan:
    """How the runs of one folder are trained.

    Args:
        options: of the whole command.
        workers: parallel processes.
        packing: which runs share a program.
        planned: all runs of the sweep, by run_id.
        eval_steps: by run_id, steps in the shared prefix at which the constant-rate loss is read.
        later: by run_id, longer runs for which the state is kept.
        flops_before, seconds_before: spent by the same command in other folders.
    """

    options: RunOptions
    workers: int = 1
    packing: Packing = field(default_factory=Packing)
    planned: Mapping[str, RunConfig] = field(default_factory=dict)
    eval_steps: Mapping[str, tuple[int, ...]] | None = None
    later: Mapping[str, tuple[RunGroup, ...]] = field(default_factory=dict)
    flops_before: float = 0.0
    seconds_before: float = 0.0

    def exhausted_budget(self, flops: float, seconds: float) -> Stop | None:
        """The budget that `flops` and `seconds` of this folder have used up, if any."""
        max_flops, max_seconds = self.options.max_flops, self.options.max_seconds
        if max_flops is not None and self.flops_before + flops >= max_flops:
            return Stop(StopReason.MAX_FLOPS, f"--max-flops {max_flops:.3g} is used up")
        if max_seconds is not None and self.seconds_before + seconds >= max_seconds:
            return Stop(StopReason.MAX_SECONDS, f"--max-seconds {max_seconds:g} are over")
        return None


@dataclass
class WorkerPool:
    """The state of a coordinator while runs are in training; shared by its threads."""

    folder: SweepFolder
    sweep: str
    run_queue: RunQueue
    plan: ExecutionPlan
    launcher: Launcher
    lease: Lease
    ledger: Ledger
    events: queue.SimpleQueue[RunEvent] = field(default_factory=queue.SimpleQueue)
    stopping: threading.Event = field(default_factory=threading.Event)
    workers: list[Worker] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)
    standby: dict[int, Worker] = field(default_factory=dict)
    starts: Counter[int] = field(default_factory=Counter)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Begin nothing new, and let every worker save its state (or, with SIGKILL, die)."""
        self.run_queue.close()
        self.stopping.set()
        for worker in self.workers:
            worker.signal(number)

    def acquire_worker(self, index: int) -> Worker:
        """A new worker. After a death the next one is started ahead of time: importing is slow."""
        worker = self.standby.pop(index, None) or self._start(index)
        self.starts[index] += 1
        if self.starts[index] > 1 and not self.launcher.limited and not self.stopping.is_set():
            self.standby[index] = self._start(index)
        return worker

    def _start(self, index: int) -> Worker:
        worker = self.launcher.start(index)
        self.workers.append(worker)
        if self.stopping.is_set():
            worker.signal(signal.SIGTERM)
        return worker


def execute(
    folder: SweepFolder,
    sweep: str,
    runs: Sequence[PlannedRun],
    plan: ExecutionPlan,
    launcher: Launcher,
    lease: Lease,
    signals: Signals,
    on_event: OnEvent,
) -> SessionEnd:
    """Train `runs` in `plan.workers` workers, sharing them with other coordinators; returns when
    all have ended anywhere.

    Runs that share a prefix are trained as its branches. The first signal asks every worker to
    save its state; a second one kills them and exits at once.
    """
    queued: queue.SimpleQueue[RunEvent] = queue.SimpleQueue()
    run_queue = RunQueue(
        folder,
        lease,
        {planned.run_id: planned.flops for planned in runs},
        plan.planned,
        plan.packing,
        plan.eval_steps,
        plan.later,
        lambda run_id: queued.put(events.RunEndedElsewhere(run_id=run_id)),
    )
    run_queue.add_runs([planned.run for planned in runs])
    ledger = Ledger(folder.path, lease.name)
    pool = WorkerPool(folder, sweep, run_queue, plan, launcher, lease, ledger, queued)
    lease.on_lost = lambda: _on_lease_lost(pool)
    threads = [
        threading.Thread(target=_worker_thread, args=(pool, index), daemon=True)
        for index in range(min(plan.workers, len(runs)))
    ]
    progress = SweepProgress(runs)
    for thread in threads:
        thread.start()
    end = _event_loop(pool, progress, threads, signals, on_event)
    if pool.errors:
        raise pool.errors[0]
    return end


def _on_lease_lost(pool: WorkerPool) -> None:
    """Another process has ended our lease: nothing that our workers still do may be published."""
    pool.errors.append(lost_error(pool.folder.path))
    pool.stop(signal.SIGKILL)


def _event_loop(
    pool: WorkerPool,
    progress: SweepProgress,
    threads: Sequence[threading.Thread],
    signals: Signals,
    on_event: OnEvent,
) -> SessionEnd:
    """Pass events on until every worker thread has ended; keep the lease's progress up to date."""
    stop: Stop | None = None
    written, began, signalled = 0.0, time.monotonic(), False
    while any(thread.is_alive() for thread in threads) or not pool.events.empty():
        if signals.count and not signalled:
            pool.stop()
            signalled = True
        if signals.force_quit:
            pool.stop(signal.SIGKILL)
            os._exit(exit_code(signals.received))
        try:
            event: RunEvent | None = pool.events.get(timeout=0.1)
        except queue.Empty:
            event = None
        if event is not None:
            progress.handle(event)
            on_event(event)
            if isinstance(event, events.RunEnded):
                stop = _stop_after(event, pool.plan.options) or stop
        elapsed = time.monotonic() - began
        stop = stop or pool.plan.exhausted_budget(progress.flops_trained, elapsed)
        if stop and not pool.stopping.is_set():
            pool.stop()
        disk_full = stop is not None and stop.reason == StopReason.DISK
        if time.monotonic() - written > PROGRESS_SECONDS and not disk_full:
            pool.lease.publish_progress(progress.running.values(), progress.eta_seconds)
            written = time.monotonic()
    if signals.received:
        stop = Stop(StopReason.SIGNAL, "a signal", exit_code(signals.received))
    counts: dict[str, int] = {kind: progress.counts[kind] for kind in ENDED}
    return SessionEnd(counts=counts, flops=progress.flops_trained, stop=stop)


def _stop_after(ended: events.RunEnded, options: RunOptions) -> Stop | None:
    """Why the end of a run ends the session, if it does."""
    if ended.cause == events.FailureCause.DISK:
        return Stop(StopReason.DISK, "disk full or not writable", DISK)
    if ended.cause == events.FailureCause.START:
        return Stop(StopReason.WORKER_START, ended.reason)
    if options.fail_fast and ended.event in ("failed", "diverged"):
        return Stop(StopReason.FAIL_FAST, f"--fail-fast: run {ended.run_id} {ended.event}")
    return None


def _worker_thread(pool: WorkerPool, index: int) -> None:
    """Keep one worker busy; an error in this thread ends the sweep and is raised by `execute`."""
    try:
        _drive_worker(pool, index)
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        pool.errors.append(error)
        pool.stop()


def _drive_worker(pool: WorkerPool, index: int) -> None:
    """Hand one group after another to a worker; start another worker when it dies."""
    worker: Worker | None = None
    lines: Iterator[str] = iter(())
    try:
        while (group := _next_group(pool, worker)) is not None:
            if worker is None or not worker.alive():
                worker = pool.acquire_worker(index)
                lines = iter(worker.events())
            unfinished = _train_group(pool, worker, lines, group)
            pool.run_queue.done(group, unfinished)
    finally:
        for idle in (worker, pool.standby.pop(index, None)):
            if idle is not None:
                idle.close()


def _next_group(pool: WorkerPool, worker: Worker | None) -> RunGroup | None:
    """The next group; an idle worker is closed while it waits where workers are limited."""
    if worker is None or not pool.launcher.limited:
        return pool.run_queue.next_group()
    group = pool.run_queue.next_group(wait=False)
    if group is None:
        worker.close()
        group = pool.run_queue.next_group()
    return group


def _train_group(
    pool: WorkerPool, worker: Worker, lines: Iterator[str], group: RunGroup
) -> list[RunConfig]:
    """Hand a group to a worker and handle its events to the end; returns the runs to try again.

    A branch can be claimed by any process from the moment its checkpoint is written.
    """
    options = pool.plan.options
    run_ids = [run.run_id for run in group.runs]
    finished = {run_id for run_id in run_ids if pool.folder.is_finished(run_id)}
    leading = [run_id for run_id in run_ids if run_id not in finished]
    for run_id in leading:
        pool.folder.remove_failure(run_id)
    pool.ledger.add(event="started", run_ids=leading, time=round(time.time(), 3))
    pool.events.put(events.GroupStarted(run_id=leading[0]))
    request = TrainRequest(
        sweep=pool.sweep,
        group=group,
        execution=options.execution,
        notes={
            "pack": len(group.runs),
            "branches": [branch.name for branch in group.branches],
            **pool.plan.packing.notes(group),
        },
        allow_changes=options.allow_changes,
        lease=str(pool.lease.path),
        send_metrics=bool(options.trackers),
        keep_weights=options.keep_weights,
    )
    handler = GroupEvents(
        group=group,
        folder=pool.folder,
        queue=pool.run_queue,
        emit=pool.events.put,
        stopping=pool.stopping,
        retries=pool.retries,
        max_retries=options.retries,
        start_is_fatal=not pool.launcher.limited,
        finished=finished,
    )
    worker.send(request.dump())
    if not any(handler.handle(events.load_event(line)) for line in lines):
        handler.handle_worker_death(worker.exit_reason())
    seconds, flops = time.monotonic() - handler.began, handler.flops
    for kind in sorted(set(handler.ended.values())):
        run_ids = [run_id for run_id, outcome in handler.ended.items() if outcome == kind]
        pool.ledger.add(event=kind, run_ids=run_ids, seconds=round(seconds, 3), flops=flops)
        seconds = flops = 0.0
    pool.events.put(events.GroupOver(run_id=leading[0]))
    return [] if pool.stopping.is_set() else handler.unfinished()
