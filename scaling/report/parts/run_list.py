"""Tables of the runs themselves: settings and losses, failures, and where they were trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.fit.result import FitResult
from scaling.formatting import format_seconds
from scaling.points.points import Points
from scaling.predict.law_source import FittedLaw
from scaling.render.table import Table, pairs, record_table
from scaling.report.parts.drawing import answer_name, fitted_loss
from scaling.store import rows

RUNS_LISTED = 200
RUN_COLUMNS = {
    "run_id": "run",
    "n": "N",
    "d": "D",
    "c": "C",
    "ratio": "D/N",
    "loss": "loss",
    "n_layers": "layers",
    "d_model": "width",
    "lr": "learning rate",
    "seed": "seed",
    "note": "note",
}


def runs_table(table: pd.DataFrame, curves: Points) -> Table | None:
    """One row a run with its last measured loss, by compute and size; people see the first of them,
    CSV has all.
    """
    measured = {"run_id": curves.group, "n": curves.n, "d": curves.d, "c": curves.c}
    evaluations = pd.DataFrame({**measured, "loss": curves.loss})
    last = evaluations.drop_duplicates("run_id", keep="last")
    settings = table.drop_duplicates("run_id")[["run_id", "n_layers", "d_model", "lr", "seed"]]
    diverged = table.loc[table["metric"] == rows.DIVERGED, "run_id"]
    joined = (
        settings.merge(last, "left", on="run_id")
        .replace([np.inf, -np.inf], np.nan)
        .assign(
            budget=lambda runs: np.log(runs["c"]).round(1),
            ratio=lambda runs: runs.d / runs.n,
            note=lambda runs: runs["run_id"].isin(diverged).map({True: "diverged", False: ""}),
        )
        .sort_values(["budget", "n"])
    )
    cells = joined[list(RUN_COLUMNS)].astype(object)
    records = cells.where(cells.notna(), None).to_dict("records")
    count = f"{RUNS_LISTED} of {len(joined)}" if len(joined) > RUNS_LISTED else f"All {len(joined)}"
    caption = f"{count} runs, by compute and size; the loss is the last one measured."
    return record_table("runs", "Runs", records, caption, RUNS_LISTED, RUN_COLUMNS)


def points_table(fit: FitResult, law: FittedLaw | None) -> Table | None:
    """The points of a foreign table as they were fitted, with the law's loss of each."""
    names = {"N": "n_params", "D": "tokens", "C": "flops", "loss": "loss"}
    columns = {
        title: np.asarray(fit.data[name], float)
        for title, name in names.items()
        if fit.data.get(name)
    }
    if law is not None and {"N", "D"} <= columns.keys():
        predicted = fitted_loss(law, columns["N"], columns["D"])
        if predicted is not None:
            columns[f"loss by {answer_name(law)}"] = predicted
    records: list[Any] = pd.DataFrame(columns).to_dict("records")
    caption = f"{min(len(records), RUNS_LISTED)} of {fit.n_points:,} points are shown."
    return record_table("runs", "Runs", records, caption, RUNS_LISTED)


def failures_table(folder: Path) -> Table | None:
    """The runs that left a reason instead of rows."""
    paths = sorted((folder / "failures").glob("*.txt"))
    records = [
        {"run": path.stem, "reason": path.read_text("utf-8", "replace").partition("\n")[0]}
        for path in paths[:RUNS_LISTED]
    ]
    caption = (
        f"{len(records)} of {len(paths)} failures."
        if len(records) < len(paths)
        else "The full text lies in failures/."
    )
    return record_table("failures", "Failed runs", records, caption)


def training_origin(table: pd.DataFrame) -> Table:
    """Where and with what the runs were trained."""
    seconds = float(table.groupby("run_id", sort=False)["seconds"].max().sum())
    columns = {
        "devices": "device",
        "commits": "commit",
        "trained with scaling": "version",
        "tasks": "task",
    }
    origin = [
        (label, ", ".join(sorted(map(str, table[column].dropna().unique()))[:8]) or "–")
        for label, column in columns.items()
    ]
    origin = [(label, re.sub(r"\b1 threads", "1 thread", text)) for label, text in origin]
    origin.append(("training time", format_seconds(seconds)))
    return pairs("training-origin", "Where the runs were trained", origin)
