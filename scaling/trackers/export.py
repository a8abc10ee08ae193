"""A finished sweep into a tracker, from its rows; told again, it adds only what is not there yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scaling import archive
from scaling.errors import ScalingError
from scaling.results import DIVERGED
from scaling.sweepfile import load_run
from scaling.trackers.opened import opened
from scaling.trackers.series import Series, about, last_values, points_of


def export(folder: Path, kind: str, out: str, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Log every run of a results folder to a tracker of a `kind`; returns counts of runs and numbers.

    Raises ScalingError where there is nothing to export, or the tracker refuses.
    """
    rows = archive.load(folder)
    for damaged in rows.attrs["damaged"]:
        say(f"warning: not exported: {damaged}")
    now, written, told = time.time(), 0, 0
    try:
        tracker = opened(kind, out)
        for run_id, group in rows.groupby("run_id", sort=True):
            first = group.iloc[0]
            series = Series(tracker.open(about(first["sweep"], load_run(first["config"], f"run {run_id}"))))
            points = points_of(group, now)
            fresh = series.add(points)
            series.log.end("diverged" if (group["metric"] == DIVERGED).any() else "done", last_values(points))
            written, told = written + fresh, told + (fresh > 0)
    except ScalingError:
        raise
    except Exception as error:  # the libraries raise errors of many types
        reason = " ".join(str(error).split())[:200]
        remedy = "mend that and export again: it goes on where it stopped"
        raise ScalingError(f"{kind} refuses: {type(error).__name__}: {reason}", where=out, remedy=remedy) from error
    return {"runs": int(rows["run_id"].nunique()), "runs_written": told, "numbers_written": written, "to": kind, "out": out}
