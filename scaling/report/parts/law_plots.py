"""Figures of the fitted law: its frontier, contours and residuals."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.laws.published import PUBLISHED
from scaling.fit.result import FitResult
from scaling.predict.law_source import FittedLaw
from scaling.render.figure import (
    Axis,
    Band,
    Figure,
    Line,
    Markers,
    ReferenceLine,
    Trace,
)
from scaling.report.parts.drawing import (
    FORECAST_FACTOR,
    POINTS_SHOWN,
    AnswerCurve,
    answer_budget,
    answer_curve,
    answer_name,
    c_axis,
    drawn_share_note,
    fitted_loss,
    fitted_points,
    loss_axis,
    n_axis,
    thinned,
)
from scaling.report.parts.fit_tables import APPROACHES, size_at

TOKENS_PER_PARAM = 20.0
MINIMA = {"isoflop": "isoFLOP minima", "envelope": "sizes on the envelope", "parametric": ""}
LEVELS = 12


def frontier_size(fit: FitResult, law: FittedLaw | None) -> Figure | None:
    """N*(C): the answer with its interval, the three approaches with the points of the first two,
    and 20 tokens per parameter. D* = C / (c0 N*^p) is its mirror image.
    """
    if "flops" not in fit.range:
        return None
    flops, cost = _budgets(fit), fit.cost
    answer = answer_curve(law, "n_star", flops)
    traces = _band(flops, answer, "ink")
    points, lines, caption = list[Trace](), list[Trace](), "Compute-optimal size by approach."
    if traces and law:
        caption += f" Band: {100 * fit.ci:g} % interval of {answer_name(law)}."
    if answer and law and law.combination is not None:  # else it is that of approach 3
        traces.append(Line(flops, answer.value, answer_name(law), "ink", "solid", 2.4))
    for colour, (name, title) in enumerate(APPROACHES.items()):
        result = fit.approaches.get(name)
        best = size_at(result, flops)
        if result is None or best is None:
            continue
        lines.append(Line(flops, best, title, colour, width=1.5))
        dots = [(m.flops, m.n_star) for m in result.minima if m.n_star and not m.unavailable]
        if dots:  # many small ones lie under the few of the isoFLOP curves
            c, n = np.array(dots, float).T
            few = len(dots) < 12
            marks = Markers(c, n, MINIMA[name], colour, size=8 if few else 3)
            points.insert(len(points) if few else 0, marks)
    traces += [*points, *lines]
    if not traces:
        return None
    twenty = (flops / (cost.c0 * TOKENS_PER_PARAM)) ** (1 / (cost.p + 1))  # C = c0 N^p (20 N)
    traces.append(Line(flops, twenty, "20 tokens per parameter", "muted", "dash", 1.6))
    title = "Compute-optimal size N*(C)"
    return Figure("frontier-size", title, caption, *_axes(fit), (*traces, _edge(fit)))


def published_frontiers(fit: FitResult, law: FittedLaw) -> Figure | None:
    """N*(C) of the fit with those of published laws over the budgets that each was fitted to
    (thin beyond), and named models at their own budgets.
    """
    from scaling.predict.named_models import NAMED

    if "flops" not in fit.range:
        return None
    flops = np.geomspace(fit.range["flops"][0], 1e26, 80)
    answer = answer_curve(law, "n_star", flops)
    if answer is None:
        return None
    own = Line(flops, answer.value, f"this fit, {answer_name(law)}", "ink", "solid", 2.6)
    traces = [*_band(flops, answer, "ink"), own]
    for name, entry in PUBLISHED.items():
        colour = sum(isinstance(trace, Line) and bool(trace.label) for trace in traces) - 1
        with suppress(ScalingError):  # a law of one input has no frontier
            n = entry.frontier().n_star(flops)
            traces.append(Line(flops, n, name, colour, "dash", 1.2))
            if entry.flops_range:
                low, high = entry.flops_range
                inside = (flops >= low) & (flops <= high)
                label = f"{name}, budgets that it was fitted to"
                traces.append(Line(flops[inside], n[inside], "", colour, "solid", 2.6, label))
    models = Markers(
        [6 * model.n_params * model.tokens for model in NAMED],
        [model.n_params for model in NAMED],
        "named models, C = 6 N D",
        "ink",
        "diamond",
        8,
    )
    caption = (
        "Solid: the budgets that a published law was fitted to, where they are known. Each law "
        "and model counts N and C in its own convention, and was trained on its own data."
    )
    title, traces = "This frontier and published ones", [*traces, models, _edge(fit)]
    return Figure("models", title, caption, *_axes(fit), traces)


def frontier_loss(fit: FitResult, law: FittedLaw | None) -> Figure | None:
    """L*(C): the lowest loss expected of each budget, the runs, and the forecast beyond them."""
    points = fitted_points(fit, "flops", "loss")
    if law is None or points is None or "flops" not in fit.range:
        return None
    flops, (c, loss) = _budgets(fit), points
    best = answer_curve(law, "loss_star", flops)
    if best is None:
        return None
    kept = thinned(len(loss), POINTS_SHOWN)
    traces: tuple[Trace, ...] = (
        *_band(flops, best, 0),
        Markers(c[kept], loss[kept], "runs", "muted", "circle", 5),
        Line(flops, best.value, f"L*(C) by {answer_name(law)}", 0),
        Markers(flops[-1:], best.value[-1:], "the answer", 1, "star", 14),
        _edge(fit),
    )
    caption = (
        f"Line and band: the loss of a compute-optimal run and its {100 * fit.ci:g} % interval. "
        "Runs of other sizes lie above the line, except for the noise of a run."
    )
    caption += drawn_share_note(len(kept), fit.n_points)
    title = "Compute-optimal loss L*(C)"
    axis = replace(c_axis(fit.source), range=(float(flops[0]), float(flops[-1]) * 1.3))
    return Figure("frontier-loss", title, caption, axis, loss_axis(fit.source), traces)


def _axes(fit: FitResult) -> tuple[Axis, Axis]:
    return c_axis(fit.source), n_axis(fit.source)


def _budgets(fit: FitResult) -> np.ndarray:
    return np.geomspace(fit.range["flops"][0] * 0.8, answer_budget(fit), 60)


def _band(flops: np.ndarray, answer: AnswerCurve | None, colour: int | str) -> list[Trace]:
    """The interval of an answer, where it is known throughout."""
    if answer is None or not np.isfinite(answer.lo).all():
        return []
    return [Band(flops, answer.lo, answer.hi, colour, "interval")]


def _edge(fit: FitResult) -> ReferenceLine:
    return ReferenceLine(x=float(fit.range["flops"][1]), label="largest budget")


def contours(fit: FitResult, law: FittedLaw | None) -> Figure | None:
    """Lines of equal loss over compute and size, runs as dots, and the efficient frontier (Hoffmann
    2022, figure 4).
    """
    points = fitted_points(fit, "n_params", "flops", "loss")
    if points is None or law is None:
        return None
    from contourpy import contour_generator

    sizes, budgets, runs_loss = points
    x = np.geomspace(budgets.min() / 1.6, budgets.max() * FORECAST_FACTOR * 1.05, 90)
    y = np.geomspace(sizes.min() / 2, sizes.max() * 3, 90)
    n, c = np.repeat(y, len(x)), np.tile(x, len(y))
    loss = fitted_loss(_alone(law), n, c / (fit.cost.c0 * n**fit.cost.p))
    if loss is None:
        return None
    low, top = float(loss.min()) * 1.005, min(float(loss.max()), float(runs_loss.max()) * 1.02)
    levels = np.geomspace(low, top, LEVELS + 2)[1:-1].tolist()
    generator = contour_generator(np.log(x), np.log(y), loss.reshape(len(y), len(x)))
    traces: list[Trace] = []
    for level in levels:
        for along, up in (np.exp(np.asarray(line)).T for line in generator.lines(level)):
            name = f"loss {level:.3g}"
            traces.append(Line(along, up, "", level, width=1.4, name=name))
    frontier = fit.approaches.get("parametric")
    if (best := size_at(frontier, x)) is not None:
        traces.append(Line(x, best, "efficient frontier", 1, "solid", 2.6))
    kept = thinned(len(sizes), POINTS_SHOWN)
    traces.append(Markers(budgets[kept], sizes[kept], "runs", "ink", "circle", 6))
    caption = (
        f"Lines of equal loss by the law {law.law} alone; along the frontier the loss is the "
        "lowest for its compute. Dots are the fitted runs."
        + drawn_share_note(len(kept), fit.n_points)
    )
    across, along = _axes(fit)
    axes = replace(across, range=(x[0], x[-1])), replace(along, range=(y[0], y[-1]))
    return Figure(
        "contours", "Contours of the fitted law", caption, *axes, traces, Axis("loss of the law")
    )


def _alone(law: FittedLaw) -> FittedLaw:
    """The law whose parameters the report lists, without the others that it is combined with."""
    return replace(law, combination=None)


def log_residuals(fit: FitResult, law: FittedLaw | None) -> np.ndarray | None:
    """log(measured / predicted) (n,) of the fitted points, by the law whose parameters the report
    lists.
    """
    points = fitted_points(fit, "n_params", "tokens", "loss")
    if law is None or points is None:
        return None
    predicted = fitted_loss(_alone(law), *points[:2])
    if predicted is None or min(predicted.min(), points[2].min()) <= 0:
        return None
    return np.log(points[2] / predicted)


def residuals(fit: FitResult, law: FittedLaw | None) -> Figure | None:
    """log(measured / predicted) against the prediction, coloured by size: a slope, a bend or an
    order of colours means that the law's form is wrong.
    """
    points, error = fitted_points(fit, "n_params", "tokens", "loss"), log_residuals(fit, law)
    if points is None or error is None:
        return None
    n, _, loss = points
    predicted, kept = loss / np.exp(error), thinned(len(loss), POINTS_SHOWN)
    reach = max(float(np.abs(error).max()) * 1.15, 1e-6)
    runs = Markers(predicted[kept], error[kept], "", n[kept], "circle", 7)
    rms = fit.goodness and fit.goodness.rmse_percent
    spread = "" if rms is None else f", errors {rms:.3g} % root mean square"
    caption = (
        f"log(measured / predicted) of the law {fit.law} alone{spread}. A slope, a bend, or "
        "colours in order mean that its form is wrong."
    )
    caption += drawn_share_note(len(kept), fit.n_points)
    axes = loss_axis(fit.source, name="predicted loss"), Axis("log residual", range=(-reach, reach))
    traces = (ReferenceLine(y=0.0), runs)
    return Figure("residuals", "Residuals of the law", caption, *axes, traces, n_axis(fit.source))
