"""Tables of the laws with tables of their own (coverage, schedules, two-stage) and of `scaling
reconcile`.
"""

from __future__ import annotations

from scaling.fit.result import FitResult
from scaling.predict.reconcile import Reconciliation
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


def reconciled(result: Reconciliation) -> list[Table]:
    """The tables of `scaling reconcile`: runs by counting, and Kaplan's study on one law."""
    interval: dict[str, Column] = {f"{name}.a": Column(name, "number", True) for name in APPROACHES}
    title = "The same runs, counted in two ways: a of N* ~ C^a"
    columns = {"label": Column("counting"), **interval}
    tables = [tabulate("countings", title, result.countings, columns)]
    if studies := result.studies:
        rows: tuple[tuple[Cell, ...], ...] = (
            ("Hoffmann's counting, all parameters", studies.total),
            ("Kaplan's counting, without embeddings", studies.nonembedding),
        )
        title = "Kaplan's study, 20 sizes from 794 to 1.6e9, on this law"
        heads = (Column("counting"), Column("a", "number"))
        tables.append(Table("studies", title, heads, rows, "After Pearce and Song 2024."))
    return [table for table in tables if table is not None]
