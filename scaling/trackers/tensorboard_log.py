"""TensorBoard: a folder of event files for each run, with its hyper-parameters."""

from __future__ import annotations

import shutil
from pathlib import Path

from scaling.trackers.export import RunLog


def log_tensorboard(out: Path, run: RunLog) -> bool:
    """Write the event file of a run into `out/<sweep>/<run_id>`, which is whole or absent."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = out / run.sweep / run.run_id
    if folder.exists():
        return False
    unfinished = folder.with_name(f".{run.run_id}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a kill has left
    writer, began = EventFileWriter(str(unfinished)), run.points[0].when
    settings = hparams_pb(dict(run.settings), trial_id=run.run_id, start_time_secs=began)
    writer.add_event(Event(step=0, summary=settings, wall_time=began))
    for point in run.points:
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()
        ]
        writer.add_event(
            Event(step=point.step, summary=Summary(value=values), wall_time=point.when)
        )
    writer.close()
    unfinished.rename(folder)
    return True
