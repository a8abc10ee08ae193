"""The tables of a report, each built once from the fit document and shown as HTML, Markdown, CSV or
in a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from scaling.formatting import format_count, format_flops
from scaling.render.table import (
    Cell,
    Column,
    Document,
    Kind,
    Table,
    estimate,
    number,
    pairs,
)

Which = Literal["n_star", "d_star"]
APPROACHES = ("parametric", "isoflop", "envelope")
TITLES = {
    "parametric": "parametric (approach 3)",
    "isoflop": "isoFLOP (approach 2)",
    "envelope": "envelope (approach 1)",
}


ESTIMATED = (
    Column("parameter"),
    Column("value", "number"),
    Column("se", "rough"),
    Column("lo", "rough"),
    Column("hi", "rough"),
)
OPTIMUM: tuple[tuple[str, str, Kind], ...] = (
    ("n_params", "parameters N*", "count"),
    ("tokens", "tokens D*", "count"),
    ("tokens_per_param", "tokens per parameter", "rough"),
    ("loss", "loss L*", "rough"),
)


def parameters(document: Document) -> Table:
    """The law's parameters and what derives from them, with standard error, interval and a note
    where one is due.
    """
    profile = (document.get("identification") or {}).get("profile") or {}
    unidentified = {name for name, interval in profile.items() if not interval["identified"]}
    entries = {**document["params"], **document["derived"]}
    rows = tuple(
        (*estimated_row(name, entry), "not identified" if name in unidentified else "")
        for name, entry in entries.items()
    )
    caption = (
        f"{100 * document['ci']:g} % intervals from {_bootstrap(document)}."
        if document.get("bootstrap")
        else "No bootstrap: no intervals."
    )
    return Table("parameters", "Fitted parameters", (*ESTIMATED, Column("note")), rows, caption)


def estimated_row(name: str, entry: Mapping[str, Any]) -> tuple[Cell, ...]:
    """(name, value, se, lo, hi)."""
    return (name, entry["value"], entry.get("se"), entry.get("lo"), entry.get("hi"))


def _bootstrap(document: Document) -> str:
    drawn = document["bootstrap"]
    failed = f", {drawn['failed']} failed" if drawn.get("failed") else ""
    return (
        f"{drawn.get('resamples')} refits, drawn by {drawn.get('kind', 'pairs')} (seed "
        f"{drawn.get('seed')}{failed})"
    )


def power_law(frontier: Mapping[str, Any], which: Which, flops: Any) -> Any:
    """N* or D* at one or more budgets: coef C^exponent; None where it is unavailable."""
    return (
        frontier[which]["coef"] * flops ** frontier[which]["exponent"]
        if frontier.get(which)
        else None
    )


def approaches(document: Document) -> Table:
    """The three estimates of the frontier and their optima at the largest budget."""
    top = (document["range"].get("flops") or [1.0])[-1]
    rows: list[tuple[Cell, ...]] = []
    for name, frontier in (
        (name, document["approaches"][name])
        for name in APPROACHES
        if document["approaches"].get(name)
    ):
        note = (
            f"unavailable: {frontier['unavailable']}"
            if frontier.get("unavailable")
            else "; ".join(each["message"] for each in frontier.get("warnings") or [])
        )
        at_top = (power_law(frontier, "n_star", top), power_law(frontier, "d_star", top))
        rows.append(
            (
                TITLES[name],
                estimate(frontier.get("a")),
                estimate(frontier.get("b")),
                frontier.get("a_plus_b"),
                *at_top,
                note,
            )
        )
    columns = (
        Column("approach"),
        Column("a (N* ~ C^a)", "number", True),
        Column("b (D* ~ C^b)", "number", True),
        Column("a + b", "rough"),
        Column("N* at top", "count"),
        Column("D* at top", "count"),
        Column("note"),
    )
    caption = (
        f"N* and D* at the largest budget, {format_flops(top)} FLOPs. "
        f"{(document.get('approaches_agree') or {}).get('message', '')}"
    )
    return Table(
        "approaches", "Three approaches to the frontier", columns, tuple(rows), caption.strip()
    )


def predicted_approaches(prediction: Document) -> Table:
    """The optimum at the budget asked for by each approach."""
    rows = tuple(
        (name, *(estimate(optimum[quantity]) for quantity in ("n_params", "tokens", "loss")))
        for name, optimum in prediction["approaches"].items()
    )
    columns = (
        Column("approach"),
        Column("N*", "count", True),
        Column("D*", "count", True),
        Column("L*", "rough", True),
    )
    return Table("predicted-approaches", "The same budget by each approach", columns, rows)


def exclusions(document: Document) -> Table:
    """Every run or row that the fit left out, counted by reason."""
    rows = tuple((item["reason"], item["count"]) for item in document["excluded"])
    return Table(
        "exclusions", "Left out of the fit", (Column("reason"), Column("count", "integer")), rows
    )


def laws(documents: Mapping[str, Document], published: Mapping[str, Mapping[str, float]]) -> Table:
    """Fits and published laws, one a row, one parameter of the main fit a column."""
    first = next(iter(documents.values()))
    exponents = [name for name in ("a", "b") if name in first["derived"]]
    names = [*exponents, *(name for name in first["params"] if name not in exponents)]
    estimates = {
        title: {**document["params"], **document["derived"]}
        for title, document in documents.items()
    }
    rows: list[tuple[Cell, ...]] = [
        (title, *(estimate(entries.get(name)) for name in names))
        for title, entries in estimates.items()
    ]
    rows += [
        (title, *((values.get(name), None, None) for name in names))
        for title, values in published.items()
    ]
    columns = (Column("law"), *(Column(name, "number", True) for name in names))
    return Table(
        "laws",
        "Published laws for comparison",
        columns,
        tuple(rows),
        "E, A and B depend on data and tokeniser; compare a and b.",
    )


def kaplan(document: Document) -> Table | None:
    """Kaplan's L(N, D) on the same runs, counted as he counts."""
    fit = document.get("kaplan")
    if not fit:
        return None
    entries = {**fit["params"], **{name: fit[name] for name in ("a", "b") if fit.get(name)}}
    counted = (
        f"N = {fit['convention'].get('params', '?')}, C = {fit['convention'].get('flops', '?')}"
    )
    rows = tuple(estimated_row(name, entry) for name, entry in entries.items())
    return Table(
        "kaplan",
        "Kaplan's law on the same runs",
        ESTIMATED,
        rows,
        f"L = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D; {counted}.",
    )


def predictions(forecasts: Sequence[Mapping[str, Any]]) -> Table:
    """The compute-optimal model at each budget, within the data and beyond."""
    rows = tuple(
        (
            budget(item),
            *(estimate(item.get(name)) for name, _, _ in OPTIMUM),
            item.get("extrapolation_decades"),
        )
        for item in forecasts
    )
    columns = (
        Column("FLOPs", "flops"),
        *(Column(label, kind, True) for _, label, kind in OPTIMUM),
        Column("decades beyond the data", "short"),
    )
    return Table("predictions", "Compute-optimal models", columns, rows)


def budget(prediction: Mapping[str, Any]) -> float | None:
    """The FLOPs that a prediction is about."""
    return (prediction.get("flops") or {}).get("value")


def model(prediction: Mapping[str, Any]) -> Table | None:
    """The model that can be built for a prediction, and how to train it."""
    buildable = prediction.get("model")
    if not buildable:
        return None
    shape = (
        "{n_layers} layers, width {d_model}, {n_heads} heads of {d_head} ({n_kv_heads} for "
        "keys), d_ff {d_ff}, vocabulary {vocab_size}"
    )
    steps = "{n_steps:,} of {batch_size} x {seq_len} tokens, warm-up {warmup_steps}, {schedule}"
    rows = (
        (
            "parameters",
            f"{format_count(buildable['n_params'])} ({buildable['params'].replace('_', ' ')})",
        ),
        ("shape", shape.format_map(buildable)),
        ("steps", steps.format_map(buildable)),
        ("learning rate", number(buildable["lr"], 3)),
    )
    return pairs("model", "A model that can be built", rows)


def provenance(document: Document) -> Table:
    """Conventions, sources, digests, versions: what is needed to reproduce the numbers."""
    source, objective, cost = document["source"], document["objective"], document["cost"]
    convention = source.get("convention") or {}
    rows = [
        ("law", f"{document['law']} ({document['approach']})"),
        (
            "objective",
            f"{objective.get('name')}, delta {objective.get('delta')}, value "
            f"{objective.get('value')}",
        ),
        ("parameters N", str(convention.get("params", "as given"))),
        ("FLOPs C", str(convention.get("flops", "as given"))),
        ("cost of training", f"C = {number(cost['c0'])} N^{number(cost['p'])} D"),
        (
            "columns",
            ", ".join(f"{key} = {value}" for key, value in (source.get("columns") or {}).items())
            or "–",
        ),
        ("source", paths(document)),
        ("digest", str(source.get("digest") or "–")),
        ("scaling version", document["version"]),
        *(("note", str(note)) for note in source.get("notes") or []),
    ]
    return pairs("provenance", "Conventions and provenance", rows)


def paths(document: Document) -> str:
    """The sources of a fit."""
    return ", ".join(str(path) for path in document["source"].get("paths") or []) or "–"
