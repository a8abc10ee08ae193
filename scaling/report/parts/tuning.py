"""The tuning of a sweep (tuning.json) as tables and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling.formatting import format_count, format_flops
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, Trace
from scaling.render.table import Column, Table, pairs, tabulate
from scaling.report.parts.fit_tables import D, N

Document = Mapping[str, Any]
REACH = math.log(3.0)  # how far a parabola is drawn to both sides of its minimum


def optima(document: Document | None) -> list[Table]:
    """One table a tuned field: each size's optimum, whether it is interior, and what the recipe and
    the rule cost there.
    """
    return (
        [_optima(field, document) for field in (document or {}).get("fields", ())]
        if document
        else []
    )


def _optima(field: Document, document: Document) -> Table:
    name = field["field"]
    caption = f"{rule(field)} {cost(document)}"
    rows = [_row(size) for size in field["sizes"]]
    slug = f"tuning-{name.replace('.', '-')}"
    return tabulate(slug, f"Tuned: {name}", rows, COLUMNS, caption) or pairs(slug, caption, ())


def short(field: Document) -> Table:
    """The optima of a field in 80 columns: the values of recipe and rule are left to the whole
    table.
    """
    rows = [
        {**row, "where": "; ".join(str(row[part]) for part in ("where", "note") if row[part])}
        for row in map(_row, field["sizes"])
    ]
    columns = {
        "n_params": COLUMNS["n_params"],
        "optimum": COLUMNS["optimum"],
        "recipe.excess_relative": Column("recipe costs", "percent"),
        "rule.excess_relative": Column("rule costs", "percent"),
        "where": Column("where"),
    }
    title = f"Tuned: {field['field']}"
    return tabulate("tuning", title, rows, columns) or pairs("tuning", title, ())


COLUMNS = {
    "n_params": N,
    "tokens": D,
    "optimum": Column("optimum", "rough", True),
    "where": Column("where"),
    "optimum.loss": Column("loss there", "number"),
    "recipe.value": Column("recipe's value", "rough"),
    "recipe.excess_relative": Column("its excess loss", "percent"),
    "rule.value": Column("rule's value", "rough"),
    "rule.excess_relative": Column("its excess loss", "percent"),
    "note": Column("note"),
}


def _row(size: Document) -> dict[str, Any]:
    """A size with where its optimum lies, and how an excess loss is known where the parabola does
    not give it.
    """
    best = size["optimum"]
    notes = [f"best value: {best['why']}"] if best and best.get("why") else []
    notes += [
        f"{name}: {source}"
        for name in ("recipe", "rule")
        if (source := size[name].get("known_from")) not in (None, "fit")
    ]
    where = size["state"] if not size["why"] else f"{size['state']}: {size['why']}"
    return {**size, "where": where, "note": "; ".join(notes)}


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
    share = (
        f"{document['share']:.0%} of" if document["share"] < 2 else f"{document['share']:.3g} times"
    )
    return f"Tuning took {format_flops(document['flops'])} FLOPs, {share} the sweep's."


def ladders(document: Document | None) -> list[Figure]:
    """One picture a tuned field: the loss of every value, above the best of its size."""
    return [_ladder(field) for field in (document or {}).get("fields", ())] if document else []


def _ladder(field: Document) -> Figure:
    sizes: Sequence[Document] = [size for size in field["sizes"] if size["optimum"]]
    counts = [size["n_params"] for size in sizes] or [1.0]
    ramp = ColorScale("parameters N", min(counts), max(counts) * 1.0001)
    traces: list[Trace] = [trace for size in sizes for trace in _traces(size, ramp)]
    caption = (
        "Dots are whole runs, rings short runs; each is the loss above the lowest of its kind "
        "and size."
    )
    caption += " Stars mark the optima, curves the fitted parabolas."
    unit = f" ({field['unit']})" if field["unit"] else ""
    return Figure(
        f"tuning-{field['field'].replace('.', '-')}",
        f"Tuning {field['field']}",
        caption,
        Axis(f"{field['field']}{unit}", True),
        Axis("loss above the best (nats)"),
        tuple(traces),
        ramp if len(sizes) > 1 else None,
    )


def _traces(size: Document, ramp: ColorScale) -> list[Trace]:
    colour, best = ramp.at(size["n_params"]), size["optimum"]
    drawn: list[Trace] = []
    for key, symbol, base in (("short_run_loss", "open", None), ("loss", "circle", best["loss"])):
        runs = [(item["value"], item[key]) for item in size["values"] if item[key] is not None]
        if runs:
            x, y = np.array(runs, float).T
            notes = [
                f"{format_count(size['n_params'])}: {value:.3g}, loss {loss:.4f}"
                for value, loss in runs
            ]
            drawn.append(
                Markers(
                    x,
                    y - (y.min() if base is None else base),
                    "",
                    colour,
                    symbol,  # type: ignore[arg-type]
                    7,
                    notes=notes,
                )
            )
    if best["curvature"] is not None:
        x = best["value"] * np.exp(np.linspace(-REACH, REACH, 41))
        drawn.append(
            Line(
                x, best["curvature"] / 2 * np.log(x / best["value"]) ** 2, "", colour, "solid", 1.4
            )
        )
    drawn.append(Markers([best["value"]], [0.0], "", colour, "star", 12))
    return drawn
