"""The coordinator: hands families to workers, longest first, and turns whatever happens to them into outcomes.

It is the same for every engine. It holds a lease, so that any number of coordinators share one folder.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scaling.config import Execution, RunConfig
from scaling.config.run_groups import RunGroup
from scaling.errors import DISK, STOPPED, ScalingError
from scaling.execute.attempts import Ledger
from scaling.execute.lease import Lease
from scaling.execute.local import Launcher, Worker
from scaling.execute.packing import Packing
from scaling.execute.progress import ENDED, SweepProgress
from scaling.execute.run_queue import RunQueue
from scaling.execute.signals import Signals
from scaling.execute.sweep_folder import SweepFolder
from scaling.execute.worker import TrainRequest
from scaling.plan import PlannedRun

TRANSIENT = (
    "died",
    "device",
)  # causes that may not come again: a killed process, a device or link error


@dataclass(frozen=True)
class Policy:
    """`retries` of a run whose worker died or whose device failed, from its checkpoint; the others are kept as failures.

    `max_flops` (model FLOPs trained by this command) and `max_seconds` (of this command) end it with all states saved;
    `flops_before` and `seconds_before` were spent by the same command on another folder.
    """

    retries: int = 2
    fail_fast: bool = False
    max_flops: float | None = None
    max_seconds: float | None = None
    flops_before: float = 0.0
    seconds_before: float = 0.0

    def spent(self, flops: float, seconds: float) -> str:
        """Which budget is used up; empty while none is."""
        if self.max_flops is not None and self.flops_before + flops >= self.max_flops:
            return f"--max-flops {self.max_flops:.3g} is used up"
        if self.max_seconds is not None and self.seconds_before + seconds >= self.max_seconds:
            return f"--max-seconds {self.max_seconds:g} are over"
        return ""


PROGRESS_SECONDS = 1.0
Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ExecutionPlan:
    """How the runs of a sweep are carried out: processes side by side, the layout of each run, which share a program, the policy,
    and the budgets that each trunk of the whole sweep passes; whether workers tell what they measure, and whether they keep the
    parameters of runs that end.
    """

    workers: int
    how: Execution = field(default_factory=Execution)
    packing: Packing = field(default_factory=Packing)
    accept_other_machine: bool = False
    policy: Policy = field(default_factory=Policy)
    budgets: Mapping[str, tuple[int, ...]] | None = None
    follow: bool = False
    keep_weights: bool = False


@dataclass(frozen=True)
class SweepOutcome:
    """How a sweep ended here: outcome counts, the signal or the reason that stopped it, and an exit code that must not be lost."""

    counts: dict[str, int]
    signal: int | None = None
    stopped: str = ""
    exit_code: int = 0


@dataclass
class WorkerPool:
    """What the coordinator knows while runs are in training."""

    folder: SweepFolder
    sweep: str
    work: RunQueue
    manner: ExecutionPlan
    launcher: Launcher
    lease: Lease
    ledger: Ledger
    events: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue)
    stopping: threading.Event = field(default_factory=threading.Event)
    workers: list[Worker] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)
    spares: dict[int, Worker] = field(default_factory=dict)
    hired: Counter[int] = field(default_factory=Counter)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Begin nothing new, and let every worker save its state (or, with SIGKILL, die)."""
        self.work.close()
        self.stopping.set()
        for worker in self.workers:
            worker.signal(number)

    def hire(self, index: int) -> Worker:
        """A new worker. Where one has died, the next is started ahead of time: importing takes longer than all else."""
        worker = self.spares.pop(index, None) or self._start(index)
        self.hired[index] += 1
        if self.hired[index] > 1 and not self.launcher.scarce and not self.stopping.is_set():
            self.spares[index] = self._start(index)
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
    manner: ExecutionPlan,
    launcher: Callable[[Lease], Launcher],
    lease: Lease,
    signals: Signals,
    listener: Listener,
) -> SweepOutcome:
    """Train `runs` in `manner.workers` workers, sharing them with other coordinators; returns when all have ended anywhere.

    Runs that share a trunk are trained as branches of it. The first signal asks every worker to save its state; a second
    one kills them and leaves at once.
    """
    started: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    cost = {planned.run_id: planned.flops for planned in runs}
    work = RunQueue(
        folder,
        lease,
        cost,
        manner.packing,
        manner.budgets,
        lambda run_id: started.put({"event": "elsewhere", "run_id": run_id}),
    )
    work.add_runs([planned.run for planned in runs])
    opened = launcher(lease)
    pool = WorkerPool(
        folder, sweep, work, manner, opened, lease, Ledger(folder.path, lease.name), started
    )
    lease.lost = lambda: _on_lease_lost(pool)
    count = min(manner.workers, len(runs))
    threads = [
        threading.Thread(target=_worker_thread, args=(pool, index), daemon=True)
        for index in range(count)
    ]
    tracker = SweepProgress(runs)
    try:
        for thread in threads:
            thread.start()
        ended = _event_loop(pool, tracker, threads, signals, listener)
    finally:
        opened.close()
    if pool.errors:
        raise pool.errors[0]
    return ended


def _on_lease_lost(pool: WorkerPool) -> None:
    """Another process has taken us for dead: what our workers still do must not be published."""
    what = "this process was silent for so long (stopped? suspended?) that its runs were given to others"
    remedy = "run again: finished runs are kept"
    pool.errors.append(
        ScalingError(what, where=str(pool.folder.path), remedy=remedy, exit_code=STOPPED)
    )
    pool.stop(signal.SIGKILL)


def _event_loop(
    pool: WorkerPool,
    tracker: SweepProgress,
    threads: Sequence[threading.Thread],
    signals: Signals,
    listener: Listener,
) -> SweepOutcome:
    """Pass events on until every attendant has ended; keep the lease's progress fresh for `scaling status`."""
    exit_code, written, stopped, begun, heeded = 0, 0.0, "", time.monotonic(), False
    while any(thread.is_alive() for thread in threads) or not pool.events.empty():
        if signals.count and not heeded:
            pool.stop()
            heeded = True
        if signals.insistent:
            _abort(pool, signals)
        try:
            event: dict[str, Any] | None = pool.events.get(timeout=0.1)
        except queue.Empty:
            event = None
        if event is not None:
            tracker.observe(event)
            listener(event)
            if event.get("exit_code") == DISK:
                exit_code, stopped = DISK, "the disk refuses"
            elif event["event"] in ("failed", "diverged") and pool.manner.policy.fail_fast:
                stopped = f"--fail-fast: run {event['run_id']} {event['event']}"
        stopped = stopped or pool.manner.policy.spent(tracker.flops_here, time.monotonic() - begun)
        if stopped and not pool.stopping.is_set():
            pool.stop()
        if time.monotonic() - written > PROGRESS_SECONDS and exit_code == 0:
            pool.lease.say(tracker.running.values(), tracker.eta_seconds)
            written = time.monotonic()
    return SweepOutcome(
        {kind: tracker.counts[kind] for kind in ENDED}, signals.received, stopped, exit_code
    )


def _abort(pool: WorkerPool, signals: Signals) -> None:
    """Leave at once, with the children gone; the last checkpoints stand."""
    pool.stop(signal.SIGKILL)
    os._exit(signals.exit_code)


def _worker_thread(pool: WorkerPool, index: int) -> None:
    """Keep a worker busy; what goes wrong in this thread ends the sweep and is raised by `execute`."""
    try:
        _drive_worker(pool, index)
    except BaseException as error:  # noqa: BLE001 - it is raised again where the user sees it
        pool.errors.append(error)
        pool.stop()


def _drive_worker(pool: WorkerPool, index: int) -> None:
    """Hand one family after another to a worker; hire another when it dies."""
    worker: Worker | None = None
    lines: Iterator[str] = iter(())
    try:
        while (family := _next(pool, worker)) is not None:
            if worker is None or not worker.alive():
                worker = pool.hire(index)
                lines = iter(worker.events())
            left = _train(pool, worker, lines, family)
            pool.work.over(family, left)
    finally:
        for idle in (worker, pool.spares.pop(index, None)):
            if idle is not None:
                idle.close()


def _next(pool: WorkerPool, worker: Worker | None) -> RunGroup | None:
    """The next family; a worker that would only wait for one gives its place back where places are scarce."""
    if worker is None or not pool.launcher.scarce:
        return pool.work.take()
    family = pool.work.take(wait=False)
    if family is None:
        worker.close()
        family = pool.work.take()
    return family


def _train(
    pool: WorkerPool, worker: Worker, lines: Iterator[str], family: RunGroup
) -> list[RunConfig]:
    """Hand a family to a worker and pass on what it says until it is over; returns the runs that must be tried again.

    Branches whose checkpoint is written are for anybody from then on.
    """
    manner, leading = pool.manner, [run.run_id for run in family.runs]
    notes = {
        "pack": len(family.runs),
        "branches": [branch.name for branch in family.branches],
        **manner.packing.of(family).notes(),
    }
    pool.ledger.add(event="started", run_ids=leading, time=round(time.time(), 3))
    pool.events.put({"event": "started", "run_id": leading[0]})
    told = _GroupEvents(pool, family)
    given = (
        pool.sweep,
        family,
        manner.how,
        notes,
        manner.accept_other_machine,
        str(pool.lease.path),
        manner.follow,
        manner.keep_weights,
    )
    worker.send(TrainRequest(*given).dump())
    over = any(told.hear(json.loads(line)) for line in lines)
    if not over:
        told.died(*worker.death())
    seconds, flops = time.monotonic() - told.begun, told.flops
    for kind in sorted(set(told.ended.values())):
        ids = [run_id for run_id, found in told.ended.items() if found == kind]
        pool.ledger.add(event=kind, run_ids=ids, seconds=round(seconds, 3), flops=flops)
        seconds = flops = 0.0
    pool.events.put({"event": "over", "run_id": leading[0]})
    return [] if pool.stopping.is_set() else told.left()


class _GroupEvents:
    """What a worker has said of the family in its hands, and what that means for each run."""

    def __init__(self, pool: WorkerPool, family: RunGroup) -> None:
        self.pool, self.family = pool, family
        self.ended: dict[str, str] = {}
        self.again: set[str] = set()
        self.flops, self.begun = 0.0, time.monotonic()

    def hear(self, event: dict[str, Any]) -> bool:
        """Take in one event; True when the family is over."""
        kind = event["event"]
        if kind == "over":
            return True
        if kind == "progress":
            self.flops = event["flops"]
            event["seconds"] = round(time.monotonic() - self.begun, 3)
        if kind == "branched":
            ready = [
                branch
                for branch in self.family.branches
                if branch.runs[0].run_id in event["run_ids"]
            ]
            self.family = self.family.without(event["run_ids"])
            self.pool.work.branch(ready)
        if kind == "failed":
            return self._failed(event)
        if kind == "stopped" and not self.pool.stopping.is_set():  # somebody asked the worker alone
            reason = f"its worker was told to stop: {event['reason']}"
            return self._failed(
                {"event": "failed", "run_id": event["run_id"], "cause": "died", "text": reason}
            )
        if kind in ENDED:
            self.ended[event["run_id"]] = kind
        self.pool.events.put(event)
        return False

    def _failed(self, event: dict[str, Any]) -> bool:
        """Keep the reason, or try again where the cause may pass."""
        run_id, reason = event["run_id"], event["text"].partition("\n")[0]
        policy = self.pool.manner.policy
        if (
            event.get("exit_code") == DISK
        ):  # no fault of the run, and no room for a note: it goes on when there is space
            if run_id not in self.ended:
                self.ended[run_id] = "stopped"
                self.pool.events.put(
                    {
                        "event": "stopped",
                        "run_id": run_id,
                        "reason": reason,
                        "exit_code": DISK,
                        "text": reason,
                    }
                )
            return False
        if run_id in self.ended:  # published before its pack failed
            return False
        if event["cause"] in TRANSIENT and self.pool.tries[run_id] < policy.retries:
            self.pool.tries[run_id] += 1
            self.ended[run_id] = "interrupted"
            self.again.add(run_id)
            told = f"{reason}; retry {self.pool.tries[run_id]} of {policy.retries}"
            self.pool.events.put({"event": "interrupted", "run_id": run_id, "reason": told})
            return False
        self.pool.folder.write_failure(run_id, event["text"])
        self.ended[run_id] = "failed"
        self.pool.events.put(event | {"reason": reason})
        return False

    def died(self, cause: str, words: str) -> None:
        """A worker that died in a run: stopped when we asked for it, else a failure that may pass."""
        for run in self.family.runs:
            if run.run_id in self.ended:
                continue
            if self.pool.stopping.is_set():
                self.ended[run.run_id] = "stopped"
                self.pool.events.put(
                    {
                        "event": "stopped",
                        "run_id": run.run_id,
                        "reason": "killed before it could save",
                    }
                )
                continue
            hint = " (out of memory?)" if cause in ("SIGKILL", "SIGABRT") else ""
            text = f"the worker process died: {cause}{hint}\n\n{words}"
            self._failed({"event": "failed", "run_id": run.run_id, "cause": "died", "text": text})

    def left(self) -> list[RunConfig]:
        """Runs to try again, and branches that were not brought to their checkpoints."""
        branches = [
            run
            for branch in self.family.branches
            for run in branch.runs
            if run.run_id not in self.ended
        ]
        return [run for run in self.family.runs if run.run_id in self.again] + branches
