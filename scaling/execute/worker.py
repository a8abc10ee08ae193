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
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scaling import __version__, results
from scaling.config import Execution, RunConfig, TaskConfig
from scaling.errors import ScalingError
from scaling.execute.folder import SweepFolder
from scaling.family import Family, load_family

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Order:
    """What a worker is asked to do: a family of a sweep, how to carry it out, and what to note about it in the rows' metadata."""

    sweep: str
    family: Family
    how: Execution = field(default_factory=Execution)
    notes: Mapping[str, Any] = field(default_factory=dict)
    accept_other_machine: bool = False

    def dump(self) -> str:
        """One line of JSON; `load_order` reads it."""
        plain = {"family": self.family.dump(), "how": self.how.model_dump(mode="json")}
        rest = {"sweep": self.sweep, "notes": dict(self.notes), "accept_other_machine": self.accept_other_machine}
        return json.dumps(plain | rest)


def load_order(text: str) -> Order:
    """The order of `Order.dump`."""
    data = json.loads(text)
    parsed = {"family": load_family(data["family"]), "how": Execution.model_validate(data["how"], strict=False)}
    return Order(**(data | parsed))


def train_family(folder: SweepFolder, order: Order, *, should_stop: Callable[[], bool], emit: Emit) -> dict[str, str]:
    """Train and publish the runs of a family; returns `done`, `diverged` or `stopped` for each that has ended. Imports jax.

    A published run needs no checkpoint; a diverged one is published with its reason in failures/. Branches that have
    their checkpoint are emitted as `branched`: they are for whoever is free.
    """
    from scaling.lm import hosts, machine, resume, train

    family, how = order.family, order.how
    everyone = [run.run_id for run in family.everyone()]

    def progress(found: train.Progress) -> None:
        emit({"event": "progress", **asdict(found), "run_ids": everyone})

    def ready(branch: Family) -> None:
        for run in branch.runs:
            everyone.remove(run.run_id)
        emit({"event": "branched", "run_id": family.runs[0].run_id, "run_ids": [run.run_id for run in branch.runs]})

    outcomes = train.train(
        family, _open(family.runs[0].task), lambda member: folder.checkpoint(member.name), how,
        should_stop=should_stop, listener=train.Listener(progress, ready), accept_other_machine=order.accept_other_machine,
    )  # fmt: skip
    kinds: dict[str, str] = {run_id: outcome.kind for run_id, outcome in outcomes.items()}
    if hosts.is_first():
        source = results.Provenance(machine.describe(), commit(), __version__, machine.fingerprint(how, len(family.runs)), order.notes)
        for run in family.everyone():
            if run.run_id in outcomes:
                _publish(folder, order.sweep, run, outcomes[run.run_id], source, emit)
    if "stopped" not in kinds.values():
        resume.discard(folder.checkpoint(family.name), how)
    return kinds


def _publish(folder: SweepFolder, sweep: str, run: RunConfig, outcome: Any, source: results.Provenance, emit: Emit) -> None:
    if outcome.kind == "stopped":
        return emit({"event": "stopped", "run_id": run.run_id, "reason": outcome.reason})
    if outcome.kind == "diverged":
        results.write_text(folder.failure(run.run_id), outcome.reason + "\n")
    else:
        folder.failure(run.run_id).unlink(missing_ok=True)
    results.write_run(folder.path, results.rows(sweep, run, outcome.measured, source))
    loss = [item.value for item in outcome.measured if (item.split, item.metric) == ("val", "loss")]
    return emit({"event": outcome.kind, "run_id": run.run_id, "reason": outcome.reason, "loss": loss[-1] if loss else None})


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
        order = load_order(command)
        try:
            train_family(folder, order, should_stop=flag, emit=emit)
        except Exception as error:  # noqa: BLE001 - every failure of a run is an outcome: it is recorded, and the sweep goes on
            code = error.exit_code if isinstance(error, ScalingError) else 1
            for run in order.family.runs:
                emit({"event": "failed", "run_id": run.run_id, "text": failure_text(error), "exit_code": code})
        emit({"event": "over", "run_id": order.family.runs[0].run_id})


def _commands(flag: StopFlag) -> Callable[[], str | None]:
    """The next command, or None at the end; a thread reads ahead so that a vanished coordinator is noticed while training."""
    import queue

    waiting: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            waiting.put(line)
        waiting.put(None)
        flag.set()

    threading.Thread(target=read, daemon=True).start()
    return waiting.get
