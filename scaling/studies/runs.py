"""The rows of a results folder as a study reads them: runs with their configuration, last values, and trails."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from scaling.config.sweep_file import load_run
from scaling.formatting import flatten
from scaling.store.rows import DIVERGED, SEED

KEYS = ["run_id", "seed", "step", "tokens", "flops", "at", "value", "stderr"]


def configs(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The configuration of every run as a dictionary, by run_id; what older rows do not say stands at its default.

    Runs that differ in their seed alone share what is below the first level: of 100,000 runs, seconds instead of half a minute.
    """
    firsts = table.drop_duplicates("run_id")
    known: dict[str, dict[str, Any]] = {}
    found = {}
    for run_id, text in zip(firsts["run_id"].to_list(), firsts["config"].to_list(), strict=True):
        seeds = SEED.findall(text)
        if (
            len(seeds) != 1
        ):  # a task with a seed of its own: which is which, only the whole configuration says
            found[str(run_id)] = load_run(text, f"run {run_id}").model_dump(mode="json")
            continue
        shared = SEED.sub("", text)
        if shared not in known:
            known[shared] = load_run(text, f"run {run_id}").model_dump(mode="json")
        found[str(run_id)] = {**known[shared], "seed": int(seeds[0])}
    return found


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
    return found[found["step"] == found.groupby("run_id")["step"].transform("max")].reset_index(
        drop=True
    )


def with_setting(rows: pd.DataFrame, table: pd.DataFrame, field: str) -> pd.DataFrame:
    """`rows` with a further column `field` ("task.train_fraction"), read from the configurations; absent fields are None."""
    known = configs(table)
    return rows.assign(**{field: [_setting(known[run_id], field) for run_id in rows["run_id"]]})


def of_one_task(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows of the task that most runs have (its fields but the seed of its data), and how many runs of other tasks are left out.

    Runs of two tasks in one folder are two studies; pooled, the one would pass for a seed of the other.
    """
    return _kept(
        table,
        _commonest({run: without_seeds(config["task"]) for run, config in configs(table).items()}),
    )


def of_one_setting(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows of runs that differ within a size (`n_params`) by their seeds alone, and how many others are left out.

    Of each size the setting that most runs have is kept; among equals the one that was trained on the most tokens.
    """
    size, tokens = (
        dict(table.groupby("run_id")[column].max()) for column in ("n_params", "tokens")
    )
    setting = {run: without_seeds(config) for run, config in configs(table).items()}
    kept: set[str] = set()
    for n in sorted(set(size.values())):
        mine = {run: text for run, text in setting.items() if size[run] == n}
        kept |= _commonest(mine, {text: float(tokens[run]) for run, text in mine.items()})
    return _kept(table, kept)


def without_seeds(config: Mapping[str, Any], *but: str) -> str:
    """A configuration as text, without its seeds and the fields `but`: equal texts are equal runs but for chance and these."""
    left_out = ("seed", "data_seed", *but)
    return json.dumps(
        sorted(leaf for leaf in flatten(config) if leaf[0].rpartition(".")[2] not in left_out)
    )


def _commonest(groups: Mapping[str, Hashable], then: Mapping[Any, float] | None = None) -> set[str]:
    """The runs of the group with the most of them; `then` breaks ties, and after it the group's name."""
    counts = Counter(groups.values())
    best = max(
        counts,
        key=lambda group: (counts[group], (then or {}).get(group, 0.0), str(group)),
        default=None,
    )
    return {run for run, group in groups.items() if group == best}


def _kept(table: pd.DataFrame, runs: set[str]) -> tuple[pd.DataFrame, int]:
    held = table["run_id"].astype(str).isin(runs)
    return table[held], int(table.loc[~held, "run_id"].nunique())


def _setting(config: dict[str, Any], field: str) -> Any:
    for name in field.split("."):
        config = config.get(name) if isinstance(config, dict) else None  # type: ignore[assignment]
    return config


LAWFUL = {"text", "synthetic"}


WORDS = ("norm", "pos")  # one law holds for one of each


SWITCHES = ("qk_norm", "gains")  # of norms


SHAPE = [
    "n_layers",
    "d_model",
    "n_heads",
]  # models of one shape, with other key-value heads, are forms of attention


def has_law(table: pd.DataFrame) -> bool:
    """Whether a law of N and D may be fitted without being asked for: runs on text or facts that differ in size, data and seed."""
    return set(table["task"].unique()) <= LAWFUL and not has_variants(table)


def has_variants(table: pd.DataFrame) -> bool:
    """Whether the runs compare norms, positions or forms of attention: no law holds across them."""
    runs = table.drop_duplicates("run_id")
    switched = [runs["config"].str.extract(rf'"{name}":(\w+)', expand=False) for name in SWITCHES]
    if (runs[list(WORDS)].nunique() > 1).any() or any(each.nunique() > 1 for each in switched):
        return True
    return bool((runs.groupby(SHAPE)["n_kv_heads"].nunique() > 1).any())


def tasks(table: pd.DataFrame) -> set[str]:
    """The kinds of task in a table."""
    return {str(kind) for kind in table["task"].unique()}
