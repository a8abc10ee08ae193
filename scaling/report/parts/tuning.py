"""The tuning of a sweep (tuning.json) as tables and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scaling.formatting import format_count, format_flops
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, Symbol, Trace
from scaling.render.table import Column, Table, tabulate
from scaling.report.parts.fit_tables import D, N

Document = Mapping[str, Any]
REACH = math.log(3.0)  # how far a parabola is drawn to both sides of its minimum
COLUMNS = {
    "n_params": N,
    "tokens": D,
    "optimum": Column("optimum", "rough", True),
    "where": Column("where"),
    "optimum.loss": Column("loss there", "number"),
    "recipe.value": Column("recipe's value", "rough"),
    "recipe.excess_relative": Column("recipe costs", "percent"),
    "rule.value": Column("rule's value", "rough"),
    "rule.excess_relative": Column("rule costs", "percent"),
    "note": Column("note"),
}
PAGE_ONLY = ("D", "loss there", "recipe's value", "rule's value")  # too wide for a terminal


def optima(document: Document | None) -> list[Table]:
    """One table a tuned field: each size's optimum, whether it is interior, and what the recipe and
    the rule cost there.
    """
    if document is None:
        return []
    tables = (field_table(field, cost(document)) for field in document["fields"])
    return [table for table in tables if table is not None]


def field_table(field: Document, cost: str) -> Table | None:
    """The optima of a field: where each lies, and how an excess loss is known where the parabola
    does not give it.
    """
    rows = []
    for size in field["sizes"]:
        best = size["optimum"]
        notes = [f"best value: {best['why']}"] if best and best.get("why") else []
        notes += [
            f"{name}: {source}"
            for name in ("recipe", "rule")
            if (source := size[name].get("known_from")) not in (None, "fit")
        ]
        where = ": ".join(filter(None, (size["state"], size["why"])))
        rows.append({**size, "where": where, "note": "; ".join(notes)})
    name, caption = field["field"], f"{rule(field)} {cost}"
    return tabulate(f"tuning-{name.replace('.', '-')}", f"Tuned: {name}", rows, COLUMNS, caption)


def rule(field: Document) -> str:
    """The rule that the optima of a field came to, and how they move with the tokens."""
    fitted = field["rule"]
    if fitted["kind"] != "power":
        text = (
            f"rule: {fitted['ratio']:.3g} times the recipe's, from one size: how it moves with "
            "N is not measured."
        )
    else:
        low, high = (format_count(end) for end in fitted["n_range"])
        text = (
            f"rule: {field['field']} = {fitted['coef']:.4g} x N^({fitted['n_power']:.3f} ± "
            f"{fitted['n_power_se']:.3f}), N from {low} to {high}."
        )
    horizon = field.get("horizon_power")
    if horizon is None:
        return text
    return (
        f"{text} From the short runs' horizon to the whole the optimum moves as "
        f"D^({horizon['value']:.2f} ± {horizon['se']:.2f}); the rule does not."
    )


def cost(document: Document) -> str:
    """What the tuning cost, compared with the sweep."""
    share = document["share"]
    text = f"{share:.0%} of" if share < 2 else f"{share:.3g} times"
    return f"Tuning took {format_flops(document['flops'])} FLOPs, {text} the sweep's."


def ladders(document: Document | None) -> list[Figure]:
    """One picture a tuned field: the loss of every value, above the best of its size."""
    return [_ladder(field) for field in document["fields"]] if document else []


def _ladder(field: Document) -> Figure:
    sizes = [size for size in field["sizes"] if size["optimum"]]
    counts = [size["n_params"] for size in sizes] or [1.0]
    ramp = ColorScale("parameters N", min(counts), max(counts))
    traces = [trace for size in sizes for trace in _traces(size, ramp.at(size["n_params"]))]
    caption = (
        "Dots are whole runs, rings short runs; each is the loss above the lowest of its kind "
        "and size. Stars mark the optima, curves the fitted parabolas."
    )
    unit = f" ({field['unit']})" if field["unit"] else ""
    axes = Axis(f"{field['field']}{unit}", True), Axis("loss above the best (nats)")
    name, title = f"tuning-{field['field'].replace('.', '-')}", f"Tuning {field['field']}"
    return Figure(name, title, caption, *axes, tuple(traces), ramp)


def _traces(size: Document, colour: float) -> list[Trace]:
    best, traces = size["optimum"], list[Trace]()
    kinds: tuple[tuple[str, Symbol], ...] = (("short_run_loss", "open"), ("loss", "circle"))
    for key, symbol in kinds:
        runs = [(item["value"], item[key]) for item in size["values"] if item[key] is not None]
        if runs:
            x, y = np.array(runs, float).T
            notes = [
                f"{format_count(size['n_params'])}: {v:.3g}, loss {loss:.4f}" for v, loss in runs
            ]
            above = y - (best["loss"] if key == "loss" else y.min())
            traces.append(Markers(x, above, "", colour, symbol, 7, notes=notes))
    if best["curvature"] is not None:
        away = np.linspace(-REACH, REACH, 41)
        x, y = best["value"] * np.exp(away), best["curvature"] / 2 * away**2
        traces.append(Line(x, y, "", colour, "solid", 1.4))
    return [*traces, Markers([best["value"]], [0.0], "", colour, "star", 12)]
