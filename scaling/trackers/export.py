"""A finished sweep into a tracker, from its rows; done again, it adds only what is not there yet,
as far as the tracker takes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError
from scaling.store import run_files
from scaling.store.rows import DIVERGED
from scaling.trackers import open_tracker
from scaling.trackers.run_log import read_points


def export(
    folder: Path, kind: str, out: str, on_message: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Log every run of a results folder to a tracker of a `kind`; returns counts of runs and
    numbers.

    Numbers at a step that the tracker is beyond are counted as refused: W&B's history only goes
    forward. Raises ScalingError where there is nothing to export, or the tracker refuses.
    """
    rows = run_files.load(folder)
    for corrupt in rows.attrs["corrupt"]:
        on_message(f"warning: not exported: {corrupt}")
    now, n_numbers, n_written, n_refused = time.time(), 0, 0, 0
    with _errors_name(kind, out):
        tracker = open_tracker(kind, out)
    for _, group in rows.groupby("run_id", sort=True):
        info, points = read_points(group, now)
        with _errors_name(kind, out):
            log = tracker(info)
            added = log.add(points)
            log.end("diverged" if (group["metric"] == DIVERGED).any() else "done", points)
        n_numbers, n_written = n_numbers + added, n_written + (added > 0)
        n_refused += log.refused
    if n_refused:
        on_message(
            f"warning: {kind} does not take {n_refused} numbers: they belong to steps before the "
            "last that it has of their run"
        )
    return {
        "runs": int(rows["run_id"].nunique()),
        "runs_written": n_written,
        "numbers_written": n_numbers,
        "numbers_refused": n_refused,
        "to": kind,
        "out": out,
    }


@contextmanager
def _errors_name(kind: str, out: str) -> Iterator[None]:
    """A tracker's library raises errors of many types: all become a ScalingError that names it."""
    try:
        yield
    except ScalingError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ScalingError(
            f"{kind} refuses: {type(error).__name__}: {reason}",
            where=out,
            remedy="fix that and export again: it goes on where it stopped",
        ) from error
