"""Tables of the laws with tables of their own (coverage, schedules, two-stage) and of `scaling
reconcile`.
"""

from __future__ import annotations

from scaling.formatting import format_count
from scaling.render.table import (
    Cell,
    Column,
    Document,
    Table,
    estimate,
    format_cell,
    number,
)
from scaling.report.parts.fit_tables import APPROACHES, ESTIMATED, estimated_row


def groups(document: Document) -> Table | None:
    """Coverage by model: the line, the beta distribution's answer, and the forecast from few
    samples.
    """
    if not document.get("groups"):
        return None
    rows = tuple(
        (
            row["model"],
            estimate(row["a"]),
            estimate(row["b"]),
            row["r2"],
            row["beta_binomial"]["b"],
            row["forecast"]["beta_binomial"],
            row["forecast"]["line"],
            row["forecast"]["measured"],
        )
        for row in document["groups"]
    )
    forecast = document["groups"][0]["forecast"]
    columns = (
        Column("model"),
        Column("a", "rough", True),
        Column("b", "rough", True),
        Column("R2", "number"),
        Column("b by beta-binomial", "number"),
        Column("forecast by it", "rough"),
        Column("by the line", "rough"),
        Column("measured", "rough"),
    )
    caption = f"Forecasts are of pass@{forecast['k']} from {forecast['samples']} samples a problem."
    return Table("groups", "Coverage, -log pass@k = a k^-b", columns, rows, caption)


def schedules(document: Document) -> Table | None:
    """How well each loss curve is predicted, fitted or held out."""
    if not document.get("schedules"):
        return None
    rows = tuple(
        (
            row["name"],
            "held out" if row["held_out"] else "fitted",
            row["n"],
            row["r2"],
            row["mae"],
            row["final_error"],
        )
        for row in document["schedules"]
    )
    columns = (
        Column("curve"),
        Column(""),
        Column("points", "integer"),
        Column("R2", "number"),
        Column("mean error, nats", "rough"),
        Column("at its end", "rough"),
    )
    test = document.get("test")
    caption = (
        f"All held-out curves together: R2 {number(test['r2'])}, mean absolute error "
        f"{number(test['mae'], 3)} nats."
        if test
        else ""
    )
    return Table("schedules", "Loss curves by schedule", columns, rows, caption)


def accuracy(document: Document) -> Table | None:
    """The second stage of a two-stage fit: from loss to accuracy."""
    stage = document.get("accuracy")
    if not stage:
        return None
    rows = tuple(estimated_row(name, entry) for name, entry in stage["params"].items())
    caption = (
        f"{stage['formula']}; R2 {number(stage['r2'])}, mean absolute error "
        f"{number(stage['mae'], 3)}."
    )
    return Table("accuracy", "Second stage: accuracy from loss", ESTIMATED, rows, caption)


def reconciled(document: Document) -> list[Table]:
    """The tables of `scaling reconcile`: runs by counting, studies simulated on one law, Porian's
    steps.
    """
    rows = []
    for row in document["countings"]:
        exponents = (
            "unavailable"
            if row[name].get("unavailable")
            else format_cell(estimate(row[name]["a"]), Column("", "number", True))
            for name in APPROACHES
        )
        rows.append((row["label"], *exponents))
    runs = Table(
        "countings",
        "The same runs, counted in two ways: a of N* ~ C^a",
        (Column("counting"), *map(Column, APPROACHES)),
        tuple(rows),
    )
    studies = document.get("studies")
    law_rows: list[tuple[Cell, ...]] = []
    if studies:
        law_rows = [
            ("Hoffmann's counting, all parameters", studies["total"]),
            ("Kaplan's counting, without embeddings", studies["nonembedding"]),
        ]
        law_rows += [
            (
                f"at {format_count(step_or_size['n_params_nonembedding'])} parameters without "
                "embeddings",
                step_or_size["a"],
            )
            for step_or_size in studies["local"]
        ]
    law = Table(
        "studies",
        "Kaplan's study, 20 sizes from 794 to 1.6e9, on this law",
        (Column("counting"), Column("a", "number")),
        tuple(law_rows),
        "After Pearce and Song 2024; the rows at one size are the frontier's local slope.",
    )
    steps = tuple((step_or_size["step"], step_or_size["a"]) for step_or_size in document["porian"])
    return [
        runs,
        law,
        Table(
            "porian",
            "What training adds to counting (Porian et al. 2024, RefinedWeb)",
            (Column("step"), Column("a", "number")),
            steps,
        ),
    ]
