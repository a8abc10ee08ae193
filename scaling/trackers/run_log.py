"""What a tracker logs of a finished run: its settings once, and its numbers step by step.

Names are `split/metric` as in the rows (`val/loss`, `train/grad_norm`; `val/loss_at_position/12`
where a metric has an argument), and `tokens`, `flops` and `seconds` at the same steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from scaling.config.sweep_file import load_run
from scaling.formatting import flatten
from scaling.store.rows import DIVERGED

Setting = int | float | str | bool
RunStatus = Literal["done", "diverged"]


@dataclass(frozen=True)
class Point:
    """Numbers of a run after `step` steps; `when` is in seconds since 1970."""

    step: int
    values: Mapping[str, float]
    when: float


@dataclass(frozen=True)
class RunLog:
    """A run as a tracker lists it: its sweep is the group (or experiment), its flat configuration
    the hyper-parameters.
    """

    run_id: str
    sweep: str
    settings: Mapping[str, Setting]
    points: tuple[Point, ...]
    status: RunStatus


Tracker = Callable[[RunLog], bool]  # logs a run; False where the tracker has it already


def read_run_log(rows: pd.DataFrame, ended: float) -> RunLog:
    """A run from its rows; the last of them was measured at `ended` (seconds since 1970)."""
    run_id, sweep = (str(rows[name].iloc[0]) for name in ("run_id", "sweep"))
    counts = ("n_params", "n_params_nonembedding", "tokens", "flops")
    settings: dict[str, Setting] = {name: rows[name].max().item() for name in counts}
    settings["sweep"] = sweep
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
    status: RunStatus = "diverged" if (rows["metric"] == DIVERGED).any() else "done"
    return RunLog(run_id, sweep, settings, tuple(points), status)


def series_name(row: Any) -> str:
    """The name of a row's series."""
    name = f"{row.split}/{row.metric}"
    if pd.isna(row.at):
        return name
    return f"{name}/{int(row.at) if row.at == int(row.at) else f'{row.at:g}'.replace('+', '')}"
