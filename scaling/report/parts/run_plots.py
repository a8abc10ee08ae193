"""Figures of the runs themselves: loss curves, isoFLOP curves with the law over them, hold-out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from scaling.fit.result import BudgetMinimum, FitResult
from scaling.formatting import format_count, format_flops
from scaling.points.points import Points
from scaling.predict.law_source import FittedLaw
from scaling.render.figure import (
    Axis,
    Band,
    ColorScale,
    Colour,
    Dash,
    Figure,
    Line,
    Markers,
    Symbol,
    Text,
    Trace,
)
from scaling.report.parts.answer import answer_curve, answer_name, fitted_loss

N_AXIS = Axis("parameters N", log=True, unit="count")
C_AXIS = Axis("training FLOPs C", log=True, unit="flops")
LOSS_AXIS = Axis("loss", log=True)
CURVES_SHOWN = 240
POINTS_SHOWN = 2000
HOLDOUT_SHOWN = 300
AHEAD = 10.0  # times the largest budget: where a report answers
GRID = 400  # budgets at which the lowest of the loss curves is read


def thinned(count: int, limit: int) -> np.ndarray:
    """At most `limit` indices out of `count`, evenly spread, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def of_all(drawn: int, count: int) -> str:
    """What a caption says of a picture that shows some of the runs."""
    return "" if drawn >= count else f" {drawn:,} of {count:,} runs are drawn."


def training_curves(curves: Points | None) -> Figure | None:
    """Loss against compute, one line a run, and the lowest of these lines (approach 1).

    `curves` holds every evaluation of every run; its `group` is the run.
    """
    if curves is None or not len(curves):
        return None
    table = pd.DataFrame(
        {"run": curves.group, "n": curves.n, "d": curves.d, "c": curves.c, "loss": curves.loss}
    )
    last = table.sort_values("c").groupby("run", sort=False).tail(1).sort_values(["n", "c"])
    kept = last["run"].to_numpy()[thinned(len(last), CURVES_SHOWN)]
    kept = np.union1d(kept, last.nsmallest(10, "loss")["run"])
    drawn = table[table["run"].isin(kept)].sort_values(["n", "run", "c"])
    ramp = ColorScale("parameters N", float(table["n"].min()), float(table["n"].max()))
    grid = np.geomspace(drawn["c"].min(), drawn["c"].max(), GRID)
    lowest, lines = np.full(GRID, np.inf), []
    for name, run in drawn.groupby("run", sort=False):
        size, c, loss = float(run["n"].iloc[0]), run["c"].to_numpy(float), run["loss"].to_numpy()
        read = np.interp(np.log(grid), np.log(c), np.log(loss), left=np.inf, right=np.inf)
        lowest = np.fmin(lowest, np.exp(read))
        note = f"{format_count(size)} parameters, {format_count(run['d'].iloc[-1])} tokens, "
        lines.append(Line(c, loss, "", ramp.at(size), "solid", 1.3, f"{note}run {name}"))
    reached = np.isfinite(lowest)
    front = Line(grid[reached], lowest[reached], "lowest curve", "ink", "dash", 1.8)
    caption = (
        "Each line is one run, coloured by its size; the dashed line follows the lowest of the "
        "lines at each compute." + of_all(len(kept), len(last))
    )
    top = float(np.quantile(table["loss"], 0.995)) * 1.02
    y_axis = Axis("loss (nats per token)", True, range=(float(table["loss"].min()) * 0.97, top))
    several = ramp.hi > 1.02 * ramp.lo  # a scale needs more than one size
    return Figure(
        "training-curves",
        "Loss against compute",
        caption,
        C_AXIS,
        y_axis,
        (*lines, front),
        ramp if several else None,
    )


def isoflop_curves(fit: FitResult, law: FittedLaw | None) -> Figure | None:
    """Loss against size at each budget with the law's curve over it, the optima, and the answer at
    ten times the largest budget; a budget without a minimum stays grey.
    """
    isoflop = fit.approaches.get("isoflop")
    minima = isoflop.minima if isoflop else []
    curves = [curve for curve in minima if curve.n_params and curve.loss]
    if not curves:
        return None
    budgets = np.array([curve.flops for curve in curves])
    ramp = ColorScale("training FLOPs C", budgets.min() * 0.95, budgets.max() * 1.05, "flops")
    most, has_law = max(2, POINTS_SHOWN // len(curves)), False
    traces: list[Trace] = []
    for curve in curves:
        sizes, losses = np.asarray(curve.n_params, float), np.asarray(curve.loss, float)
        colour: Colour = "muted" if curve.unavailable else ramp.at(curve.flops)
        kept, budget = thinned(len(sizes), most), format_flops(curve.flops)
        x = np.geomspace(sizes.min() * 0.9, sizes.max() * 1.1, 60)
        y = fitted_loss(law, x, law.cost.tokens(x, np.asarray(curve.flops))) if law else None
        if y is not None:
            has_law = True
            traces.append(Line(x, y, "", colour, "solid", 2.4))
        if curve.curve:
            dash: Dash = "solid" if y is None else "dot"
            traces.append(Line(curve.curve.n_params, curve.curve.loss, "", colour, dash, 1.5))
        notes = [
            f"{format_count(sizes[i])} parameters, loss {losses[i]:.4g}, {budget} FLOPs"
            for i in kept
        ]
        symbol: Symbol = "open" if curve.unavailable else "circle"
        traces.append(Markers(sizes[kept], losses[kept], "", colour, symbol, 7, notes=notes))
        end = float(losses[sizes.argmax()]) if y is None else float(y[-1])
        word = f"{budget}, no minimum" if curve.unavailable else budget
        traces.append(Text(x[-1] * 1.03, end, word, colour, "left"))
    optima = _optima(fit, law, budgets) if has_law else []
    traces += optima or _minima(curves)
    caption = "Each colour is one compute budget in FLOPs: dots are runs, "
    if has_law and law:
        caption += f"solid lines {answer_name(law)} at that budget, dotted ones the curve "
        caption += "through its runs alone. Stars mark N*"
        caption += ", the last one the answer with its intervals." if optima else "."
    else:
        caption += "lines the curve through them, stars its minimum N*."
    unavailable = [c for c in curves if c.unavailable]
    if unavailable:
        reasons = (f"{format_flops(c.flops)}: {c.unavailable}" for c in unavailable)
        caption += f" Grey, without a minimum: {'; '.join(reasons)}."
    counts = [len(curve.n_params or ()) for curve in curves]
    caption += of_all(sum(min(count, most) for count in counts), sum(counts))
    ends = np.concatenate([np.atleast_1d(np.asarray(trace.x, float)) for trace in traces])
    axis = replace(N_AXIS, range=(float(ends.min()) * 0.85, float(ends.max()) * 1.5))
    title = "Loss against size at fixed compute"
    return Figure("isoflop-curves", title, caption, axis, LOSS_AXIS, tuple(traces), size="wide")


def _optima(fit: FitResult, law: FittedLaw | None, budgets: np.ndarray) -> list[Trace]:
    """N* by the law on its curve at every budget, and N* and L* at ten times the largest one."""
    flops = np.append(np.sort(budgets), AHEAD * fit.range["flops"][1])
    size = answer_curve(law, "n_star", flops) if law else None
    loss = answer_curve(law, "loss_star", flops) if law else None
    if law is None or size is None or loss is None:
        return []
    on_curve = fitted_loss(law, size.value, law.cost.tokens(size.value, flops))
    y = loss.value if on_curve is None else np.append(on_curve[:-1], loss.value[-1])
    notes = [
        f"N* {format_count(n)}, loss {at:.4g} at {format_flops(c)} FLOPs"
        for n, at, c in zip(size.value, y, flops, strict=True)
    ]
    drawn: list[Trace] = [
        Line(size.value, y, "", "muted", "dot", 1.4),
        Markers(size.value[:-1], y[:-1], "N* of a budget", "ink", "star", 12, notes=notes[:-1]),
    ]
    if np.isfinite(size.lo[-1]):
        drawn.append(Line([size.lo[-1], size.hi[-1]], y[[-1, -1]], "", 1, "solid", 1.6))
    answer = f"the answer at {format_flops(flops[-1])} FLOPs"
    is_known = np.isfinite([loss.lo[-1], loss.hi[-1]]).all()
    low, high = (loss.lo[-1:], loss.hi[-1:]) if is_known else (None, None)
    last = Markers(size.value[-1:], y[-1:], answer, 1, "star", 15, low, high, notes[-1:])
    drawn.append(last)
    return drawn


def _minima(curves: list[BudgetMinimum]) -> list[Trace]:
    kept = [(c.n_star, c.loss_star, c.flops) for c in curves if c.n_star and c.loss_star]
    if not kept:
        return []
    n, loss, flops = np.array(kept, float).T
    notes = [
        f"N* {format_count(a)} at {format_flops(c)} FLOPs" for a, c in zip(n, flops, strict=True)
    ]
    stars = Markers(n, loss, "minimum", "ink", "star", 13, notes=notes)
    return [Line(n, loss, "", "muted", "dot", 1.4), stars]


def holdout(fit: FitResult) -> Figure | None:
    """Predicted against measured loss of the budget that was left out; on the diagonal the
    prediction is exact.
    """
    result = fit.holdout
    known = [row for row in result.rows if row.predicted is not None] if result else []
    if result is None or not known:
        return None
    rows = [known[i] for i in thinned(len(known), HOLDOUT_SHOWN)]
    measured, predicted, low, high = np.array(
        [(row.loss, row.predicted, row.lo or np.nan, row.hi or np.nan) for row in rows], float
    ).T
    both = np.concatenate([measured, predicted, low, high])
    start, end = float(np.nanmin(both)), float(np.nanmax(both))
    margin = 0.06 * (end - start) or 0.05 * end
    limits = (start - margin, end + margin)
    notes = [
        f"{format_count(row.n_params)} parameters: measured {row.loss:.4g}, predicted "
        f"{row.predicted:.4g}"
        for row in rows
    ]
    diagonal = np.array(limits)
    bars = (low, high) if np.isfinite([*low, *high]).all() else (None, None)
    traces = (
        Band(diagonal, diagonal * 0.99, diagonal * 1.01, "muted"),
        Line(limits, limits, "exact", "muted", "dash", 1.4),
        Markers(measured, predicted, "left-out runs", 1, "circle", 9, bars[0], bars[1], notes),
    )
    caption = (
        f"The {format_flops(result.budget)}-FLOP runs were left out, then predicted from "
        "the cheaper ones. The grey band is ±1 %." + of_all(len(rows), result.n_test)
    )
    axes = Axis("measured loss", range=limits), Axis("predicted loss", range=limits)
    return Figure("holdout", "Hold-out prediction", caption, *axes, traces)
