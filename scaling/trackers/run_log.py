"""What a tracker logs of a run: its settings once, and its numbers step by step, none of them
twice.

Names are `split/metric` as in the rows (`val/loss`, `train/grad_norm`; `val/loss_at_position/12`
where a metric has an argument), `tokens`, `flops` and `seconds` at the same steps, and
`progress/...` between measurements, which no row holds.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from scaling import accounting
from scaling.config import RunConfig
from scaling.config.sweep_file import load_run
from scaling.formatting import flatten
from scaling.store.rows import EndKind, Measurement

PROGRESS = "progress/"
CLOCKS = ("tokens", "flops", "seconds")
Setting = int | float | str | bool


@dataclass(frozen=True)
class RunInfo:
    """A run as a tracker lists it: its sweep is the group (or experiment), its flat configuration
    the hyper-parameters.
    """

    run_id: str
    sweep: str
    settings: Mapping[str, Setting]


@dataclass(frozen=True)
class Point:
    """Numbers of a run after `step` steps; `when` is in seconds since 1970."""

    step: int
    values: Mapping[str, float]
    when: float


@dataclass(frozen=True)
class RunUpdate:
    """What is new of a run in training; with a `status` it has ended."""

    run: RunInfo
    points: tuple[Point, ...] = ()
    status: EndKind | None = None


class RunLog(ABC):
    """A run in a tracker that gets no number twice: a run that continues from its checkpoint passes
    steps again. A tracker's own class says which `steps` of each name it has, from whatever
    session, and how to `write` and `end`.
    """

    def __init__(self, run: RunInfo) -> None:
        self.run = run
        self.steps: dict[str, set[int]] = defaultdict(set)
        self.refused = 0  # numbers that the tracker does not take

    @abstractmethod
    def write(self, point: Point) -> bool:
        """Add new numbers; False where it does not take them, for it has a later step."""

    @abstractmethod
    def end(self, status: EndKind, points: Iterable[Point] = ()) -> None:
        """Close it; `points` are all of the run's rows."""

    def add(self, points: Iterable[Point]) -> int:
        """Write what the tracker lacks, in order of steps; returns how many numbers it took."""
        count = 0
        for point in sorted(points, key=lambda point: point.step):
            new = {
                name: value
                for name, value in point.values.items()
                if (
                    point.step > max(self.steps[name], default=-1)
                    if name.startswith(PROGRESS)
                    else point.step not in self.steps[name]
                )
            }
            if set(new) <= set(CLOCKS):
                continue
            if not self.write(Point(point.step, new, point.when)):
                self.refused += len(new)
                continue
            for name in new:
                self.steps[name].add(point.step)
            count += len(new)
        return count


Tracker = Callable[[RunInfo], RunLog]  # begins a run, or goes on with the one of this id


def run_info(sweep: str, run: RunConfig) -> RunInfo:
    """A run with every field of its configuration, and its counts of parameters, tokens and FLOPs
    (exact).
    """
    model, seq_len = run.model, run.task.seq_len
    settings: dict[str, Setting] = {
        "sweep": sweep,
        "n_params": accounting.n_params(model, seq_len, "total"),
        "n_params_nonembedding": accounting.n_params(model, seq_len, "nonembedding"),
        "tokens": run.tokens,
        "flops": accounting.train_flops(model, seq_len, run.tokens, "exact"),
    }
    for name, value in flatten(run.model_dump(mode="json")):
        if value is not None:  # a list as JSON: no tracker takes it
            is_plain = isinstance(value, (int, float, str, bool))
            settings[name] = value if is_plain else json.dumps(value)
    return RunInfo(run.run_id, sweep, settings)


def series_name(row: Measurement) -> str:
    """The name of a row's series."""
    name = f"{row.split}/{row.metric}"
    if row.at is None:
        return name
    return f"{name}/{int(row.at) if row.at == int(row.at) else f'{row.at:g}'.replace('+', '')}"


def points_of(run: RunConfig, rows: Iterable[Measurement], ended: float) -> tuple[Point, ...]:
    """The points of a run's rows; the last of them was measured at `ended` (seconds since 1970)."""
    rows = sorted(rows, key=lambda row: row.step)
    last = max(row.seconds for row in rows)
    points = []
    for step, group in groupby(rows, key=lambda row: row.step):
        at_step = list(group)
        tokens, seconds = step * run.batch_tokens, max(row.seconds for row in at_step)
        values = {series_name(row): row.value for row in at_step} | {
            "tokens": float(tokens),
            "flops": accounting.train_flops(run.model, run.task.seq_len, tokens, "exact"),
            "seconds": seconds,
        }
        points.append(Point(step, values, ended - (last - seconds)))
    return tuple(points)


def read_points(rows: pd.DataFrame, ended: float) -> tuple[RunInfo, tuple[Point, ...]]:
    """A run that has ended and its points, from its rows; the last was measured at `ended`."""
    run = load_run(rows["config"].iloc[0], f"run {rows['run_id'].iloc[0]}")
    columns = ["step", "split", "metric", "value", "at", "seconds"]
    measured = [
        Measurement(**row | {"at": None if pd.isna(row["at"]) else row["at"]})
        for row in rows[columns].astype({"value": float}).to_dict("records")
    ]
    return run_info(rows["sweep"].iloc[0], run), points_of(run, measured, ended)
