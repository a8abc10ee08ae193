"""What a worker process does: train one run after another and publish each; progress goes out as JSON lines."""

from __future__ import annotations

import dataclasses
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
    """What a worker trains: a run group of a sweep.

    Args:
        notes: what to record about it in the rows' metadata.
        lease: the file under which the runs are claimed; published only while it is there.
        send_metrics: send an event for each measurement, for trackers.
    """

    sweep: str
    group: RunGroup
    execution: Execution = field(default_factory=Execution)
    notes: Mapping[str, Any] = field(default_factory=dict)
    allow_changes: bool = False
    lease: str | None = None
    send_metrics: bool = False
    keep_weights: bool = False

    def dump(self) -> str:
        """One line of JSON; `load_request` reads it."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        converted = {
            "group": self.group.dump(),
            "execution": self.execution.model_dump(mode="json"),
            "notes": dict(self.notes),
        }
        return json.dumps(fields | converted)


def load_request(text: str) -> TrainRequest:
    """The request of `TrainRequest.dump`."""
    data = json.loads(text)
    converted = {
        "group": load_group(data["group"]),
        "execution": Execution.model_validate(data["execution"], strict=False),
    }
    return TrainRequest(**(data | converted))


def train_group(
    folder: SweepFolder, request: TrainRequest, *, should_stop: Callable[[], bool], emit: Emit
) -> dict[str, str]:
    """Train and publish the runs of a group; returns `done`, `diverged` or `stopped` for each run
    that has ended. Imports jax.

    A diverged run is published with its reason in failures/. Branches whose checkpoint is written
    are emitted as `branched`: any worker may train them.
    """
    from scaling.train import checkpointing, distributed, fingerprint, saved_params, trainer

    group, execution = request.group, request.execution
    fingerprint.on_warning(
        lambda text: emit({"event": "warning", "run_id": group.runs[0].run_id, "text": text})
    )
    pending = [run.run_id for run in group.all_runs()]

    def on_progress(progress: trainer.Progress) -> None:
        emit({"event": "progress", **asdict(progress), "run_ids": pending})

    def on_branch_saved(branch: RunGroup) -> None:
        run_ids = [run.run_id for run in branch.runs]
        for run_id in run_ids:
            pending.remove(run_id)
        emit({"event": "branched", "run_id": group.runs[0].run_id, "run_ids": run_ids})

    def on_eval(run: RunConfig, measurements: Sequence[rows.Measurement]) -> None:
        finite = [asdict(row) for row in measurements if math.isfinite(row.value)]
        if request.send_metrics and finite:
            emit({"event": "measured", "run_id": run.run_id, "rows": finite})

    def on_run_end(run: RunConfig, params: Any) -> None:
        if request.keep_weights:
            saved_params.save_params(folder.weights(run.run_id), run, params)

    outcomes = trainer.train(
        group,
        _open(group.runs[0].task),
        lambda member: folder.checkpoint(member.name),
        execution,
        should_stop=should_stop,
        callbacks=trainer.Callbacks(on_progress, on_branch_saved, on_eval, on_run_end),
        allow_changes=request.allow_changes,
    )
    kinds: dict[str, str] = {run_id: outcome.kind for run_id, outcome in outcomes.items()}
    if distributed.is_first():
        lease = Path(request.lease) if request.lease else None
        source = rows.Provenance(
            fingerprint.describe(),
            commit(),
            __version__,
            fingerprint.fingerprint(execution, len(group.runs)),
            request.notes,
        )
        for run in group.all_runs():
            if run.run_id in outcomes:
                event = publish(folder, request.sweep, run, outcomes[run.run_id], source, lease)
                kinds[run.run_id] = event["event"]
                emit(event)
    if "stopped" not in kinds.values():
        checkpointing.discard(folder.checkpoint(group.name), execution)
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
    emit({"event": "starting"})
    requests = _read_requests(flag)
    importlib.import_module("scaling.train.trainer")  # takes seconds: before the first request
    importlib.import_module("jax").devices()  # what jax cannot start with is no run's fault
    emit({"event": "ready", "pid": os.getpid()})
    while not flag() and (line := requests()) is not None:
        request = load_request(line)
        try:
            train_group(folder, request, should_stop=flag, emit=emit)
        except Exception as error:  # noqa: BLE001 - a run's failure is recorded; the sweep goes on
            for run in request.group.runs:
                emit(failed(run, error))
        emit({"event": "over", "run_id": request.group.runs[0].run_id})


def _read_requests(flag: StopFlag) -> Callable[[], str | None]:
    """The next request, or None at the end; a thread reads ahead, so that the end of the
    coordinator is noticed while training.
    """
    import queue

    waiting: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            waiting.put(line)
        waiting.put(None)
        flag.set()

    threading.Thread(target=read, daemon=True).start()
    return waiting.get
