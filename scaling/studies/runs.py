"""The rows of a results folder as a study reads them: configurations, metrics along a run and at
its end, comparable runs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pandas import DataFrame

from scaling.config.sweep_file import load_run
from scaling.errors import BAD_INPUT, ScalingError
from scaling.formatting import flatten
from scaling.points.points import Points
from scaling.points.run_tables import points
from scaling.store.rows import DIVERGED, SEED

SEEDS = ("seed", "data_seed")


@functools.lru_cache(maxsize=4096)
def _config(text: str) -> dict[str, Any]:
    return load_run(text, "the results").model_dump(mode="json")


def configs(rows: DataFrame) -> dict[str, dict[str, Any]]:
    """The configuration of every run as a dictionary, by run_id; fields that older rows lack have
    their default.

    Runs that differ in their seed alone share what is below the first level: 100,000 runs take
    seconds instead of half a minute.
    """
    first_rows = rows.drop_duplicates("run_id")
    by_run = {}
    for run_id, text in zip(first_rows["run_id"], first_rows["config"], strict=True):
        seeds = SEED.findall(text)
        if len(seeds) == 1:
            by_run[str(run_id)] = _config(SEED.sub("", text)) | {"seed": int(seeds[0])}
        else:  # the task has a seed too: only the parsed configuration tells which is which
            by_run[str(run_id)] = _config(text)
    return by_run


def without_diverged(rows: DataFrame) -> DataFrame:
    """The rows of runs that did not diverge, whose last measurement is their end."""
    return rows[~rows["run_id"].isin(rows.loc[rows["metric"] == DIVERGED, "run_id"])]


def metric_rows(rows: DataFrame, metric: str, split: str = "val") -> DataFrame:
    """Every row of a metric, by run, step and `at`."""
    chosen = rows[(rows["metric"] == metric) & (rows["split"] == split)]
    return chosen.sort_values(["run_id", "step", "at"], kind="stable").reset_index(drop=True)


def at_end(rows: DataFrame) -> DataFrame:
    """The rows at the last step of each run: of one metric, one per run or `at`."""
    return rows[rows["step"] == rows.groupby("run_id")["step"].transform("max")]


def along(rows: DataFrame, **metrics: str | tuple[str, str]) -> DataFrame:
    """Each run's steps at which all of these were measured, in one column each: `copied="loss"` or
    `train=("accuracy", "train")`, of another split than "val". Diverged runs are left out.
    """
    rows, key = without_diverged(rows), ["run_id", "step"]
    first, *others = (
        metric_rows(rows, *((metric,) if isinstance(metric, str) else metric)).rename(
            columns={"value": name}
        )
        for name, metric in metrics.items()
    )
    for measured, name in zip(others, list(metrics)[1:], strict=True):
        first = first.merge(measured[[*key, name]], on=key)
    return first


def law_points(rows: DataFrame, *convention: Any) -> Points | None:
    """The points of a law; None for several corpora, or no loss: there is nothing to compare."""
    try:
        return points(rows, *convention)
    except ScalingError as error:
        if error.exit_code != BAD_INPUT:
            raise
        return None


def config_without(config: Mapping[str, Any], *fields: str) -> str:
    """A configuration as text without these fields: runs with equal texts differ in them alone."""
    return json.dumps(
        sorted(leaf for leaf in flatten(config) if leaf[0].rpartition(".")[2] not in fields)
    )


def of_one_setting(rows: DataFrame, field: str = "") -> DataFrame:
    """The rows of the runs whose configuration, or `field` of it, is the one that most runs have,
    seeds aside; among equals the one trained on the most tokens.

    Runs of two settings in one folder are two studies; pooled, one would pass for a seed of the
    other.
    """
    setting = {
        run: config_without(config[field] if field else config, *SEEDS)
        for run, config in configs(rows).items()
    }
    of_run = rows.groupby("run_id")["tokens"].max().to_frame().assign(setting=pd.Series(setting))
    groups = of_run.groupby("setting")["tokens"].agg(["size", "max"])
    usual = groups.sort_values(["size", "max"]).index[-1:]
    is_usual = of_run["setting"].isin(usual)
    return rows[rows["run_id"].isin(of_run.index[is_usual])]
