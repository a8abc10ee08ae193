"""How a run ends on the disk: rows in the archive, a note where it diverged or failed, and nothing by whom it was taken from."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scaling import files
from scaling.accounting import n_params
from scaling.config import RunConfig
from scaling.errors import ScalingError
from scaling.execute.sweep_folder import SweepFolder
from scaling.formatting import format_count
from scaling.store import rows, run_files

PASSING = (
    "INTERNAL",
    "UNAVAILABLE",
    "ABORTED",
    "DATA_LOSS",
    "DEADLINE_EXCEEDED",
    "CANCELLED",
    "UNKNOWN",
)  # of XLA: a device or link
Emit = Callable[[dict[str, Any]], None]


def publish(
    folder: SweepFolder,
    sweep: str,
    run: RunConfig,
    outcome: Any,
    source: rows.Provenance,
    lease: Path | None,
) -> dict[str, Any]:
    """Write the rows of a run that is done or has diverged, once; returns the event that tells it.

    Where the `lease` under which it was trained has been ended by another process, nothing is written.
    """
    told = {
        "event": outcome.kind,
        "run_id": run.run_id,
        "reason": outcome.reason,
        "loss": _loss(outcome),
    }
    if outcome.kind == "stopped":
        return told
    if lease is not None and not files.exists(lease):
        return told | {"event": "stopped", "reason": "another process has taken this run over"}
    if outcome.kind == "diverged":
        folder.write_failure(run.run_id, outcome.reason)
    else:
        note = folder.failure(run.run_id)
        with files.guarded(note, "remove"):
            note.unlink(missing_ok=True)
    run_files.write_run(folder.path, rows.rows(sweep, run, outcome.measured, source))
    return told


def _loss(outcome: Any) -> float | None:
    losses = [
        item.value for item in outcome.measured if (item.split, item.metric) == ("val", "loss")
    ]
    return losses[-1] if losses else None


def failed(run: RunConfig, error: BaseException) -> dict[str, Any]:
    """The event of a run that an exception ended; `cause` decides whether it is tried again."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        error = files.disk_error(error, Path(error.filename or "."), "use")
    cause = cause_of(error)
    text = (
        str(error).replace("\n ", ";")
        if isinstance(error, ScalingError)
        else f"{type(error).__name__}: {error}"
    )
    if cause == "memory":
        size = f"N = {format_count(n_params(run.model, run.task.seq_len, 'total'))}, batch {run.batch_size} x {run.task.seq_len} tokens"
        text = f"out of memory ({size}): {text}"
    first = text.replace("\n", " ")[:500]
    code = error.exit_code if isinstance(error, ScalingError) else 1
    note = f"{first}\n\n{''.join(traceback.format_exception(error))}"
    return {
        "event": "failed",
        "run_id": run.run_id,
        "cause": cause,
        "text": note,
        "exit_code": code,
    }


def cause_of(error: BaseException) -> str:
    """`memory` (not tried again unchanged), `device` (may pass), `input`, or `bug`."""
    if isinstance(error, ScalingError):
        return "input"
    text = f"{type(error).__name__}: {error}"
    if (
        isinstance(error, MemoryError)
        or "RESOURCE_EXHAUSTED" in text
        or "out of memory" in text.lower()
    ):
        return "memory"
    if "RuntimeError" in type(error).__name__ and any(word in text for word in PASSING):
        return "device"
    return "bug"
