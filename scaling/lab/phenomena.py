"""Which phenomena a results table can show."""

from __future__ import annotations

import pandas as pd

LAWFUL = {"text", "synthetic"}
VARIANTS = ("n_kv_heads", "pos", "norm")


def has_law(table: pd.DataFrame) -> bool:
    """Whether a law of N and D may be fitted without being asked for: runs on text or facts that differ in size, data and seed."""
    return set(table["task"]) <= LAWFUL


def tasks(table: pd.DataFrame) -> set[str]:
    """The kinds of task in a table."""
    return {str(kind) for kind in table["task"].unique()}
