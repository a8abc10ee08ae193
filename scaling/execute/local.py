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

from scaling.errors import DISK
from scaling.execute.environment import worker_environment
from scaling.execute.folder import SweepFolder
from scaling.execute.tracker import ENDED, Tracker
from scaling.plan import PlannedRun
from scaling.results import write_text

PROGRESS_SECONDS = 1.0


@dataclass
class Pool:
    """What the coordinator knows while runs are in training; `listeners` are told every event."""

    folder: SweepFolder
    sweep: str
    waiting: queue.SimpleQueue[PlannedRun]
    listener: Callable[[dict[str, Any]], None]
    accept_other_machine: bool = False
    events: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue)
    stopping: threading.Event = field(default_factory=threading.Event)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    """How training a sweep ended: outcome counts, the signal that stopped it, and a disk failure's exit code."""

    counts: dict[str, int]
    signal: int | None
    exit_code: int = 0


def execute(
    folder: SweepFolder,
    sweep: str,
    runs: Sequence[PlannedRun],
    *,
    workers: int,
    listener: Callable[[dict[str, Any]], None],
    accept_other_machine: bool = False,
) -> Ended:
    """Train `runs` in `workers` processes; returns when all have ended, or after a signal when all are saved.

    The first SIGINT or SIGTERM asks every worker to save its state; a second one kills them.
    """
    waiting: queue.SimpleQueue[PlannedRun] = queue.SimpleQueue()
    for planned in sorted(runs, key=lambda item: -item.flops):
        waiting.put(planned)
    pool, tracker = Pool(folder, sweep, waiting, listener, accept_other_machine), Tracker(runs)
    count = min(workers, len(runs))
    threads = [threading.Thread(target=_attend, args=(pool, count, index), daemon=True) for index in range(count)]
    with _Signals(pool) as signals:
        for thread in threads:
            thread.start()
        exit_code = _collect(pool, tracker, threads)
    folder.progress.unlink(missing_ok=True)
    return Ended({kind: tracker.counts[kind] for kind in ENDED}, signals.received, exit_code)


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
            pool.stopping.set()
        pool.listener(event)
        if time.monotonic() - written > PROGRESS_SECONDS and exit_code == 0:
            live = {"runs": list(tracker.running.values()), "eta_seconds": tracker.eta_seconds}
            write_text(pool.folder.progress, json.dumps(live))
            written = time.monotonic()
    return exit_code


def _attend(pool: Pool, workers: int, index: int) -> None:
    """Keep one worker process busy; start another when it dies."""
    process: subprocess.Popen[str] | None = None
    log = pool.folder.path / "logs" / f"worker-{index}.log"
    while not pool.stopping.is_set():
        try:
            planned = pool.waiting.get_nowait()
        except queue.Empty:
            break
        if process is None or process.poll() is not None:
            process = _start(pool, workers, log)
        _train(pool, process, planned, log)
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


def _train(pool: Pool, process: subprocess.Popen[str], planned: PlannedRun, log: Path) -> None:
    """Hand one run to a worker and pass on what it says until the run has ended, one way or another."""
    assert process.stdin is not None
    assert process.stdout is not None
    command = {"run": planned.run.model_dump_json(), "sweep": pool.sweep, "accept_other_machine": pool.accept_other_machine}
    pool.folder.begin_attempt(planned.run_id)
    pool.events.put({"event": "started", "run_id": planned.run_id})
    with contextlib.suppress(BrokenPipeError):  # a worker that has died is told below, by the end of its stdout
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "failed":
            write_text(pool.folder.failure(planned.run_id), event["text"])
            event["reason"] = event["text"].partition("\n")[0]
        pool.events.put(event)
        if event["event"] in ("done", "diverged", "stopped", "failed"):
            return
    _record_death(pool, process, planned, log)


def _record_death(pool: Pool, process: subprocess.Popen[str], planned: PlannedRun, log: Path) -> None:
    """A worker that died in a run: stopped when we asked for it, else a failure with the signal and its last words."""
    code = process.wait()
    if pool.stopping.is_set():
        pool.events.put({"event": "stopped", "run_id": planned.run_id, "reason": "killed before it could save"})
        return
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    hint = " (out of memory?)" if code in (-signal.SIGKILL, -signal.SIGABRT) else ""
    reason = f"the worker process died: {cause}{hint}"
    write_text(pool.folder.failure(planned.run_id), f"{reason}\n\n{log.read_text(encoding='utf-8', errors='replace')[-4000:]}")
    pool.events.put({"event": "failed", "run_id": planned.run_id, "reason": reason})


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
        self.pool.stopping.set()
        for process in self.pool.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL if again else signal.SIGTERM)
