"""The tuning of a sweep (tuning.json) as tables and figures."""

from __future__ import annotations

import math

import numpy as np

from scaling.formatting import format_count, format_flops
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, Symbol, Trace
from scaling.render.table import Table, pairs, record_table
from scaling.tuning.document import FieldResult, Optimum, SizeResult, TuningResult

REACH = math.log(3.0)  # how far a parabola is drawn to both sides of its minimum
COLUMNS = {
    "n_params": "N",
    "tokens": "D",
    "optimum": "optimum",
    "where": "where",
    "optimum.loss": "loss there",
    "recipe.value": "recipe's value",
    "recipe.excess_relative": "recipe costs",
    "rule.value": "rule's value",
    "rule.excess_relative": "rule costs",
    "note": "note",
}
PAGE_ONLY = ("D", "loss there", "recipe's value", "rule's value")  # too wide for a terminal


def optima(result: TuningResult | None) -> list[Table]:
    """One table a tuned field: each size's optimum, whether it is interior, and what the recipe and
    the rule cost there.
    """
    return [field_table(field, cost(result)) for field in result.fields] if result else []


def field_table(field: FieldResult, cost: str = "") -> Table:
    """The optima of a field: where each lies, and how an excess loss is known where the parabola
    does not give it.
    """
    rows = []
    for size in field.sizes:
        best = size.optimum
        notes = [f"best value: {best.why}"] if best and best.why else []
        notes += [
            f"{name}: {regret.known_from}"
            for name, regret in (("recipe", size.recipe), ("rule", size.rule))
            if regret.known_from != "fit"
        ]
        where = f"{size.state}: {size.why}" if size.why else size.state
        rows.append({**dict(size), "where": where, "note": "; ".join(notes)})
    name, title = f"tuning-{field.field.replace('.', '-')}", f"Tuned: {field.field}"
    caption = f"{rule(field)} {cost}".strip()
    rough, percent = ("optimum", "recipe's value", "rule's value"), ("recipe costs", "rule costs")
    table = record_table(name, title, rows, caption, columns=COLUMNS, rough=rough, percent=percent)
    return table or pairs(name, title, ())


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
        text = f"rule: {field.field} = {fitted.formula}, N from {low} to {high}."
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
    ramp = ColorScale.of(counts)
    traces = [
        trace for size, best in sizes for trace in _traces(size, best, ramp.at(size.n_params))
    ]
    caption = (
        "Dots are whole runs, rings short runs; each is the loss above the lowest of its kind "
        "and size. Stars mark the optima, curves the fitted parabolas."
    )
    unit = f" ({field.unit})" if field.unit else ""
    axes = Axis(f"{field.field}{unit}", True), Axis("loss above the best (nats)")
    name, title = f"tuning-{field.field.replace('.', '-')}", f"Tuning {field.field}"
    return Figure(name, title, caption, *axes, traces, ramp)


def _traces(size: SizeResult, best: Optimum, colour: float) -> list[Trace]:
    traces: list[Trace] = []
    kinds: tuple[tuple[str, Symbol], ...] = (("short_run_loss", "open"), ("loss", "circle"))
    for key, symbol in kinds:
        tried = ((item.value, getattr(item, key)) for item in size.values)
        runs = [(value, loss) for value, loss in tried if loss is not None]
        if runs:
            x, y = np.array(runs, float).T
            n = format_count(size.n_params)
            notes = [f"{n}: {value:.3g}, loss {loss:.4f}" for value, loss in runs]
            above = y - (best.loss if key == "loss" else y.min())
            traces.append(Markers(x, above, "", colour, symbol, 7, notes=notes))
    if best.curvature is not None:
        away = np.linspace(-REACH, REACH, 41)
        x, y = best.value * np.exp(away), best.curvature / 2 * away**2
        traces.append(Line(x, y, "", colour, "solid", 1.4))
    return [*traces, Markers([best.value], [0.0], "", colour, "star", 12)]
