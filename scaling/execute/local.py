"""The local engine: worker processes on this machine, each training one run at a time, longest runs first."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from scaling.config import Execution, RunConfig
from scaling.errors import DISK
from scaling.execute.environment import worker_environment
from scaling.execute.folder import SweepFolder
from scaling.execute.packing import Packing
from scaling.execute.tracker import ENDED, Tracker
from scaling.execute.work import Work
from scaling.execute.worker import Order
from scaling.family import Family, families, packed
from scaling.plan import PlannedRun
from scaling.results import write_text

PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class Manner:
    """How the runs of a sweep are carried out: processes side by side, the layout of each run, and which share a program."""

    workers: int
    how: Execution = field(default_factory=Execution)
    packing: Packing = field(default_factory=Packing)
    accept_other_machine: bool = False


@dataclass
class Pool:
    """What the coordinator knows while runs are in training; `listener` is told every event."""

    folder: SweepFolder
    sweep: str
    work: Work
    manner: Manner
    listener: Callable[[dict[str, Any]], None]
    events: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue)
    stopping: threading.Event = field(default_factory=threading.Event)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def stop(self) -> None:
        """Let no attendant begin anything new."""
        self.stopping.set()
        self.work.close()


@dataclass(frozen=True)
class Ended:
    """How training a sweep ended: outcome counts, the signal that stopped it, and a disk failure's exit code."""

    counts: dict[str, int]
    signal: int | None
    exit_code: int = 0


def execute(
    folder: SweepFolder, sweep: str, runs: Sequence[PlannedRun], manner: Manner, listener: Callable[[dict[str, Any]], None]
) -> Ended:
    """Train `runs` in `manner.workers` processes; returns when all have ended, or after a signal when all are saved.

    Runs that share a trunk are trained as branches of it. The first SIGINT or SIGTERM asks every worker to save its
    state; a second one kills them.
    """
    work, tracker = Work({planned.run_id: planned.flops for planned in runs}), Tracker(runs)
    work.add(_families(folder, [planned.run for planned in runs], manner.packing))
    pool = Pool(folder, sweep, work, manner, listener)
    count = min(manner.workers, len(runs))
    threads = [threading.Thread(target=_attend, args=(pool, count, index), daemon=True) for index in range(count)]
    with _Signals(pool) as signals:
        for thread in threads:
            thread.start()
        exit_code = _collect(pool, tracker, threads)
    folder.progress.unlink(missing_ok=True)
    if pool.errors:
        raise pool.errors[0]
    return Ended({kind: tracker.counts[kind] for kind in ENDED}, signals.received, exit_code)


def _families(folder: SweepFolder, runs: Sequence[RunConfig], packing: Packing) -> list[Family]:
    """Trunks with their branches, in packs; what has a checkpoint goes on as what it was."""

    def begun(family: Family) -> bool:
        return folder.checkpoint(family.name).exists()

    found = families(runs)
    joined = [family for family in found if begun(family)] + packed([family for family in found if not begun(family)], packing.size)
    branched = [branch for family in joined for branch in family.branches if begun(branch)]
    gone = [run.run_id for branch in branched for run in branch.runs]
    return [family.without(gone) for family in joined] + branched


def _collect(pool: Pool, tracker: Tracker, threads: Sequence[threading.Thread]) -> int:
    """Pass events on until every attendant has ended; keep progress.json fresh for `scaling status`."""
    exit_code, written = 0, 0.0
    while any(thread.is_alive() for thread in threads) or not pool.events.empty():
        try:
            event = pool.events.get(timeout=0.1)
        except queue.Empty:
            continue
        tracker.observe(event)
        if event.get("exit_code") == DISK:
            exit_code = DISK
            pool.stop()
        pool.listener(event)
        if time.monotonic() - written > PROGRESS_SECONDS and exit_code == 0:
            live = {"runs": list(tracker.running.values()), "eta_seconds": tracker.eta_seconds}
            write_text(pool.folder.progress, json.dumps(live))
            written = time.monotonic()
    return exit_code


def _attend(pool: Pool, workers: int, index: int) -> None:
    """Keep a worker busy; what goes wrong in this thread ends the sweep and is raised by `execute`."""
    try:
        _employ(pool, workers, index)
    except BaseException as error:  # noqa: BLE001 - it is raised again where the user sees it
        pool.errors.append(error)
        pool.stop()


def _employ(pool: Pool, workers: int, index: int) -> None:
    """Hand one family after another to a worker process; start another when it dies."""
    process: subprocess.Popen[str] | None = None
    log = pool.folder.path / "logs" / f"worker-{index}.log"
    while (family := pool.work.take()) is not None:
        if process is None or process.poll() is not None:
            process = _start(pool, workers, log)
        pool.work.over(_train(pool, process, family, log))
    if process is not None:
        _close(process)


def _start(pool: Pool, workers: int, log: Path) -> subprocess.Popen[str]:
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "scaling", "train", "--serve", str(pool.folder.path)]
    with open(log, "w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            env=worker_environment(workers), start_new_session=True,
        )  # fmt: skip  # a session of its own: the terminal's Ctrl-C reaches the coordinator alone
    pool.processes.append(process)
    return process


def _train(pool: Pool, process: subprocess.Popen[str], family: Family, log: Path) -> Family | None:
    """Hand a family to a worker and pass on what it says until it is over; returns what is left of it to train.

    Branches whose checkpoint is written are for any worker from then on.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    manner = pool.manner
    notes = {"pack": len(family.runs), "branches": [branch.name for branch in family.branches], **manner.packing.of(family).notes()}
    for run in family.runs:
        pool.folder.begin_attempt(run.run_id)
    pool.events.put({"event": "started", "run_id": family.runs[0].run_id})
    with contextlib.suppress(BrokenPipeError):  # a worker that has died is told below, by the end of its stdout
        process.stdin.write(Order(pool.sweep, family, manner.how, notes, manner.accept_other_machine).dump() + "\n")
        process.stdin.flush()
    ended: set[str] = set()
    for line in process.stdout:
        event = json.loads(line)
        kind = event["event"]
        if kind == "failed":
            write_text(pool.folder.failure(event["run_id"]), event["text"])
            event["reason"] = event["text"].partition("\n")[0]
        if kind == "branched":
            ready = [branch for branch in family.branches if branch.runs[0].run_id in event["run_ids"]]
            family = family.without(event["run_ids"])
            pool.work.add(ready)
        elif kind in ENDED:
            ended.add(event["run_id"])
        pool.events.put(event)
        if kind == "over":
            return family.without(ended)
    _record_death(pool, process, family, log)
    pool.events.put({"event": "over", "run_id": family.runs[0].run_id})
    return family


def _record_death(pool: Pool, process: subprocess.Popen[str], family: Family, log: Path) -> None:
    """A worker that died in a run: stopped when we asked for it, else a failure with the signal and its last words."""
    code = process.wait()
    if pool.stopping.is_set():
        for run in family.runs:
            pool.events.put({"event": "stopped", "run_id": run.run_id, "reason": "killed before it could save"})
        return
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    hint = " (out of memory?)" if code in (-signal.SIGKILL, -signal.SIGABRT) else ""
    reason = f"the worker process died: {cause}{hint}"
    for run in family.runs:
        write_text(pool.folder.failure(run.run_id), f"{reason}\n\n{log.read_text(encoding='utf-8', errors='replace')[-4000:]}")
        pool.events.put({"event": "failed", "run_id": run.run_id, "reason": reason})


def _close(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it may have gone already
        process.stdin.close()
    process.wait()


class _Signals:
    """SIGINT and SIGTERM while runs are in training: the first saves, the second kills."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.received = pool, None

    received: int | None

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received is not None, number
        self.pool.stop()
        for process in self.pool.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL if again else signal.SIGTERM)
