"""What a tracker is told of a run: its settings once, and its numbers step by step, none of them twice.

Names are `split/metric` as in the rows (`val/loss`, `train/grad_norm`; `val/loss_at_position/12` where a metric has an argument),
`tokens`, `flops` and `seconds` at the same steps, and `progress/...` between measurements, which no row holds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pandas as pd

from scaling import accounting
from scaling.config import RunConfig
from scaling.formatting import flatten
from scaling.store.rows import Measurement

PROGRESS = "progress/"
Setting = int | float | str | bool
Status = Literal["done", "diverged", "failed", "stopped"]


@dataclass(frozen=True)
class RunInfo:
    """A run as a tracker lists it: its sweep is the group (or experiment), its flat configuration the hyper-parameters."""

    run_id: str
    sweep: str
    settings: Mapping[str, Setting]


@dataclass(frozen=True)
class Point:
    """Numbers of a run after `step` steps; `when` is in seconds since 1970."""

    step: int
    values: Mapping[str, float]
    when: float


class Log(Protocol):
    """A run in a tracker."""

    @property
    def held(self) -> Mapping[str, set[int]]:
        """The steps that it has of each name, from whatever sitting."""

    def write(self, point: Point) -> bool:
        """Add numbers that it does not hold; False where it does not take them, for it has a later step."""

    def end(self, status: Status, last: Mapping[str, float]) -> None:
        """Close it; `last` are the last values of the run's rows."""


class Tracker(Protocol):
    """Where runs are logged."""

    def open(self, about: RunInfo) -> Log:
        """Begin a run, or go on with the one of this id."""


@dataclass
class DedupedRunLog:
    """A run in a tracker, which is never told a number twice: a run that goes on from its checkpoint passes steps again."""

    log: Log
    held: dict[str, set[int]] = field(init=False)
    refused: int = 0  # numbers that the tracker does not take

    def __post_init__(self) -> None:
        self.held = defaultdict(set, {name: set(steps) for name, steps in self.log.held.items()})

    def add(self, points: Iterable[Point]) -> int:
        """Write what the tracker lacks, in order of steps; returns how many numbers it took."""
        count = 0
        for point in sorted(points, key=lambda point: point.step):
            fresh = {
                name: value
                for name, value in point.values.items()
                if self._is_new(name, point.step)
            }
            if all(name in ("tokens", "flops", "seconds") for name in fresh):
                continue
            if not self.log.write(Point(point.step, fresh, point.when)):
                self.refused += len(fresh)
                continue
            for name in fresh:
                self.held[name].add(point.step)
            count += len(fresh)
        return count

    def _is_new(self, name: str, step: int) -> bool:
        held = self.held[name]
        return step > max(held, default=-1) if name.startswith(PROGRESS) else step not in held


def about(sweep: str, run: RunConfig) -> RunInfo:
    """A run with every field of its configuration, and its counts of parameters, tokens and FLOPs (exact)."""
    model, seq_len = run.model, run.task.seq_len
    counts: dict[str, Setting] = {
        "sweep": sweep,
        "n_params": accounting.n_params(model, seq_len, "total"),
        "n_params_nonembedding": accounting.n_params(model, seq_len, "nonembedding"),
        "tokens": run.tokens,
        "flops": accounting.train_flops(model, seq_len, run.tokens, "exact"),
    }
    fields = {
        name: _setting(value)
        for name, value in flatten(run.model_dump(mode="json"))
        if value is not None
    }
    return RunInfo(run.run_id, sweep, counts | fields)


def _setting(value: Any) -> Setting:
    """What a tracker takes as a hyper-parameter: a list is told as JSON."""
    return value if isinstance(value, (int, float, str, bool)) else json.dumps(value)


def name_of(split: str, metric: str, at: float | None) -> str:
    """The name of a row's series."""
    if at is None or pd.isna(at):
        return f"{split}/{metric}"
    return f"{split}/{metric}/{int(at) if float(at).is_integer() else f'{at:g}'.replace('+', '')}"


def points_of(rows: pd.DataFrame, ended: float) -> list[Point]:
    """The points of one run's rows; the last of them was measured at `ended` (seconds since 1970)."""
    last, found = float(rows["seconds"].max()), []
    for step, group in rows.groupby("step", sort=True):
        names = [
            name_of(*key) for key in zip(group["split"], group["metric"], group["at"], strict=True)
        ]
        first = group.iloc[0]
        seconds = float(group["seconds"].max())
        values = dict(zip(names, group["value"].astype(float), strict=True))
        values |= {
            "tokens": float(first["tokens"]),
            "flops": float(first["flops"]),
            "seconds": seconds,
        }
        found.append(Point(int(step), values, ended - (last - seconds)))  # type: ignore[arg-type]
    return found


def measured_point(run: RunConfig, rows: Iterable[Measurement], when: float) -> Point:
    """The point of what was measured at one step of a run in training."""
    rows = list(rows)
    step, tokens = rows[0].step, rows[0].step * run.batch_tokens
    values = {name_of(row.split, row.metric, row.at): row.value for row in rows}
    flops = accounting.train_flops(run.model, run.task.seq_len, tokens, "exact")
    return Point(
        step,
        values
        | {"tokens": float(tokens), "flops": flops, "seconds": max(row.seconds for row in rows)},
        when,
    )


def last_values(points: Iterable[Point]) -> dict[str, float]:
    """The last value of every name."""
    found: dict[str, float] = {}
    for point in points:
        found |= point.values
    return found
