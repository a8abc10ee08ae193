"""Which phenomena a results table can show."""

from __future__ import annotations

import pandas as pd

LAWFUL = {"text", "synthetic"}
WORDS = ("norm", "pos")  # one law holds for one of each
SWITCHES = ("qk_norm", "gains")  # of norms
SHAPE = ["n_layers", "d_model", "n_heads"]  # models of one shape, with other key-value heads, are forms of attention


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
