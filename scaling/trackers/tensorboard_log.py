"""TensorBoard: a folder of event files a run, with its hyper-parameters; a run that goes on adds a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from scaling.trackers.series import Point, RunInfo, Status


class TensorBoard:
    """Event files below `out`: `out/<sweep>/<run_id>`."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def open(self, about: RunInfo) -> TensorBoardLog:
        """The run's folder."""
        return TensorBoardLog(self.out / about.sweep / about.run_id, about)


class TensorBoardLog:
    """The event files of one run. A file is made when there is something to write."""

    def __init__(self, folder: Path, about: RunInfo) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.held = _steps(folder)
        self._folder, self._about = folder, about
        self._writer: EventFileWriter | None = None

    def write(self, point: Point) -> bool:
        """A scalar a name."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(
            point.step,
            Summary(
                value=[
                    Summary.Value(tag=name, simple_value=value)
                    for name, value in point.values.items()
                ]
            ),
            point.when,
        )
        return True

    def _write(self, step: int, summary: object, when: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder), flush_secs=5)
            told = hparams_pb(
                dict(self._about.settings), trial_id=self._about.run_id, start_time_secs=when
            )
            self._writer.add_event(Event(step=0, summary=told, wall_time=when))
        self._writer.add_event(Event(step=step, summary=summary, wall_time=when))

    def end(self, status: Status, last: Mapping[str, float]) -> None:
        """Close the file; TensorBoard has no status of a run that is worth a file of its own."""
        if self._writer is not None:
            self._writer.close()


def _steps(folder: Path) -> dict[str, set[int]]:
    """The steps that event files hold of each tag; of a file that was cut off, those before the cut."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, set[int]] = defaultdict(set)
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found[value.tag].add(event.step)
    return found
