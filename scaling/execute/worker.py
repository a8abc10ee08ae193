"""What a worker process does: it trains one run after another and says so; a run ends on the disk
as its rows, or as a note of why it diverged or failed.
"""

from __future__ import annotations

import functools
import importlib
import os
import queue
import re
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from scaling import __version__, files
from scaling.accounting import n_params
from scaling.config import Execution, RunConfig, TaskConfig
from scaling.config.run_groups import RunGroup
from scaling.errors import DISK, ScalingError
from scaling.execute import events
from scaling.execute.events import FailureCause, RunEnded
from scaling.execute.signals import Signals
from scaling.execute.sweep_folder import SweepFolder
from scaling.formatting import format_count
from scaling.store import rows, run_files
from scaling.store.provenance import commit

MEMORY_CODES = {"RESOURCE_EXHAUSTED", "CUDA_ERROR_OUT_OF_MEMORY"}
DEVICE_CODES = {  # status codes of XLA that tell of a device or a link
    "INTERNAL",
    "UNAVAILABLE",
    "ABORTED",
    "DATA_LOSS",
    "DEADLINE_EXCEEDED",
    "CANCELLED",
    "UNKNOWN",
}


@dataclass(frozen=True)
class TrainRequest:
    """What a worker trains: a run group of a sweep.

    Args:
        lease: the name of the file under which the runs are claimed; published only while it is
            there.
        allow_changes: go on from a checkpoint that was written under other conditions.
        profile: a folder for a trace of some steps.
    """

    sweep: str
    group: RunGroup
    execution: Execution = field(default_factory=Execution)
    allow_changes: bool = False
    lease: str | None = None
    keep_weights: bool = False
    profile: str | None = None


REQUESTS: TypeAdapter[TrainRequest] = TypeAdapter(TrainRequest)  # a line of JSON each


def publish(
    folder: SweepFolder,
    sweep: str,
    run: RunConfig,
    outcome: rows.Outcome,
    source: rows.Provenance,
    lease: Path | None,
) -> RunEnded:
    """Write the rows of a run that is done or has diverged, once.

    Where the `lease` under which it was trained has been ended by another process, nothing is
    written.
    """
    losses = [row.value for row in outcome.measured if (row.split, row.metric) == ("val", "loss")]
    ended = RunEnded(
        event=outcome.kind,
        run_id=run.run_id,
        reason=outcome.reason,
        loss=losses[-1] if losses else None,
    )
    if outcome.kind == "stopped":
        return ended
    if lease is not None and not files.exists(lease):
        reason = "another process has taken this run over"
        return ended.model_copy(update={"event": "stopped", "reason": reason})
    if outcome.kind == "diverged":
        folder.write_failure(run.run_id, outcome.reason)
    else:
        folder.remove_failure(run.run_id)
    run_files.write_run(folder.path, rows.rows(sweep, run, outcome.measured, source))
    return ended


def failed(run: RunConfig, error: BaseException) -> RunEnded:
    """The end of a run that an exception ended."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        error = files.disk_error(error, Path(error.filename or "."), "use")
    cause = cause_of(error)
    if isinstance(error, ScalingError):
        reason = str(error).replace("\n ", ";")
    else:
        reason = f"{type(error).__name__}: {error}"
    if cause == FailureCause.MEMORY:
        size = format_count(n_params(run.model, run.task.seq_len, "total"))
        batch = f"batch {run.batch_size} x {run.task.seq_len} tokens"
        reason = f"out of memory (N = {size}, {batch}): {reason}"
    reason = reason.replace("\n", " ")[:500]
    details = f"{reason}\n\n{''.join(traceback.format_exception(error))}"
    return RunEnded(event="failed", run_id=run.run_id, reason=reason, cause=cause, details=details)


def cause_of(error: BaseException) -> FailureCause:
    """Decides whether a run is tried again: see `TRANSIENT`."""
    if isinstance(error, ScalingError):
        return FailureCause.DISK if error.exit_code == DISK else FailureCause.INPUT
    codes = set(re.findall(r"\b[A-Z_]{5,}\b", str(error)))
    if isinstance(error, MemoryError) or codes & MEMORY_CODES:
        return FailureCause.MEMORY
    if "RuntimeError" in type(error).__name__ and codes & DEVICE_CODES:
        return FailureCause.DEVICE
    return FailureCause.BUG


def train_group(
    folder: SweepFolder,
    request: TrainRequest,
    *,
    should_stop: Callable[[], bool],
    on_event: events.OnEvent,
) -> dict[str, str]:
    """Train and publish the runs of a group; returns `done`, `diverged` or `stopped` for each run
    that has ended. Imports jax.

    A diverged run is published with its reason in failures/. Branches whose checkpoint is written
    are announced as `Branched`: any worker may train them.
    """
    from scaling.train import checkpointing, distributed, fingerprint, saved_params, trainer

    group, execution = request.group, request.execution
    finished = {run.run_id for run in group.runs if folder.is_finished(run.run_id)}
    fingerprint.on_warning(
        lambda message: on_event(events.RunWarning(run_id=first, message=message))
    )
    pending = [run.run_id for run in group.all_runs() if run.run_id not in finished]
    first = pending[0]

    def on_progress(progress: trainer.Progress) -> None:
        shown = asdict(progress) | {"run_id": first, "run_ids": tuple(pending)}
        on_event(events.RunProgress(**shown))

    def on_branch_saved(branch: RunGroup) -> None:
        run_ids = tuple(run.run_id for run in branch.runs)
        for run_id in run_ids:
            pending.remove(run_id)
        on_event(events.Branched(run_id=first, run_ids=run_ids))

    def on_run_end(run: RunConfig, params: Any) -> None:
        if request.keep_weights:
            saved_params.save_params(folder.path_of("weights", run.run_id), run, params)

    outcomes = trainer.train(
        group,
        _open(group.runs[0].task),
        lambda member: folder.path_of(
            "prefix" if member in group.extensions else "checkpoint", member.name
        ),
        execution,
        should_stop=should_stop,
        callbacks=trainer.Callbacks(on_progress, on_branch_saved, on_run_end),
        allow_changes=request.allow_changes,
        profile=Path(request.profile) if request.profile else None,
    )
    kinds: dict[str, str] = {run_id: outcome.kind for run_id, outcome in outcomes.items()}
    if distributed.is_first():
        lease = folder.path_of("lease", request.lease) if request.lease else None
        source = rows.Provenance(
            fingerprint.describe(),
            commit(),
            __version__,
            fingerprint.fingerprint(execution, len(group.runs)),
            group.notes,
        )
        for run in group.all_runs():
            if run.run_id in outcomes and run.run_id not in finished:
                ended = publish(folder, request.sweep, run, outcomes[run.run_id], source, lease)
                kinds[run.run_id] = ended.event
                on_event(ended)
    if "stopped" not in kinds.values():
        checkpointing.discard(folder.path_of("checkpoint", group.name), execution)
    return kinds


@functools.lru_cache(maxsize=4)
def _open(task: TaskConfig) -> Any:
    from scaling.tasks import open_task

    return open_task(task)


def serve(path: Path, together: AbstractContextManager[bool] | None = None) -> None:
    """Train the groups that come in as lines on stdin, until it closes; events go out as lines.

    `together` makes this process one of several that train each run; it says whether this is the
    one that writes events.
    """
    protocol, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)  # whatever a library prints must not enter the protocol
    signals, folder = Signals(), SweepFolder(path)
    requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:  # a thread, so that the end of the coordinator is noticed while training
        for line in sys.stdin:
            requests.put(line)
        requests.put(None)
        signals.stop()

    with signals, together or nullcontext(True) as is_first:

        def write(event: events.RunEvent) -> None:
            try:
                if is_first:
                    print(event.model_dump_json(), file=protocol, flush=True)
            except BrokenPipeError:
                signals.stop()

        threading.Thread(target=read, daemon=True).start()
        importlib.import_module("scaling.train.trainer")  # takes seconds: before the first request
        importlib.import_module("jax").devices()  # what jax cannot start with is no run's fault
        write(events.WorkerReady())
        while not signals() and (line := requests.get()) is not None:
            request = REQUESTS.validate_json(line)
            try:
                train_group(folder, request, should_stop=signals, on_event=write)
            except Exception as error:  # noqa: BLE001 - recorded; the sweep goes on
                for run in request.group.runs:
                    write(failed(run, error))
            write(events.GroupFinished(run_id=request.group.runs[0].run_id))
