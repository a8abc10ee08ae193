"""The tuning of a sweep (tuning.json) as tables and figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scaling.formatting import format_count, format_flops
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, Trace
from scaling.render.table import Column, Table, pairs, tabulate
from scaling.report.parts.fit_tables import D, N
from scaling.tuning.document import FieldResult, Optimum, SizeResult, TuningResult

REACH = math.log(3.0)  # how far a parabola is drawn to both sides of its minimum


def optima(result: TuningResult | None) -> list[Table]:
    """One table a tuned field: each size's optimum, whether it is interior, and what the recipe and
    the rule cost there.
    """
    return [_optima(field, result) for field in result.fields] if result else []


def _optima(field: FieldResult, result: TuningResult) -> Table:
    caption = f"{rule(field)} {cost(result)}"
    rows = [_row(size) for size in field.sizes]
    slug = f"tuning-{field.field.replace('.', '-')}"
    return tabulate(slug, f"Tuned: {field.field}", rows, COLUMNS, caption) or pairs(
        slug, caption, ()
    )


def short(field: FieldResult) -> Table:
    """The optima of a field in 80 columns: the values of recipe and rule are left to the whole
    table.
    """
    rows = [
        {**row, "where": "; ".join(str(row[part]) for part in ("where", "note") if row[part])}
        for row in map(_row, field.sizes)
    ]
    columns = {
        "n_params": COLUMNS["n_params"],
        "optimum": COLUMNS["optimum"],
        "recipe.excess_relative": Column("recipe costs", "percent"),
        "rule.excess_relative": Column("rule costs", "percent"),
        "where": Column("where"),
    }
    title = f"Tuned: {field.field}"
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


def _row(size: SizeResult) -> dict[str, Any]:
    """A size with where its optimum lies, and how an excess loss is known where the parabola does
    not give it.
    """
    best = size.optimum
    notes = [f"best value: {best.why}"] if best and best.why else []
    notes += [
        f"{name}: {regret.known_from}"
        for name, regret in (("recipe", size.recipe), ("rule", size.rule))
        if regret.known_from != "fit"
    ]
    where = f"{size.state}: {size.why}" if size.why else size.state
    return {**size.model_dump(), "where": where, "note": "; ".join(notes)}


def rule(field: FieldResult) -> str:
    """The rule that the optima of a field came to, and how they move with the tokens."""
    fitted, horizon = field.rule, field.horizon_power
    if fitted.n_range is None:
        text = (
            f"rule: {fitted.ratio:.3g} times the recipe's, from one size: how it moves with "
            "N is not measured."
        )
    else:
        low, high = map(format_count, fitted.n_range)
        text = (
            f"rule: {field.field} = {fitted.coef:.4g} x N^({fitted.n_power:.3f} ± "
            f"{fitted.n_power_se:.3f}), N from {low} to {high}."
        )
    if horizon is None:
        return text
    return (
        f"{text} From the short runs' horizon to the whole the optimum moves as "
        f"D^({horizon.value:.2f} ± {horizon.se:.2f}); the rule does not."
    )


def cost(result: TuningResult) -> str:
    """What the tuning cost, compared with the sweep."""
    share = f"{result.share:.0%} of" if result.share < 2 else f"{result.share:.3g} times"
    return f"Tuning took {format_flops(result.flops)} FLOPs, {share} the sweep's."


def ladders(result: TuningResult | None) -> list[Figure]:
    """One picture a tuned field: the loss of every value, above the best of its size."""
    return [_ladder(field) for field in result.fields] if result else []


def _ladder(field: FieldResult) -> Figure:
    sizes = [(size, size.optimum) for size in field.sizes if size.optimum]
    counts = [size.n_params for size, _ in sizes] or [1.0]
    ramp = ColorScale("parameters N", min(counts), max(counts) * 1.0001)
    traces: list[Trace] = [trace for size in sizes for trace in _traces(*size, ramp)]
    caption = (
        "Dots are whole runs, rings short runs; each is the loss above the lowest of its kind "
        "and size."
    )
    caption += " Stars mark the optima, curves the fitted parabolas."
    unit = f" ({field.unit})" if field.unit else ""
    return Figure(
        f"tuning-{field.field.replace('.', '-')}",
        f"Tuning {field.field}",
        caption,
        Axis(f"{field.field}{unit}", True),
        Axis("loss above the best (nats)"),
        tuple(traces),
        ramp if len(sizes) > 1 else None,
    )


def _traces(size: SizeResult, best: Optimum, ramp: ColorScale) -> list[Trace]:
    colour = ramp.at(size.n_params)
    drawn: list[Trace] = []
    tried = size.values
    for losses, symbol, base in (
        ([item.short_run_loss for item in tried], "open", None),
        ([item.loss for item in tried], "circle", best.loss),
    ):
        runs = [
            (item.value, loss) for item, loss in zip(tried, losses, strict=True) if loss is not None
        ]
        if runs:
            x, y = np.array(runs, float).T
            notes = [
                f"{format_count(size.n_params)}: {value:.3g}, loss {loss:.4f}"
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
    if best.curvature is not None:
        x = best.value * np.exp(np.linspace(-REACH, REACH, 41))
        drawn.append(
            Line(x, best.curvature / 2 * np.log(x / best.value) ** 2, "", colour, "solid", 1.4)
        )
    drawn.append(Markers([best.value], [0.0], "", colour, "star", 12))
    return drawn
