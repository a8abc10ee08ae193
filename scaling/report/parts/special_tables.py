"""Tables of the laws with tables of their own (coverage, schedules, two-stage) and of `scaling
reconcile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaling.fit.result import FitResult
from scaling.formatting import format_count
from scaling.render.table import Cell, Column, Table, number, tabulate
from scaling.report.parts.fit_tables import APPROACHES, estimated


def groups(fit: FitResult) -> Table | None:
    """Coverage by model: the line, the beta distribution's answer, and the forecast from few
    samples.
    """
    columns = {
        "model": Column("model"),
        "a": Column("a", "rough", True),
        "b": Column("b", "rough", True),
        "r2": Column("R2", "number"),
        "beta_binomial.b": Column("b by beta-binomial", "number"),
        "forecast.beta_binomial": Column("forecast by it", "rough"),
        "forecast.line": Column("by the line", "rough"),
        "forecast.measured": Column("measured", "rough"),
    }
    caption = ""
    if fit.groups:
        at = fit.groups[0].forecast
        caption = f"Forecasts are of pass@{at.k} from {at.samples} samples a problem."
    title = "Coverage, -log pass@k = a k^-b"
    return tabulate("groups", title, fit.groups, columns, caption)


def schedules(fit: FitResult) -> Table | None:
    """How well each loss curve is predicted, fitted or held out."""
    rows = [
        {**row.to_dict(), "side": "held out" if row.held_out else "fitted"}
        for row in fit.schedules or ()
    ]
    columns = {
        "name": Column("curve"),
        "side": Column(""),
        "n": Column("points", "integer"),
        "r2": Column("R2", "number"),
        "mae": Column("mean error, nats", "rough"),
        "final_error": Column("at its end", "rough"),
    }
    caption = (
        f"All held-out curves together: R2 {number(fit.test.r2 or 0.0)}, mean absolute error "
        f"{number(fit.test.mae or 0.0, 3)} nats."
        if fit.test
        else ""
    )
    return tabulate("schedules", "Loss curves by schedule", rows, columns, caption)


def accuracy(fit: FitResult) -> Table | None:
    """The second stage of a two-stage fit: from loss to accuracy."""
    stage = fit.accuracy
    if not stage:
        return None
    caption = (
        f"{stage.formula}; R2 {number(stage.r2 or 0.0)}, mean absolute error "
        f"{number(stage.mae or 0.0, 3)}."
    )
    return estimated("accuracy", "Second stage: accuracy from loss", stage.params, caption)


def reconciled(document: Mapping[str, Any]) -> list[Table]:
    """The tables of `scaling reconcile`: runs by counting, studies simulated on one law, Porian's
    steps.
    """
    interval: dict[str, Column] = {name: Column(name, "number", True) for name in APPROACHES}
    rows = [
        {"label": row["label"], **{name: row[name].get("a") for name in APPROACHES}}
        for row in document["countings"]
    ]
    title = "The same runs, counted in two ways: a of N* ~ C^a"
    runs = tabulate("countings", title, rows, {"label": Column("counting"), **interval})
    studies = document.get("studies")
    law_rows: list[tuple[Cell, ...]] = []
    if studies:
        law_rows = [
            ("Hoffmann's counting, all parameters", studies["total"]),
            ("Kaplan's counting, without embeddings", studies["nonembedding"]),
        ]
        for row in studies["local"]:
            size = format_count(row["n_params_nonembedding"])
            law_rows.append((f"at {size} parameters without embeddings", row["a"]))
    law = Table(
        "studies",
        "Kaplan's study, 20 sizes from 794 to 1.6e9, on this law",
        (Column("counting"), Column("a", "number")),
        tuple(law_rows),
        "After Pearce and Song 2024; the rows at one size are the frontier's local slope.",
    )
    steps = {"step": Column("step"), "a": Column("a", "number")}
    title = "What training adds to counting (Porian et al. 2024, RefinedWeb)"
    porian = tabulate("porian", title, document["porian"], steps)
    return [table for table in (runs, law, porian) if table is not None and table.rows]
