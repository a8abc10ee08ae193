"""The rows of a results folder as a study reads them: runs with their configuration, last values, and trails."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from scaling.results import DIVERGED

KEYS = ["run_id", "seed", "step", "tokens", "flops", "at", "value", "stderr"]


def configs(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The configuration of every run as a dictionary, by run_id."""
    firsts = table.drop_duplicates("run_id")
    return {str(run_id): json.loads(text) for run_id, text in zip(firsts["run_id"], firsts["config"], strict=True)}


def ended(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs that did not diverge: the last measurement of one that did is not its end."""
    return table[~table["run_id"].isin(table.loc[table["metric"] == DIVERGED, "run_id"])]


def trail(table: pd.DataFrame, metric: str, split: str = "val") -> pd.DataFrame:
    """Every row of a metric, by run and step; further columns are those of the row schema."""
    chosen = table[(table["metric"] == metric) & (table["split"] == split)]
    return chosen.sort_values(["run_id", "step", "at"], kind="stable").reset_index(drop=True)


def last(table: pd.DataFrame, metric: str, split: str = "val") -> pd.DataFrame:
    """The rows of a metric at the last step of each run: one a run, or one a run and `at`."""
    found = trail(table, metric, split)
    return found[found["step"] == found.groupby("run_id")["step"].transform("max")].reset_index(drop=True)


def with_setting(rows: pd.DataFrame, table: pd.DataFrame, field: str) -> pd.DataFrame:
    """`rows` with a further column `field` ("task.train_fraction"), read from the configurations; absent fields are None."""
    known = configs(table)
    return rows.assign(**{field: [_setting(known[run_id], field) for run_id in rows["run_id"]]})


def _setting(config: dict[str, Any], field: str) -> Any:
    for name in field.split("."):
        config = config.get(name) if isinstance(config, dict) else None  # type: ignore[assignment]
    return config
