"""TensorBoard: a folder of event files for each run, with its hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scaling.store.rows import EndKind
from scaling.trackers.run_log import Point, RunInfo, RunLog


class TensorBoardLog(RunLog):
    """The event files of one run, below `out/<sweep>/<run_id>`; a session that has something to
    write adds a file.
    """

    def __init__(self, out: Path, run: RunInfo) -> None:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        super().__init__(run)
        self._folder = out / run.sweep / run.run_id
        for path in sorted(self._folder.glob("events.out.tfevents.*")):
            for event in EventFileLoader(str(path)).Load():  # up to where the file was cut off
                for value in event.summary.value:
                    self.steps[value.tag].add(event.step)
        self._writer: EventFileWriter | None = None

    def write(self, point: Point) -> bool:
        """One scalar for each name."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder), flush_secs=5)
            settings = hparams_pb(
                dict(self.run.settings), trial_id=self.run.run_id, start_time_secs=point.when
            )
            self._writer.add_event(Event(step=0, summary=settings, wall_time=point.when))
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()
        ]
        summary = Summary(value=values)
        self._writer.add_event(Event(step=point.step, summary=summary, wall_time=point.when))
        return True

    def end(self, status: EndKind, points: Iterable[Point] = ()) -> None:
        """Close the file; TensorBoard shows no status of a run."""
        if self._writer is not None:
            self._writer.close()
