"""What a worker process does: train one run after another and publish each; progress goes out as JSON lines."""

from __future__ import annotations

import functools
import importlib
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from scaling import __version__
from scaling.config import Execution, RunConfig, TaskConfig
from scaling.config.run_groups import RunGroup, load_group
from scaling.execute.publish import Emit, failed, publish
from scaling.execute.signals import HANDLED
from scaling.execute.sweep_folder import SweepFolder
from scaling.store import rows
from scaling.store.provenance import commit


@dataclass(frozen=True)
class TrainRequest:
    """What a worker is asked to do: a family of a sweep, how to carry it out, and what to note about it in the rows' metadata."""

    sweep: str
    family: RunGroup
    how: Execution = field(default_factory=Execution)
    notes: Mapping[str, Any] = field(default_factory=dict)
    accept_other_machine: bool = False
    lease: str | None = None
    follow: bool = False  # tell what is measured, for trackers
    keep_weights: bool = False

    def dump(self) -> str:
        """One line of JSON; `load_order` reads it."""
        plain = {"family": self.family.dump(), "how": self.how.model_dump(mode="json")}
        rest = {
            "sweep": self.sweep,
            "notes": dict(self.notes),
            "accept_other_machine": self.accept_other_machine,
            "lease": self.lease,
        }
        return json.dumps(plain | rest | {"follow": self.follow, "keep_weights": self.keep_weights})


def load_order(text: str) -> TrainRequest:
    """The order of `Order.dump`."""
    data = json.loads(text)
    parsed = {
        "family": load_group(data["family"]),
        "how": Execution.model_validate(data["how"], strict=False),
    }
    return TrainRequest(**(data | parsed))


def train_family(
    folder: SweepFolder, order: TrainRequest, *, should_stop: Callable[[], bool], emit: Emit
) -> dict[str, str]:
    """Train and publish the runs of a family; returns `done`, `diverged` or `stopped` for each that has ended. Imports jax.

    A published run needs no checkpoint; a diverged one is published with its reason in failures/. Branches that have
    their checkpoint are emitted as `branched`: they are for whoever is free.
    """
    from scaling.train import checkpointing, distributed, fingerprint, saved_params, trainer

    family, how = order.family, order.how
    fingerprint.on_warning(
        lambda text: emit({"event": "warning", "run_id": family.runs[0].run_id, "text": text})
    )
    everyone = [run.run_id for run in family.all_runs()]

    def progress(found: trainer.Progress) -> None:
        emit({"event": "progress", **asdict(found), "run_ids": everyone})

    def ready(branch: RunGroup) -> None:
        for run in branch.runs:
            everyone.remove(run.run_id)
        emit(
            {
                "event": "branched",
                "run_id": family.runs[0].run_id,
                "run_ids": [run.run_id for run in branch.runs],
            }
        )

    def measured(run: RunConfig, rows: Sequence[rows.Measurement]) -> None:
        told = [asdict(row) for row in rows if math.isfinite(row.value)]
        if order.follow and told:
            emit({"event": "measured", "run_id": run.run_id, "rows": told})

    def ended(run: RunConfig, params: Any) -> None:
        if order.keep_weights:
            saved_params.save_params(folder.weights(run.run_id), run, params)

    outcomes = trainer.train(
        family,
        _open(family.runs[0].task),
        lambda member: folder.checkpoint(member.name),
        how,
        should_stop=should_stop,
        callbacks=trainer.Callbacks(progress, ready, measured, ended),
        allow_changes=order.accept_other_machine,
    )
    kinds: dict[str, str] = {run_id: outcome.kind for run_id, outcome in outcomes.items()}
    if distributed.is_first():
        lease = Path(order.lease) if order.lease else None
        source = rows.Provenance(
            fingerprint.describe(),
            commit(),
            __version__,
            fingerprint.fingerprint(how, len(family.runs)),
            order.notes,
        )
        for run in family.all_runs():
            if run.run_id in outcomes:
                told = publish(folder, order.sweep, run, outcomes[run.run_id], source, lease)
                kinds[run.run_id] = told["event"]
                emit(told)
    if "stopped" not in kinds.values():
        checkpointing.discard(folder.checkpoint(family.name), how)
    return kinds


@functools.lru_cache(maxsize=4)
def _open(task: TaskConfig) -> Any:
    from scaling.tasks import open_task

    return open_task(task)


class StopFlag:
    """Set by a signal, or when the coordinator goes away; the run then saves itself at the next dispatch."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.received: int | None = None
        for number in HANDLED:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        self._event.set()

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask the run to save itself and stop."""
        self._event.set()


def serve(path: Path, together: AbstractContextManager[bool] | None = None) -> None:
    """Train the runs that come in as JSON lines on stdin, until it closes; the coordinator reads our stdout.

    `together` makes this process one of several that train each run; it says whether this is the one that tells.
    """
    protocol, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)  # whatever a library prints must not enter the protocol
    flag, folder = StopFlag(), SweepFolder(path)
    with together or nullcontext(True) as first:
        _serve(folder, flag, _event_writer(protocol, flag) if first else lambda event: None)


def _event_writer(protocol: TextIO, flag: StopFlag) -> Emit:
    def emit(event: dict[str, Any]) -> None:
        try:
            print(json.dumps(event, allow_nan=False), file=protocol, flush=True)
        except BrokenPipeError:
            flag.set()

    return emit


def _serve(folder: SweepFolder, flag: StopFlag, emit: Emit) -> None:
    commands = _commands(flag)
    importlib.import_module(
        "scaling.train.trainer"
    )  # takes seconds: not when the first order has come
    emit({"event": "ready", "pid": os.getpid()})
    while not flag() and (command := commands()) is not None:
        order = load_order(command)
        try:
            train_family(folder, order, should_stop=flag, emit=emit)
        except Exception as error:  # noqa: BLE001 - every failure of a run is an outcome: it is recorded, and the sweep goes on
            for run in order.family.runs:
                emit(failed(run, error))
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
