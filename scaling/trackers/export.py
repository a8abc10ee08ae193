"""What a tracker logs of a finished run, from its rows: its settings once, and its numbers step by
step; done again, it adds only the runs that are not there yet.

Names are `split/metric` as in the rows (`val/loss`, `train/grad_norm`; `val/loss_at_position/12`
where a metric has an argument), and `tokens`, `flops` and `seconds` at the same steps.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scaling import files
from scaling.config.sweep_file import load_run
from scaling.errors import ScalingError
from scaling.formatting import flatten
from scaling.store import run_files
from scaling.store.rows import DIVERGED
from scaling.trackers import default_out, open_tracker


@dataclass(frozen=True)
class Point:
    """Numbers of a run after `step` steps; `when` is in seconds since 1970."""

    step: int
    values: Mapping[str, float]
    when: float


@dataclass(frozen=True)
class RunLog:
    """A run as a tracker lists it: its sweep is the group (or experiment), its flat configuration
    the hyper-parameters, with its sweep, its counts and `status` (done or diverged).
    """

    run_id: str
    sweep: str
    settings: Mapping[str, int | float | str | bool]
    points: tuple[Point, ...]


def read_run_log(rows: pd.DataFrame, ended: float) -> RunLog:
    """A run from its rows; the last of them was measured at `ended` (seconds since 1970)."""
    run_id, sweep = (str(rows[name].iloc[0]) for name in ("run_id", "sweep"))
    counts = ("n_params", "n_params_nonembedding", "tokens", "flops")
    settings = {name: rows[name].max().item() for name in counts} | {"sweep": sweep}
    settings["status"] = "diverged" if (rows["metric"] == DIVERGED).any() else "done"
    run = load_run(rows["config"].iloc[0], f"run {run_id}")
    for name, value in flatten(run.model_dump(mode="json")):
        if value is not None:  # a list as JSON: no tracker takes it
            is_plain = isinstance(value, (int, float, str, bool))
            settings[name] = value if is_plain else json.dumps(value)
    points, last = [], rows["seconds"].max()
    for _, at_step in rows.groupby("step", sort=True):
        values = {name: float(at_step[name].max()) for name in ("tokens", "flops", "seconds")}
        when = ended - (last - values["seconds"])
        values |= dict(zip(map(series_name, at_step.itertuples()), at_step["value"], strict=True))
        points.append(Point(int(at_step["step"].iloc[0]), values, when))
    return RunLog(run_id, sweep, settings, tuple(points))


def series_name(row: Any) -> str:
    """The name of a row's series."""
    name = f"{row.split}/{row.metric}"
    if pd.isna(row.at):
        return name
    return f"{name}/{int(row.at) if row.at == int(row.at) else f'{row.at:g}'.replace('+', '')}"


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
        if isinstance(error, OSError) and error.filename:
            raise files.disk_error(error, Path(os.fsdecode(error.filename))) from error
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
