"""The tables of a fit and of its predictions, each built once and shown as HTML, Markdown, CSV,
LaTeX or in a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from scaling.fit.document import Estimate
from scaling.fit.result import FitResult, FrontierResult
from scaling.formatting import format_count, format_flops
from scaling.predict.prediction import PredictionResult
from scaling.render.table import Cell, Column, Kind, Table, estimate, number, pairs, tabulate

Which = Literal["n_star", "d_star"]
APPROACHES: tuple[Literal["parametric", "isoflop", "envelope"], ...] = (
    "parametric",
    "isoflop",
    "envelope",
)
TITLES = {
    "parametric": "parametric (approach 3)",
    "isoflop": "isoFLOP (approach 2)",
    "envelope": "envelope (approach 1)",
}
N, D, C = Column("N", "count"), Column("D", "count"), Column("C", "flops")
LOSS = Column("loss", "number")
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


def estimated(name: str, title: str, entries: Mapping[str, Estimate], caption: str) -> Table:
    """Parameters with standard errors and intervals, one a row."""
    rows = tuple((key, item.value, item.se, item.lo, item.hi) for key, item in entries.items())
    return Table(name, title, ESTIMATED, rows, caption)


def parameters(fit: FitResult) -> Table:
    """The law's parameters and what derives from them, with a note on those that the data do not
    settle.
    """
    drawn = fit.bootstrap
    caption = "No bootstrap: no intervals."
    if drawn:
        failed = f", {drawn.failed} failed" if drawn.failed else ""
        caption = (
            f"{100 * fit.ci:g} % intervals from {drawn.resamples} refits, drawn by {drawn.kind} "
            f"(seed {drawn.seed}{failed})."
        )
    table = estimated("parameters", "Fitted parameters", {**fit.params, **fit.derived}, caption)
    notes = dict.fromkeys(unidentified(fit), "not identified")
    rows = tuple((*row, notes.get(str(row[0]), "")) for row in table.rows)
    return replace(table, columns=(*table.columns, Column("note")), rows=rows)


def unidentified(fit: FitResult) -> list[str]:
    """The parameters that are not identified."""
    profile = fit.identification.profile if fit.identification else {}
    return [name for name, interval in profile.items() if not interval.identified]


def power_law(frontier: FrontierResult, which: Which, flops: Any) -> Any:
    """N* or D* at one or more budgets: coef C^exponent; None where it is unavailable."""
    power = getattr(frontier, which)
    return None if power is None else power.coef * flops**power.exponent


def approaches(fit: FitResult) -> Table | None:
    """The three estimates of the frontier and their optima at the largest budget."""
    top = fit.range.get("flops", (1.0, 1.0))[1]
    rows = [
        {
            "name": TITLES[name],
            "a": estimate(result.a),
            "b": estimate(result.b),
            "sum": result.a_plus_b,
            "n": power_law(result, "n_star", top),
            "d": power_law(result, "d_star", top),
            "note": f"unavailable: {result.unavailable}"
            if result.unavailable
            else "; ".join(warning.message for warning in result.warnings),
        }
        for name in APPROACHES
        if (result := fit.approaches.get(name))
    ]
    columns = {
        "name": Column("approach"),
        "a": Column("a (N* ~ C^a)", "number", True),
        "b": Column("b (D* ~ C^b)", "number", True),
        "sum": Column("a + b", "rough"),
        "n": Column("N* at top", "count"),
        "d": Column("D* at top", "count"),
        "note": Column("note"),
    }
    agreement = fit.approaches_agree.message if fit.approaches_agree else ""
    caption = f"N* and D* at the largest budget, {format_flops(top)} FLOPs. {agreement}".strip()
    return tabulate("approaches", "Three approaches to the frontier", rows, columns, caption)


def predicted_approaches(prediction: PredictionResult) -> Table | None:
    """The optimum at the budget asked for by each approach."""
    rows = [
        {"name": name, "n": item.n_params, "d": item.tokens, "loss": item.loss}
        for name, item in (prediction.approaches or {}).items()
    ]
    columns = {
        "name": Column("approach"),
        "n": Column("N*", "count", True),
        "d": Column("D*", "count", True),
        "loss": Column("L*", "rough", True),
    }
    title = "The same budget by each approach"
    return tabulate("predicted-approaches", title, rows, columns)


def exclusions(fit: FitResult | None) -> Table | None:
    """Every run or row that the fit left out, counted by reason."""
    columns = {"reason": Column("reason"), "count": Column("count", "integer")}
    return tabulate("exclusions", "Left out of the fit", fit.excluded if fit else (), columns)


def laws(fits: Mapping[str, FitResult], published: Mapping[str, Mapping[str, float]]) -> Table:
    """Fits and published laws, one a row, one parameter of the main fit a column."""
    first = next(iter(fits.values()))
    exponents = [name for name in ("a", "b") if name in first.derived]
    names = [*exponents, *(name for name in first.params if name not in exponents)]
    rows: list[tuple[Cell, ...]] = []
    for title, fit in fits.items():
        entries = {**fit.params, **fit.derived}
        rows.append((title, *(estimate(entries.get(name)) for name in names)))
    for title, values in published.items():
        rows.append((title, *((values.get(name), None, None) for name in names)))
    columns = (Column("law"), *(Column(name, "number", True) for name in names))
    caption = "E, A and B depend on data and tokeniser; compare a and b."
    return Table("laws", "Published laws for comparison", columns, tuple(rows), caption)


def kaplan(fit: FitResult) -> Table | None:
    """Kaplan's L(N, D) on the same runs, counted as he counts."""
    law = fit.kaplan
    if law is None:
        return None
    ends = {name: entry for name, entry in (("a", law.a), ("b", law.b)) if entry}
    counted = f"N = {law.convention.params or '?'}, C = {law.convention.flops or '?'}"
    caption = f"L = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D; {counted}."
    title = "Kaplan's law on the same runs"
    return estimated("kaplan", title, {**law.params, **ends}, caption)


def predictions(forecasts: Sequence[PredictionResult]) -> Table | None:
    """The compute-optimal model at each budget, within the data and beyond."""
    columns = {
        "flops.value": Column("FLOPs", "flops"),
        **{name: Column(label, kind, True) for name, label, kind in OPTIMUM},
        "extrapolation_decades": Column("decades beyond the data", "short"),
    }
    return tabulate("predictions", "Compute-optimal models", forecasts, columns)


def model(prediction: PredictionResult) -> Table | None:
    """The model that can be built for a prediction, and how to train it."""
    buildable = prediction.model
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


def provenance(fit: FitResult) -> Table:
    """Conventions, sources, digests, versions: what is needed to reproduce the numbers."""
    source, objective, cost = fit.source, fit.objective, fit.cost
    columns = ", ".join(f"{key} = {value}" for key, value in source.columns.items())
    rows = [
        ("law", f"{fit.law} ({fit.approach})"),
        ("objective", f"{objective.name}, delta {objective.delta}, value {objective.value}"),
        ("parameters N", source.convention.params or "as given"),
        ("FLOPs C", source.convention.flops or "as given"),
        ("cost of training", f"C = {number(cost.c0)} N^{number(cost.p)} D"),
        ("columns", columns or "–"),
        ("source", ", ".join(source.paths) or "–"),
        ("digest", source.digest or "–"),
        ("scaling version", fit.version),
        *(("note", note) for note in source.notes),
    ]
    return pairs("provenance", "Conventions and provenance", rows)
