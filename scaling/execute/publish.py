"""How a run ends on the disk: its rows, or a note of why it diverged or failed."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from scaling import files
from scaling.accounting import n_params
from scaling.config import RunConfig
from scaling.errors import DISK, ScalingError
from scaling.execute.events import FailureCause, RunEnded
from scaling.execute.sweep_folder import SweepFolder
from scaling.formatting import format_count
from scaling.store import rows, run_files

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
