"""What a worker process does: train one run after another and publish each; progress goes out as JSON lines."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scaling import __version__, results
from scaling.config import RunConfig, TaskConfig
from scaling.errors import ScalingError
from scaling.execute.folder import SweepFolder
from scaling.sweepfile import load_run

Emit = Callable[[dict[str, Any]], None]


def train_one(
    folder: SweepFolder, sweep: str, run: RunConfig, *, should_stop: Callable[[], bool], emit: Emit, accept_other_machine: bool = False
) -> str:
    """Train and publish one run; returns `done`, `diverged` or `stopped`. Imports jax.

    A published run needs no checkpoint; a diverged one is published with its reason in failures/.
    """
    from scaling.lm import machine, train

    task = _open(run.task)
    outcome = train.train(
        run,
        task,
        folder.checkpoint(run.run_id),
        should_stop=should_stop,
        report=lambda progress: emit({"event": "progress", **asdict(progress)}),
        accept_other_machine=accept_other_machine,
    )
    if outcome.kind == "stopped":
        emit({"event": "stopped", "run_id": run.run_id, "reason": outcome.reason})
        return outcome.kind
    source = results.Provenance(machine.describe(), commit(), __version__, machine.fingerprint())
    if outcome.kind == "diverged":
        results.write_text(folder.failure(run.run_id), outcome.reason + "\n")
    else:
        folder.failure(run.run_id).unlink(missing_ok=True)
    results.write_run(folder.path, results.rows(sweep, run, outcome.measured, source))
    folder.checkpoint(run.run_id).unlink(missing_ok=True)
    loss = [item.value for item in outcome.measured if (item.split, item.metric) == ("val", "loss")]
    emit({"event": outcome.kind, "run_id": run.run_id, "reason": outcome.reason, "loss": loss[-1] if loss else None})
    return outcome.kind


@functools.lru_cache(maxsize=4)
def _open(task: TaskConfig) -> Any:
    from scaling.tasks import open_task

    return open_task(task)


@functools.lru_cache(maxsize=1)
def commit() -> str | None:
    """The commit of this program's checkout, or None where it is installed without one."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def failure_text(error: BaseException) -> str:
    """What a failure note holds: one line with the kind of failure, then the traceback."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        text = f"out of memory: {text}"
    elif isinstance(error, ScalingError):
        text = str(error).replace("\n ", ";")
    return text.replace("\n", " ")[:500] + "\n\n" + "".join(traceback.format_exception(error))


class StopFlag:
    """Set by SIGTERM or SIGINT, or when the coordinator goes away; the run then saves itself at the next dispatch."""

    def __init__(self) -> None:
        self._event = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._event.set())

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask the run to save itself and stop."""
        self._event.set()


def serve(path: Path) -> None:
    """Train the runs that come in as JSON lines on stdin, until it closes; the coordinator reads our stdout."""
    protocol, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not enter the protocol
    flag, folder = StopFlag(), SweepFolder(path)
    commands = _commands(flag)

    def emit(event: dict[str, Any]) -> None:
        try:
            print(json.dumps(event, allow_nan=False), file=protocol, flush=True)
        except BrokenPipeError:
            flag.set()

    emit({"event": "ready", "pid": os.getpid()})
    while not flag() and (command := commands()) is not None:
        run = load_run(command["run"], "worker")
        try:
            train_one(folder, command["sweep"], run, should_stop=flag, emit=emit, accept_other_machine=command["accept_other_machine"])
        except Exception as error:  # noqa: BLE001 - every failure of a run is an outcome: it is recorded, and the sweep goes on
            code = error.exit_code if isinstance(error, ScalingError) else 1
            emit({"event": "failed", "run_id": run.run_id, "text": failure_text(error), "exit_code": code})


def _commands(flag: StopFlag) -> Callable[[], dict[str, Any] | None]:
    """The next command, or None at the end; a thread reads ahead so that a vanished coordinator is noticed while training."""
    import queue

    waiting: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            waiting.put(json.loads(line))
        waiting.put(None)
        flag.set()

    threading.Thread(target=read, daemon=True).start()
    return waiting.get
