"""Finished runs into a tracker, from their rows; done again, it adds only the runs that are not
there yet.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError
from scaling.store import run_files
from scaling.trackers import default_out, open_tracker
from scaling.trackers.run_log import read_run_log


def export(
    folder: Path, kind: str, out: str, on_message: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Log every run of a results folder to a tracker of a `kind`; returns counts of runs and
    numbers.

    Raises ScalingError where there is nothing to export, or the tracker refuses.
    """
    rows = run_files.load(folder)
    for corrupt in rows.attrs["corrupt"]:
        on_message(f"warning: not exported: {corrupt}")
    now, n_written, n_numbers = time.time(), 0, 0
    with _errors_name(kind, out):
        tracker = open_tracker(kind, out)
    for _, group in rows.groupby("run_id", sort=True):
        run = read_run_log(group, now)
        with _errors_name(kind, out):
            if tracker(run):
                n_written += 1
                n_numbers += sum(len(point.values) for point in run.points)
    return {
        "runs": int(rows["run_id"].nunique()),
        "runs_written": n_written,
        "numbers_written": n_numbers,
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


def main() -> None:
    """The process that logs the runs of a sweep in training: its arguments are the folder and the
    kind of tracker, and each line that comes in is a run that has ended.

    The libraries start threads, servers and network connections, and may hang; a process of its
    own can be given up.
    """
    os.dup2(2, 1)  # whatever a library prints
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    tracker = open_tracker(kind, default_out(folder, kind))
    for line in sys.stdin:
        tracker(read_run_log(run_files.read_run(folder, line.strip()), time.time()))


if __name__ == "__main__":
    main()
