"""The rows of a results folder as a study reads them: configurations, metrics along a run and at
its end, comparable runs.
"""

from __future__ import annotations

import json
import weakref
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from scaling.config.sweep_file import load_run
from scaling.formatting import flatten
from scaling.store.rows import DIVERGED, SEED

_latest: list[Any] = []  # the last table and its configurations: each study asks for them


def configs(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The configuration of every run as a dictionary, by run_id; fields that older rows lack have
    their default.

    Runs that differ in their seed alone share what is below the first level: 100,000 runs take
    seconds instead of half a minute.
    """
    if _latest and _latest[0]() is rows:
        return dict(_latest[1])
    first_rows = rows.drop_duplicates("run_id")
    by_text: dict[str, dict[str, Any]] = {}
    by_run = {}
    for run_id, text in zip(
        first_rows["run_id"].to_list(), first_rows["config"].to_list(), strict=True
    ):
        seeds = SEED.findall(text)
        if len(seeds) != 1:  # the task has a seed too: only the parsed configuration tells which
            by_run[str(run_id)] = load_run(text, f"run {run_id}").model_dump(mode="json")
            continue
        without_seed = SEED.sub("", text)
        if without_seed not in by_text:
            by_text[without_seed] = load_run(text, f"run {run_id}").model_dump(mode="json")
        by_run[str(run_id)] = {**by_text[without_seed], "seed": int(seeds[0])}
    _latest[:] = [weakref.ref(rows), by_run]
    return dict(by_run)


def without_diverged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs that did not diverge, whose last measurement is their end."""
    return rows[~rows["run_id"].isin(rows.loc[rows["metric"] == DIVERGED, "run_id"])]


def metric_rows(rows: pd.DataFrame, metric: str, split: str = "val") -> pd.DataFrame:
    """Every row of a metric, by run, step and `at`."""
    chosen = rows[(rows["metric"] == metric) & (rows["split"] == split)]
    return chosen.sort_values(["run_id", "step", "at"], kind="stable").reset_index(drop=True)


def final_rows(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric at the last step of each run: one per run, or one per run and `at`."""
    along = metric_rows(rows, metric)
    last_step = along.groupby("run_id")["step"].transform("max")
    return along[along["step"] == last_step].reset_index(drop=True)


def of_one_task(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows of the task that most runs have (data seed aside), and how many runs of other tasks
    are left out.

    Runs of two tasks in one folder are two studies; pooled, one would pass for a seed of the other.
    """
    tasks = {run: config_without_seeds(config["task"]) for run, config in configs(rows).items()}
    return _split_off(rows, _most_common(tasks))


def of_one_setting(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows of runs that differ within a size (`n_params`) by their seeds alone, and how many
    runs are left out.

    For each size the setting of most runs is kept; among equals the one trained on the most tokens.
    """
    size, tokens = (dict(rows.groupby("run_id")[column].max()) for column in ("n_params", "tokens"))
    setting = {run: config_without_seeds(config) for run, config in configs(rows).items()}
    kept: set[str] = set()
    for n in sorted(set(size.values())):
        of_size = {run: text for run, text in setting.items() if size[run] == n}
        kept |= _most_common(of_size, {text: float(tokens[run]) for run, text in of_size.items()})
    return _split_off(rows, kept)


def config_without_seeds(config: Mapping[str, Any], *fields: str) -> str:
    """A configuration as text without its seeds and `fields`: runs with equal texts differ in these
    alone.
    """
    ignored = ("seed", "data_seed", *fields)
    return json.dumps(
        sorted(leaf for leaf in flatten(config) if leaf[0].rpartition(".")[2] not in ignored)
    )


def _most_common(
    groups: Mapping[str, Hashable], tie_break: Mapping[Any, float] | None = None
) -> set[str]:
    """The runs of the largest group; `tie_break` decides between equals, then the name."""
    counts = Counter(groups.values())
    best = max(
        counts,
        key=lambda group: (counts[group], (tie_break or {}).get(group, 0.0), str(group)),
        default=None,
    )
    return {run for run, group in groups.items() if group == best}


def _split_off(rows: pd.DataFrame, kept: set[str]) -> tuple[pd.DataFrame, int]:
    is_kept = rows["run_id"].astype(str).isin(kept)
    return rows[is_kept], int(rows.loc[~is_kept, "run_id"].nunique())
