"""Figures of the fitted law: its frontier, contours, residuals."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.laws.published import PUBLISHED
from scaling.fit.result import FitResult, FrontierResult
from scaling.formatting import format_count, format_flops
from scaling.predict.law_source import FittedLaw
from scaling.render.figure import (
    Axis,
    Band,
    ColorScale,
    Figure,
    Line,
    Markers,
    ReferenceLine,
    Trace,
)
from scaling.report.parts.answer import answer_curve, answer_name, fitted_loss
from scaling.report.parts.fit_tables import APPROACHES, TITLES, power_law
from scaling.report.parts.run_plots import (
    AHEAD,
    C_AXIS,
    LOSS_AXIS,
    N_AXIS,
    POINTS_SHOWN,
    of_all,
    thinned,
)

TOKENS_PER_PARAM = 20.0
LEVELS = 12


def frontier_size(fit: FitResult, law: FittedLaw | None) -> Figure | None:
    """N*(C): the answer with its interval, the three approaches with the points of the first two,
    and 20 tokens per parameter. D* = C / (c0 N*^p) is its mirror image.
    """
    if "flops" not in fit.range:
        return None
    flops, cost = _budgets(fit), fit.cost
    answer = answer_curve(law, "n_star", flops) if law else None
    traces: list[Trace] = []
    if answer and law:
        if np.isfinite(answer.lo).all():
            traces.append(Band(flops, answer.lo, answer.hi, "ink"))
        if law.combination is not None:  # else it is that of approach 3
            traces.append(Line(flops, answer.value, answer_name(law), "ink", "solid", 2.4))
    for colour, name in enumerate(APPROACHES):
        result = fit.approaches.get(name) or FrontierResult()
        if result.n_star is None or result.n_star.exponent is None:
            continue
        label = f"{TITLES[name]}: C^{result.n_star.exponent:.3f}"
        traces.append(Line(flops, power_law(result, "n_star", flops), label, colour, width=1.5))
        dots = [dot for dot in result.minima if dot.n_star and not dot.unavailable]
        if dots:
            notes = [
                f"{format_count(dot.n_star or 0)} at {format_flops(dot.flops)} FLOPs"
                for dot in dots
            ]
            n, size = [dot.n_star or 0 for dot in dots], 8 if len(dots) < 12 else 4
            c = [dot.flops for dot in dots]
            traces.append(Markers(c, n, "", colour, "circle", size, notes=notes))
    if not traces:
        return None
    twenty = (flops / (cost.c0 * TOKENS_PER_PARAM)) ** (1 / (cost.p + 1))  # C = c0 N^p (20 N)
    traces.append(Line(flops, twenty, "20 tokens per parameter", "muted", "dash", 1.6))
    traces.append(_edge(fit))
    caption = (
        "Compute-optimal size by the three approaches; dots are the points that approaches 1 and "
        "2 are fitted to."
    )
    if answer and law and np.isfinite(answer.lo).all():
        caption += f" The band is the {100 * fit.ci:g} % interval of {answer_name(law)}."
    title = "Compute-optimal size N*(C)"
    return Figure("frontier-size", title, caption, C_AXIS, N_AXIS, tuple(traces))


def published_frontiers(fit: FitResult, law: FittedLaw) -> Figure | None:
    """N*(C) of the fit with those of published laws over the budgets that each was fitted to
    (thin beyond), and named models at their own budgets.
    """
    from scaling.predict.named_models import NAMED

    flops = np.geomspace(fit.range["flops"][0], 1e26, 80)
    answer = answer_curve(law, "n_star", flops) if "flops" in fit.range else None
    if answer is None:
        return None
    traces: list[Trace] = []
    if np.isfinite(answer.lo).all():
        traces.append(Band(flops, answer.lo, answer.hi, "ink"))
    traces.append(Line(flops, answer.value, f"this fit, {answer_name(law)}", "ink", "solid", 2.6))
    for colour, (name, entry) in enumerate(PUBLISHED.items()):
        with suppress(ScalingError):  # a law of one input has no frontier
            n = entry.frontier().n_star(flops)
            traces.append(Line(flops, n, name, colour, "dash" if colour > 5 else "dot", 1.4))
            if entry.flops_range:
                inside = (flops >= entry.flops_range[0]) & (flops <= entry.flops_range[1])
                traces.append(Line(flops[inside], n[inside], "", colour, "solid", 2.6))
    c = [6 * model.n_params * model.tokens for model in NAMED]
    notes = [f"{model.name}: {model.source}" for model in NAMED]
    sizes = [model.n_params for model in NAMED]
    traces.append(
        Markers(c, sizes, "models of the table, C = 6 N D", "ink", "diamond", 8, notes=notes)
    )
    traces.append(_edge(fit))
    caption = (
        "Solid: the budgets that a published law was fitted to, where they are known. Each law "
        "and model "
        "counts N and C in its own convention, and was trained on its own data."
    )
    title = "This frontier and published ones"
    return Figure("models", title, caption, C_AXIS, N_AXIS, tuple(traces), size="wide")


def frontier_loss(fit: FitResult, law: FittedLaw | None) -> Figure | None:
    """L*(C): the lowest loss expected of each budget, the runs, and the forecast beyond them."""
    if law is None or not fit.data.get("flops") or "flops" not in fit.range:
        return None
    flops = _budgets(fit)
    best = answer_curve(law, "loss_star", flops)
    if best is None:
        return None
    c, loss = (np.asarray(fit.data[name], float) for name in ("flops", "loss"))
    kept = thinned(len(loss), POINTS_SHOWN)
    band = (Band(flops, best.lo, best.hi, 0),) if np.isfinite(best.lo).all() else ()
    traces: tuple[Trace, ...] = (
        *band,
        Markers(c[kept], loss[kept], "runs", "muted", "circle", 5),
        Line(flops, best.value, "L*(C)", 0),
        Markers(flops[-1:], best.value[-1:], "ten times the largest budget", 1, "star", 14),
        _edge(fit),
    )
    caption = (
        f"The line is the loss that {answer_name(law)} expects of a compute-optimal run, with its "
        "interval; runs of other sizes lie above it, but for the noise of a run."
    )
    caption += of_all(len(kept), fit.n_points)
    title = "Compute-optimal loss L*(C)"
    axis = replace(C_AXIS, range=(float(flops[0]), float(flops[-1]) * 1.3))
    return Figure("frontier-loss", title, caption, axis, LOSS_AXIS, traces)


def _budgets(fit: FitResult) -> np.ndarray:
    low, high = fit.range["flops"]
    return np.geomspace(low * 0.8, high * AHEAD, 60)


def _edge(fit: FitResult) -> ReferenceLine:
    return ReferenceLine(x=float(fit.range["flops"][1]), label="largest budget")


def contours(fit: FitResult, law: FittedLaw | None) -> Figure | None:
    """Lines of equal loss over compute and size, runs as dots, and the efficient frontier (Hoffmann
    2022, figure 4).
    """
    if not (fit.data.get("n_params") and fit.data.get("flops")):
        return None
    from contourpy import contour_generator

    sizes, budgets, runs_loss = (
        np.asarray(fit.data[name], float) for name in ("n_params", "flops", "loss")
    )
    x = np.geomspace(budgets.min() / 1.6, budgets.max() * AHEAD * 1.05, 90)
    y = np.geomspace(sizes.min() / 2, sizes.max() * 3, 90)
    n, c = np.repeat(y, len(x)), np.tile(x, len(y))
    flat = fitted_loss(_alone(law), n, c / (fit.cost.c0 * n**fit.cost.p))
    if law is None or flat is None:
        return None
    loss = flat.reshape(len(y), len(x))
    top = min(float(loss.max()), float(runs_loss.max()) * 1.02)
    levels = np.geomspace(float(loss.min()) * 1.005, top, LEVELS + 2)[1:-1]
    ramp = ColorScale("loss of the law", float(levels[0]), float(levels[-1]), "number")
    generator, traces = contour_generator(np.log(x), np.log(y), loss), []
    for level in map(float, levels):
        for line in map(np.asarray, generator.lines(level)):
            (along, up), note = np.exp(line).T, f"loss {level:.3g}"
            traces.append(Line(along, up, "", ramp.at(level), width=1.4, note=note))
    frontier = fit.approaches.get("parametric")
    if frontier and frontier.n_star:
        best = power_law(frontier, "n_star", x)
        traces.append(Line(x, best, "efficient frontier", 1, "solid", 2.6))
    kept = thinned(len(sizes), POINTS_SHOWN)
    notes = [
        f"{format_count(sizes[i])} parameters, {format_flops(budgets[i])} FLOPs, loss "
        f"{runs_loss[i]:.4g}"
        for i in kept
    ]
    runs = Markers(budgets[kept], sizes[kept], "runs", "ink", "circle", 6, notes=notes)
    caption = (
        f"Lines of equal loss of the law {law.law}; along the frontier the loss is the lowest for "
        "its compute. Dots are the fitted runs." + of_all(len(kept), fit.n_points)
    )
    x_axis = replace(C_AXIS, range=(float(x[0]), float(x[-1])))
    y_axis = replace(N_AXIS, range=(float(y[0]), float(y[-1])))
    title = "Contours of the fitted law"
    return Figure("contours", title, caption, x_axis, y_axis, (*traces, runs), ramp)


def _alone(law: FittedLaw | None) -> FittedLaw | None:
    """The law whose parameters the report lists, without the others that it is combined with."""
    return law and replace(law, combination=None)


def residuals(fit: FitResult, law: FittedLaw | None) -> Figure | None:
    """log(measured / predicted) against the prediction, coloured by size: a slope, a bend or an
    order of colours means that the law's form is wrong.
    """
    if law is None or not (fit.data.get("n_params") and fit.data.get("tokens")):
        return None
    n, d, loss = (np.asarray(fit.data[name], float) for name in ("n_params", "tokens", "loss"))
    predicted = fitted_loss(_alone(law), n, d)
    if predicted is None or (predicted <= 0).any() or (loss <= 0).any():
        return None
    error, kept = np.log(loss / predicted), thinned(len(loss), POINTS_SHOWN)
    notes = [
        f"{format_count(n[i])} parameters, {format_count(d[i])} tokens: {100 * error[i]:+.2g} %"
        for i in kept
    ]
    ramp = ColorScale("parameters N", float(n.min()), float(n.max()) * 1.0001)
    colours = np.array([ramp.at(float(size)) for size in n[kept]])
    reach = max(float(np.abs(error).max()) * 1.15, 1e-6)
    runs = Markers(predicted[kept], error[kept], "", colours, "circle", 7, notes=notes)
    rms = 100 * float(np.sqrt(np.mean(error**2)))
    caption = (
        f"log(measured / predicted) of the law {law.law}: root mean square {rms:.3g} %. A slope, a "
        "bend, or colours in order would mean that its form is wrong."
    )
    caption += of_all(len(kept), fit.n_points)
    axes = Axis("predicted loss", log=True), Axis("log residual", range=(-reach, reach))
    traces = (ReferenceLine(y=0.0), runs)
    return Figure("residuals", "Residuals of the law", caption, *axes, traces, ramp)
