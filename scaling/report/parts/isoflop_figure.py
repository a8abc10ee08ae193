"""The first figure of a report: loss against size at each budget (isoFLOP curves) with the law over
them, the optima, and the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaling.fit.result import BudgetMinimum, FitResult
from scaling.formatting import format_flops
from scaling.predict.law_source import FittedLaw
from scaling.render.figure import (
    Colour,
    Dash,
    Figure,
    Line,
    Markers,
    Symbol,
    Text,
    Trace,
)
from scaling.report.parts.drawing import (
    POINTS_SHOWN,
    answer_budget,
    answer_curve,
    answer_name,
    c_axis,
    drawn_share_note,
    fitted_loss,
    loss_axis,
    n_axis,
    thinned,
)


def isoflop_curves(fit: FitResult, law: FittedLaw | None) -> Figure | None:
    """The figure, with the answer at ten times the largest budget; a budget without a minimum stays
    grey.
    """
    isoflop = fit.approaches.get("isoflop")
    curves = [curve for curve in (isoflop.minima if isoflop else ()) if curve.n_params]
    if not curves:
        return None
    flops = np.array([curve.flops for curve in curves])
    most = max(2, POINTS_SHOWN // len(curves))
    top = max(float(np.max(np.asarray(curve.loss, float))) for curve in curves)
    budgets = [_budget(c, law, most, top, c is curves[-1]) for c in curves]
    traces = [trace for drawn in budgets for trace in drawn]
    has_law = any(isinstance(trace, Line) and trace.width > 2 for trace in traces)
    optima = _optima(fit, law, flops) if has_law and law else []
    traces += optima or _minima(curves)
    caption = "Each colour is one compute budget in FLOPs: dots are runs, "
    if has_law and law:
        weighted = " (runs weighted by their FLOPs)" if law.combination else ""
        caption += f"solid lines {answer_name(law)}{weighted}, dotted ones the parabola through "
        caption += "the runs of that budget alone. Bars: intervals of the answer."
    else:
        caption += "lines the curve through them, stars its minimum N*."
    grey = [f"{format_flops(c.flops)}: {c.unavailable}" for c in curves if c.unavailable]
    caption += f" Grey, without a minimum: {'; '.join(grey)}." if grey else ""
    counts = np.array([len(curve.n_params or ()) for curve in curves])
    caption += drawn_share_note(np.minimum(counts, most).sum(), counts.sum())
    axes = n_axis(fit.source), loss_axis(fit.source)
    title = "Loss against size at fixed compute"
    return Figure("isoflop-curves", title, caption, *axes, traces, c_axis(fit.source))


def _budget(
    curve: BudgetMinimum,
    law: FittedLaw | None,
    most: int,
    top: float,
    is_named: bool,
) -> list[Trace]:
    """The runs of a budget, the law and the parabola through them up to the loss `top`, and the
    budget after the right end; one of the budgets names them for all.
    """
    colour: Colour = "muted" if curve.unavailable else curve.flops
    budget = format_flops(curve.flops)
    sizes, losses = (np.asarray(values, float) for values in (curve.n_params, curve.loss))
    x = np.geomspace(sizes.min() * 0.9, sizes.max() * 1.1, 60)
    y = fitted_loss(law, x, law.cost.tokens(x, np.asarray(curve.flops))) if law else None
    kept = thinned(len(sizes), most)
    symbol: Symbol = "open" if curve.unavailable else "circle"
    name = f"runs of {budget} FLOPs"
    traces: list[Trace] = [Markers(sizes[kept], losses[kept], "", colour, symbol, name=name)]
    end = float(sizes.max()), float(losses[np.argmax(sizes)])
    if curve.curve:
        dash: Dash = "solid" if y is None else "dot"
        label = "parabola through these runs" if is_named else ""
        through, name = curve.curve, f"parabola through the runs of {budget} FLOPs"
        traces.insert(0, Line(through.n_params, through.loss, label, colour, dash, 1.5, name))
        end = float(through.n_params[-1] or 0.0), float(through.loss[-1] or 0.0)
    if y is not None and law:
        x, y = (each[y <= max(top, y.min())] for each in (x, y))
        label, name = answer_name(law) if is_named else "", f"law at {budget} FLOPs"
        traces.insert(0, Line(x, y, label, colour, "solid", 2.4, name))
        end = float(x[-1]), float(y[-1])
    return [*traces, Text(1.04 * end[0], end[1], budget, colour, "left")]


def _optima(fit: FitResult, law: FittedLaw, budgets: np.ndarray) -> list[Trace]:
    """N* by the law on its curve at every budget, and N* and L* at ten times the largest one."""
    flops = np.append(np.sort(budgets), answer_budget(fit))
    size, loss = (answer_curve(law, name, flops) for name in ("n_star", "loss_star"))
    if size is None or loss is None:
        return []
    n, last = size.value, slice(-1, None)
    on_curve = fitted_loss(law, n, law.cost.tokens(n, flops))
    y = loss.value if on_curve is None else np.append(on_curve[:-1], loss.value[-1])
    traces: list[Trace] = [
        Line(n, y, "N*(C)", "muted", "dot", 1.4),
        Markers(n[:-1], y[:-1], "N* of a budget", "ink", "star", 12),
    ]
    if np.isfinite(size.lo[-1]):
        reach = [size.lo[-1], size.hi[-1]]
        traces.append(Line(reach, y[[-1, -1]], "", 1, "solid", 1.6, "interval of N*"))
    label = f"the answer at {format_flops(flops[-1])} FLOPs"
    known = np.isfinite(loss.lo[-1] + loss.hi[-1])
    lo, hi = (loss.lo[last], loss.hi[last]) if known else (None, None)
    return [*traces, Markers(n[last], y[last], label, 1, "star", 15, lo, hi)]


def _minima(curves: Sequence[BudgetMinimum]) -> list[Trace]:
    """The minima of the curves themselves."""
    known = [(c.n_star, c.loss_star) for c in curves if c.n_star and c.loss_star]
    if not known:
        return []
    n, loss = np.array(known, float).T
    stars = Markers(n, loss, "minimum", "ink", "star", 13)
    return [Line(n, loss, "", "muted", "dot", 1.4, "N* and L*"), stars]
