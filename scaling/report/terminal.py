"""What `scaling fit` and `scaling predict` print: documents as rich tables that stay readable at 80
columns, without colour.

Foreign text enters only as rich `Text` of plain text, which knows no markup and no escape codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from scaling.formatting import format_flops
from scaling.predict.named_models import named_models_table
from scaling.render.escape import sanitize
from scaling.render.table import Column, Document, Table, estimate, format_cell, number
from scaling.report import summary
from scaling.report.parts import (
    combination,
    diagnostics,
    fit_tables,
    inference,
    repeated_data,
    special_tables,
)

if TYPE_CHECKING:
    from rich.console import RenderableType


def fit_text(document: Document) -> RenderableType:
    """A fit document: header, parameters, the three approaches, Kaplan, hold-out, warnings."""
    from rich.console import Group

    return Group(*_fit_parts(document))


def prediction_text(prediction: Document) -> RenderableType:
    """A prediction document: the optimum with intervals, the model that can be built, how far
    beyond the data it lies.
    """
    from rich.console import Group

    return Group(*_prediction_parts(prediction))


def models_text(document: Document) -> RenderableType:
    """Named models against the optimum of a law, without a prediction."""
    from rich.console import Group

    table = named_models_table(document)
    assert table is not None
    return Group(
        table.to_rich(), *_sentences(table.caption, document.get("basis")), *_warnings(document)
    )


def next_text(proposal: Document) -> RenderableType:
    """What `scaling next` proposes: the runs, what they cost, and how much they narrow N* and L* at
    the target.
    """
    from rich.console import Group

    rows = tuple(
        (run["n_params"], run["tokens"], run["flops"], run["copies"], run.get("trunk") or "alone")
        for run in proposal["runs"]
    )
    columns = (
        Column("parameters", "count"),
        Column("tokens", "count"),
        Column("FLOPs", "flops"),
        Column("seeds", "integer"),
        Column("shared prefix"),
    )
    before, after = (
        f"a factor of {number(math.exp(proposal['sd_log_n_star'][name]), 3)}"
        for name in ("before", "after")
    )
    target = (
        f"The standard error of N* at {format_flops(proposal['target'])} FLOPs falls from "
        f"{before} to {after}"
    )
    loss = " to ".join(
        f"{100 * proposal['sd_log_loss'][name]:.2g} %" for name in ("before", "after")
    )
    sentence = (
        f"{target}, that of L* from {loss}, for {format_flops(proposal['spent'])} of "
        f"{format_flops(proposal['budget'])} FLOPs."
    )
    alone = proposal["cost"]["alone"]
    shared = (
        f"Runs of one size share their prefix; separate runs would cost {format_flops(alone)}."
        if proposal["shared"]
        else None
    )
    return Group(
        Table("next", "The most informative runs", columns, rows).to_rich(),
        *_sentences(sentence, shared),
        *_warnings(proposal),
    )


def reconcile_text(document: Document) -> RenderableType:
    """What `scaling reconcile` finds: exponents under each counting, both studies on one law, and
    Porian's steps.
    """
    from rich.console import Group

    shown_tables = [table for table in special_tables.reconciled(document) if table.rows]
    parts: list[RenderableType] = []
    for table in shown_tables:
        parts += [table.to_rich(), *_sentences(table.caption)]
    return Group(*parts, *_sentences(*document.get("messages", [])))


def _sentences(*texts: str | None) -> Iterator[RenderableType]:
    from rich.text import Text

    for text in texts:
        if text:
            yield Text(sanitize(text) + "\n")


def _warnings(document: Document) -> Iterator[RenderableType]:
    from rich.text import Text

    for warning in document.get("warnings") or []:
        message = warning["message"]
        yield Text.assemble(("warning: ", "bold yellow"), sanitize(message))


def _fit_parts(document: Document) -> Iterator[RenderableType]:
    yield fit_tables.pairs("fit", "Fit", list(header(document))).to_rich(heading=False)
    if not document.get("groups"):
        yield fit_tables.parameters(document).to_rich()
    answer = combination.combination(document)
    if answer is not None:
        yield answer.to_rich()
        yield from _sentences(answer.caption)
    stages = (
        special_tables.groups(document),
        special_tables.schedules(document),
        special_tables.accuracy(document),
    )
    for table in (diagnostics.truth(document), *stages, repeated_data.short(document)):
        if table is not None:
            yield table.to_rich()
            yield from _sentences(table.caption)
    if document["approaches"]:
        yield _narrow_approaches(document).to_rich()
        agreement = (document.get("approaches_agree") or {}).get("message", "")
        reasons = {
            name: frontier["unavailable"]
            for name, frontier in document["approaches"].items()
            if frontier.get("unavailable")
        }
        yield from _sentences(
            *(f"{name}: {reason}." for name, reason in reasons.items() if reason not in agreement),
            agreement,
        )
    kaplan = fit_tables.kaplan(document)
    if kaplan is not None:
        yield kaplan.to_rich()
        yield from _sentences(kaplan.caption)
    yield from _sentences(summary.holdout_sentence(document))
    checks = (
        diagnostics.noise(document),
        diagnostics.above(document),
        diagnostics.minima(document),
        diagnostics.rollout(document),
        diagnostics.flagged(document),
    )
    for table in checks:
        if table is not None:
            yield table.to_rich()
            yield from _sentences(table.caption)
    yield from _warnings(document)


def header(document: Document) -> Iterator[tuple[str, str]]:
    """What was fitted to what, in pairs."""
    from scaling.fit.laws.laws import LAWS
    from scaling.fit.special.table_laws import SPECIAL

    objective, convention = document["objective"], document["source"].get("convention") or {}
    left_out = "; ".join(f"{item['count']} {item['reason']}" for item in document["excluded"])
    formulas = {name: law.formula for name, law in LAWS.items()} | {
        name: law.formula for name, law in SPECIAL.items()
    }
    value = objective.get("value")
    yield "law", f"{document['law']}, {document['approach']}"
    if document["approach"] == "parametric":
        yield "formula", formulas.get(document["law"]) or document["law"]
    yield "source", fit_tables.paths(document)
    yield (
        "points",
        f"{document['n_points']} fitted" + (f"; left out: {left_out}" if left_out else ""),
    )
    yield (
        "counted",
        f"N = {convention.get('params', 'as given')}, C = {convention.get('flops', 'as given')}",
    )
    yield "objective", str(objective.get("name")) + (f" = {value:.8g}" if value is not None else "")
    yield from (("note", note) for note in document["source"].get("notes") or [])
    yield "status", document["status"]


def _narrow_approaches(document: Document) -> Table:
    """The three approaches in a table that fits 80 columns; reasons follow as sentences."""
    rows: list[tuple[fit_tables.Cell, ...]] = []
    for name, frontier in document["approaches"].items():
        exponents = (
            format_cell(estimate(frontier.get(letter)), Column("", "number", True))
            for letter in "ab"
        )
        rows.append(
            (name, "unavailable", "", None, "")
            if frontier.get("unavailable")
            else (name, *exponents, frontier.get("a_plus_b"), _runs_used(document, frontier))
        )
    columns = (
        Column("approach"),
        Column("a, N* ~ C^a"),
        Column("b, D* ~ C^b"),
        Column("a + b", "rough"),
        Column("runs"),
    )
    return Table("approaches", "Three approaches to the frontier", columns, tuple(rows))


def _runs_used(document: Document, frontier: Document) -> str:
    """How many runs of how many an approach used."""
    used = frontier.get("n_points")
    return "" if used is None else f"{used} of {document['n_points']}"


def _prediction_parts(prediction: Document) -> Iterator[RenderableType]:
    yield asked(prediction).to_rich(heading=False)
    if prediction.get("accuracy"):
        yield from _sentences(
            "Accuracy at this loss: "
            f"{format_cell(estimate(prediction['accuracy']), Column('', 'rough', True))}."
        )
    parts = combination.breakdown(prediction)
    if parts is not None:
        yield parts.to_rich()
        yield from _sentences(parts.caption)
    if prediction.get("approaches"):
        yield fit_tables.predicted_approaches(prediction).to_rich()
    for table in (fit_tables.model(prediction), inference.demand(prediction)):
        if table is not None:
            yield table.to_rich(heading=False)
    for table in (
        inference.served(prediction),
        inference.decoding(prediction),
        inference.smaller(prediction),
        named_models_table(prediction),
    ):
        if table is not None:
            yield table.to_rich()
            yield from _sentences(table.caption)
    yield from _sentences(reach(prediction))
    yield from _warnings(prediction)


def asked(prediction: Document) -> Table:
    """The model that a prediction is about, with intervals."""
    rows = [("law", str(prediction.get("law"))), ("from", str(prediction.get("source") or "–"))]
    rows += [("counted", prediction["basis"])] if prediction.get("basis") else []
    rows += [(name, f"{value:.6g}") for name, value in (prediction.get("inputs") or {}).items()]
    rows.append(
        (
            "training FLOPs",
            format_cell(estimate(prediction.get("flops")), Column("", "flops", True)),
        )
    )
    rows += [
        (label, format_cell(estimate(prediction.get(name)), Column(name, kind, True)))
        for name, label, kind in fit_tables.OPTIMUM
    ]
    return fit_tables.pairs("prediction", "Compute-optimal training", rows)


def reach(prediction: Document) -> str | None:
    """Whether the data reach this far; how far they do not is among the prediction's warnings."""
    decades = prediction.get("extrapolation_decades")
    if decades is None:
        return (
            "The range of the data behind this law is not known, so how far this extrapolates "
            "is unknown."
        )
    outside = decades > 0 or any(
        warning["code"] == "below_data" for warning in prediction.get("warnings") or []
    )
    return None if outside else "This lies within the budgets that were trained."
