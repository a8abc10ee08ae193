"""Tables of the runs themselves: settings and losses, failures, and where they were trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.formatting import format_seconds
from scaling.points.points import Points
from scaling.render.table import Cell, Column, Table
from scaling.store import rows

RUNS_LISTED = 200


def runs_table(table: pd.DataFrame, curves: Points) -> Table:
    """One row a run with its last measured loss, by compute and size; long tables are cut, and say
    so.
    """
    last = (
        pd.DataFrame(
            {
                "run_id": curves.group,
                "n": curves.n,
                "d": curves.d,
                "c": curves.c,
                "loss": curves.loss,
            }
        )
        .groupby("run_id")
        .last()
    )
    settings = table.groupby("run_id")[["n_layers", "d_model", "lr", "seed"]].first()
    diverged = set(table.loc[table["metric"] == rows.DIVERGED, "run_id"])
    joined = (
        settings.join(last)
        .assign(budget=lambda rows: np.log(rows["c"]).round(1))
        .sort_values(["budget", "n"])
        .reset_index()
    )
    shown_rows = tuple(
        _run_row(row, row["run_id"] in diverged)
        for row in joined.head(RUNS_LISTED).to_dict("records")
    )
    columns = (
        Column("run"),
        Column("N", "count"),
        Column("D", "count"),
        Column("C", "flops"),
        Column("D/N", "number"),
        Column("loss", "number"),
        Column("layers", "integer"),
        Column("width", "integer"),
        Column("learning rate", "number"),
        Column("seed", "integer"),
        Column("note"),
    )
    count_text = (
        f"{len(shown_rows)} of {len(joined)} runs"
        if len(shown_rows) < len(joined)
        else f"All {len(joined)} runs"
    )
    return Table(
        "runs",
        "Runs",
        columns,
        shown_rows,
        f"{count_text}, by compute and size; the loss is the last one measured.",
    )


def _run_row(row: Mapping[Any, Any], diverged: bool) -> tuple[Cell, ...]:
    n, d, c, loss = (_finite(row[name]) for name in ("n", "d", "c", "loss"))
    settings = (row[name] for name in ("n_layers", "d_model", "lr", "seed"))
    return (
        str(row["run_id"]),
        n,
        d,
        c,
        d / n if n and d else None,
        loss,
        *settings,
        "diverged" if diverged else "",
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def failures_table(folder: Path) -> Table | None:
    """The runs that left a reason instead of rows."""
    paths = sorted((folder / "failures").glob("*.txt"))
    if not paths:
        return None
    rows = tuple(
        (path.stem, path.read_text(encoding="utf-8", errors="replace").partition("\n")[0])
        for path in paths[:RUNS_LISTED]
    )
    caption = (
        f"{len(rows)} of {len(paths)} failures."
        if len(rows) < len(paths)
        else "The full text lies in failures/."
    )
    return Table("failures", "Failed runs", (Column("run"), Column("reason")), rows, caption)


def training_origin(table: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """Where and with what the runs were trained."""
    seconds = float(table.groupby("run_id")["seconds"].max().sum())
    values_by_label = {
        label: sorted({str(value) for value in table[column].dropna().unique()})
        for label, column in (
            ("devices", "device"),
            ("commits", "commit"),
            ("trained with scaling", "version"),
            ("tasks", "task"),
        )
    }
    return (
        *((label, ", ".join(values[:8]) or "–") for label, values in values_by_label.items()),
        ("training time", format_seconds(seconds)),
    )
