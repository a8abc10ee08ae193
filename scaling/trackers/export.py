"""A finished sweep into a tracker, from its rows; told again, it adds only what is not there yet, as far as the tracker takes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.config.sweep_file import load_run
from scaling.errors import ScalingError
from scaling.store import run_files
from scaling.store.rows import DIVERGED
from scaling.trackers.opened import opened
from scaling.trackers.series import DedupedRunLog, Log, Point, Status, about, last_values, points_of


def export(
    folder: Path, kind: str, out: str, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Log every run of a results folder to a tracker of a `kind`; returns counts of runs and numbers.

    Numbers at a step that the tracker is beyond are counted as refused, and said: W&B's history only goes forward.

    Raises ScalingError where there is nothing to export, or the tracker refuses.
    """
    rows = run_files.load(folder)
    for damaged in rows.attrs["corrupt"]:
        say(f"warning: not exported: {damaged}")
    now, written, told, refused = time.time(), 0, 0, 0
    with _calling(kind, out):
        tracker = opened(kind, out)
    for run_id, group in rows.groupby("run_id", sort=True):
        first = group.iloc[0]
        run = about(first["sweep"], load_run(first["config"], f"run {run_id}"))
        with _calling(kind, out):
            log = tracker.open(run)
        series, points = (
            DedupedRunLog(_ErrorPrefix(log, lambda: _calling(kind, out))),
            points_of(group, now),
        )
        fresh = series.add(points)
        series.log.end(
            "diverged" if (group["metric"] == DIVERGED).any() else "done", last_values(points)
        )
        written, told, refused = written + fresh, told + (fresh > 0), refused + series.refused
    if refused:
        say(
            f"warning: {kind} does not take {refused} numbers: they belong to steps before the last that it holds of their run"
        )
    return {
        "runs": int(rows["run_id"].nunique()),
        "runs_written": told,
        "numbers_written": written,
        "numbers_refused": refused,
        "to": kind,
        "out": out,
    }


@contextmanager
def _calling(kind: str, out: str) -> Iterator[None]:
    """Around what a tracker's library does, which raises errors of many types: all become a ScalingError that names it."""
    try:
        yield
    except ScalingError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        remedy = "mend that and export again: it goes on where it stopped"
        raise ScalingError(
            f"{kind} refuses: {type(error).__name__}: {reason}", where=out, remedy=remedy
        ) from error


@dataclass(frozen=True)
class _ErrorPrefix:
    """A log whose errors name its tracker."""

    log: Log
    calling: Callable[[], AbstractContextManager[None]]

    @property
    def held(self) -> Mapping[str, set[int]]:
        return self.log.held

    def write(self, point: Point) -> bool:
        with self.calling():
            return self.log.write(point)

    def end(self, status: Status, last: Mapping[str, float]) -> None:
        with self.calling():
            self.log.end(status, last)
