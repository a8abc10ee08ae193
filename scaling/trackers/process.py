"""The process that talks to the trackers of a sweep in training: updates come in as JSON lines.

The trackers' libraries start threads, servers and network connections, and may hang; a process of
its own can be given up.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from scaling.store import run_files
from scaling.trackers import default_out, open_tracker
from scaling.trackers.run_log import RunLog, RunUpdate, Tracker, read_points

UPDATES: TypeAdapter[RunUpdate] = TypeAdapter(RunUpdate)


class Recorder:
    """Logs the runs of one sweep's folder to a tracker."""

    def __init__(self, folder: Path, tracker: Tracker) -> None:
        self.folder, self.tracker = folder, tracker
        self.logs: dict[str, RunLog] = {}

    def handle(self, update: RunUpdate) -> None:
        """Log an update; of a published run whatever its rows hold that was not logged before."""
        run_id, points = update.run.run_id, update.points
        published = update.status in ("done", "diverged")
        if run_id not in self.logs and (points or published):
            self.logs[run_id] = self.tracker(update.run)
        if published:
            _, points = read_points(run_files.read_run(self.folder, run_id), time.time())
        if run_id in self.logs:
            self.logs[run_id].add(points)
            if update.status is not None:
                self.logs.pop(run_id).end(update.status, points if published else ())

    def close(self) -> None:
        """The sweep has ended or gone away; unfinished runs go on in another session."""
        for log in self.logs.values():
            log.end("stopped")


def record(
    lines: Iterable[str], folder: Path, kinds: Iterable[str], on_failure: Callable[[str], object]
) -> None:
    """Log the updates that come in to every tracker until they end; one that fails is reported as
    a line `kind reason`, and gets no more.
    """
    recorders: dict[str, Recorder] = {}

    @contextmanager
    def attempt(kind: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - of any library; the other trackers go on
            traceback.print_exc()
            recorders.pop(kind, None)
            reason = " ".join(str(error).split())[:300]
            on_failure(f"{kind} {type(error).__name__}: {reason}")

    for kind in kinds:
        with attempt(kind):
            recorders[kind] = Recorder(folder, open_tracker(kind, default_out(folder, kind)))
    for line in lines:
        update = UPDATES.validate_json(line)
        for kind, recorder in list(recorders.items()):
            with attempt(kind):
                recorder.handle(update)
    for kind, recorder in list(recorders.items()):
        with attempt(kind):
            recorder.close()


def main() -> None:
    """The process: the folder and the kinds are its arguments; what goes wrong is a line of its
    stdout for each tracker.
    """
    answer, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)  # whatever a library prints
    record(
        sys.stdin,
        Path(sys.argv[1]),
        sys.argv[2:],
        lambda line: print(line, file=answer, flush=True),
    )


if __name__ == "__main__":
    main()
