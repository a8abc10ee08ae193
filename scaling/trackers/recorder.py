"""The process beside a sweep that talks to one tracker: events come in as JSON lines, and nothing that happens here reaches the sweep.

The trackers' libraries start threads, servers and network connections, and may hang; a process of its own can be given up.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scaling.config import RunConfig
from scaling.config.sweep_file import load_run
from scaling.store import run_files
from scaling.store.rows import Measurement
from scaling.trackers.opened import opened, place
from scaling.trackers.series import (
    PROGRESS,
    DedupedRunLog,
    Point,
    Tracker,
    about,
    last_values,
    measured_point,
    points_of,
)


class Recorder:
    """Follows the runs of one sweep's folder and logs them to a tracker."""

    def __init__(self, folder: Path, sweep: str, tracker: Tracker) -> None:
        self.folder, self.sweep, self.tracker = folder, sweep, tracker
        self.runs: dict[str, RunConfig] = {}
        self.open: dict[str, DedupedRunLog] = {}

    def handle(self, event: dict[str, Any]) -> None:
        """Take in one event of the sweep: `run` introduces a run, all others are as the coordinator tells them."""
        kind, run_id = event["event"], event["run_id"]
        if kind == "run":
            self.runs[run_id] = load_run(event["config"], f"run {run_id}")
        elif kind == "progress":
            values = {
                f"{PROGRESS}loss": event["loss"],
                f"{PROGRESS}tokens_per_second": event["tokens_per_second"],
            }
            self._series(run_id).add([Point(event["step"], values, time.time())])
        elif kind == "measured":
            rows = [Measurement(**row) for row in event["rows"]]
            self._series(run_id).add([measured_point(self.runs[run_id], rows, time.time())])
        elif kind in ("done", "diverged"):
            self._conclude(run_id, kind)
        elif run_id in self.open:
            self.open.pop(run_id).log.end("failed" if kind == "failed" else "stopped", {})

    def _series(self, run_id: str) -> DedupedRunLog:
        if run_id not in self.open:
            self.open[run_id] = DedupedRunLog(
                self.tracker.open(about(self.sweep, self.runs[run_id]))
            )
        return self.open[run_id]

    def _conclude(self, run_id: str, kind: Any) -> None:
        """A published run: whatever its rows hold beyond what was logged while it trained."""
        points = points_of(run_files.read_run(self.folder, run_id), time.time())
        series = self._series(run_id)
        series.add(points)
        self.open.pop(run_id).log.end(kind, last_values(points))

    def close(self) -> None:
        """The sweep has ended or gone away; runs that are still open go on in another sitting."""
        for series in self.open.values():
            series.log.end("stopped", {})


def record(lines: Iterable[str], folder: Path, sweep: str, kind: str) -> None:
    """Log what comes in until it ends."""
    recorder = Recorder(folder, sweep, opened(kind, place(folder, kind)))
    for line in lines:
        recorder.handle(json.loads(line))
    recorder.close()


def main() -> None:
    """The process: folder, sweep and kind are its arguments; what goes wrong is its only line on stdout."""
    folder, sweep, kind = sys.argv[1:]
    answer, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)  # whatever a library prints
    try:
        record(sys.stdin, Path(folder), sweep, kind)
    except Exception as error:
        print(
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", file=answer, flush=True
        )
        raise


if __name__ == "__main__":
    main()
