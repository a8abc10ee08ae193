"""Pictures of the fitted law: the frontier, contours, residuals, the bootstrap cloud. Documents in,
Figures out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from scaling.formatting import format_count, format_flops
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
from scaling.render.table import Document
from scaling.report.parts.fit_tables import APPROACHES, TITLES, Which, power_law
from scaling.report.parts.run_plots import (
    C_AXIS,
    D_AXIS,
    LOSS_AXIS,
    N_AXIS,
    POINTS_SHOWN,
    of_all,
    thinned,
)

BEYOND = 10.0
TOKENS_PER_PARAM = 20.0
LEVELS = 12


def frontier_size(document: Document) -> Figure | None:
    """N*(C) by the three approaches, with bands, the points they are fitted to, and the
    20-tokens-per-parameter line.
    """
    caption = (
        "Compute-optimal size by the three approaches, with intervals; dots are the "
        "points that approaches 1 and 2 are fitted to."
    )
    return _frontier(
        document, "n_star", "frontier-size", "Compute-optimal size N*(C)", caption, N_AXIS
    )


def frontier_tokens(document: Document) -> Figure | None:
    """D*(C), as `frontier_size`."""
    caption = (
        "Compute-optimal training tokens by the three approaches. N* and D* are fitted "
        "separately, so the exponents need not add up to 1."
    )
    return _frontier(
        document, "d_star", "frontier-tokens", "Compute-optimal tokens D*(C)", caption, D_AXIS
    )


def frontier_loss(document: Document) -> Figure | None:
    """L*(C): the lowest loss that the law expects of each budget, the runs above it, and the
    forecast beyond them.
    """
    best = _closed(document, {name: entry["value"] for name, entry in document["params"].items()})
    if best is None or not document["data"].get("flops"):
        return None
    flops, loss = _budgets(document), np.asarray(document["data"]["loss"], float)
    line, draws, kept = best.loss(flops), frontier_draws(document), thinned(len(loss), POINTS_SHOWN)
    traces: tuple[Trace, ...] = (
        *(
            ()
            if draws is None
            else (Band(flops, *_interval(document, draws.loss(flops[:, None])), 0),)
        ),
        Markers(
            np.asarray(document["data"]["flops"], float)[kept],
            loss[kept],
            "runs",
            "muted",
            "circle",
            5,
        ),
        Line(flops, line, "L*(C)", 0),
        Markers(flops[-1:], line[-1:], "ten times the largest budget", 1, "star", 14),
        _edge(document),
    )
    caption = (
        "The line is the loss the law expects of a compute-optimal run, with its interval; "
        "runs of other sizes lie above it, but for the noise of a run."
    )
    caption += of_all(len(kept), document["n_points"])
    return Figure(
        "frontier-loss",
        "Compute-optimal loss L*(C)",
        caption,
        C_AXIS,
        LOSS_AXIS,
        traces,
        size="wide",
    )


def _budgets(document: Document) -> np.ndarray:
    low, high = document["range"]["flops"]
    return np.geomspace(low * 0.8, high * BEYOND, 60)


def _edge(document: Document) -> ReferenceLine:
    return ReferenceLine(x=float(document["range"]["flops"][1]), label="largest budget")


def _closed(document: Document, values: Mapping[str, Any]) -> Any:
    """The law's frontier for one set of parameters or for draws of them; None for another approach
    or a law without one.
    """
    from scaling.fit.frontier.frontier import Cost
    from scaling.fit.laws.laws import LAWS

    if (
        document["approach"] != "parametric"
        or document["law"] not in LAWS
        or LAWS[document["law"]].closed_frontier is None
        or not values
        or None in values.values()
    ):
        return None
    cost = Cost(document["cost"]["c0"], document["cost"]["p"])
    return LAWS[document["law"]].frontier(values, cost)


def frontier_draws(document: Document) -> Any:
    """The frontier of every bootstrap draw; None without draws or a closed form."""
    return _closed(document, (document.get("bootstrap") or {}).get("draws") or {})


def _interval(document: Document, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The document's interval along the last axis."""
    low, high = np.nanquantile(draws, [(1 - document["ci"]) / 2, (1 + document["ci"]) / 2], axis=-1)
    return low, high


def _frontier(
    document: Document, which: Which, name: str, title: str, caption: str, axis: Axis
) -> Figure | None:
    if not document["range"].get("flops"):
        return None
    flops, cost = _budgets(document), document["cost"]
    available = [
        (index, name_, document["approaches"].get(name_) or {})
        for index, name_ in enumerate(APPROACHES)
    ]
    traces = [
        trace
        for index, name_, result in available
        if result.get(which)
        for trace in _road(document, name_, result, which, flops, index)
    ]
    if not traces:
        return None
    size = (flops / (cost["c0"] * TOKENS_PER_PARAM)) ** (
        1.0 / (cost["p"] + 1.0)
    )  # C = c0 N^p (20 N)
    twenty_line = size if which == "n_star" else TOKENS_PER_PARAM * size
    traces += [
        Line(flops, twenty_line, "20 tokens per parameter", "muted", "dash", 1.6),
        _edge(document),
    ]
    return Figure(name, title, caption, C_AXIS, axis, tuple(traces))


def _road(
    document: Document, name: str, result: Any, which: Which, flops: np.ndarray, colour: int
) -> list[Trace]:
    line, exponent = power_law(result, which, flops), result[which]["exponent"]
    band = _band(document, name, result, which, flops, line)
    dots = [
        dot for dot in result.get("minima") or [] if dot.get(which) and not dot.get("unavailable")
    ]
    notes = [f"{format_count(dot[which])} at {format_flops(dot['flops'])} FLOPs" for dot in dots]
    marks = Markers(
        [dot["flops"] for dot in dots],
        [dot[which] for dot in dots],
        "",
        colour,
        "circle",
        8 if len(dots) < 12 else 4,
        notes=notes,
    )
    return [
        *([Band(flops, *band, colour)] if band else []),
        Line(flops, line, f"{TITLES[name]}: C^{exponent:.3f}", colour),
        *([marks] if dots else []),
    ]


def _band(
    document: Document, name: str, result: Any, which: Which, flops: np.ndarray, line: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """From the draws of the parametric law; of the other approaches the exponent's interval,
    pivoted at the geometric mean of the budgets.
    """
    draws = frontier_draws(document) if name == "parametric" else None
    if draws is not None:
        return _interval(document, getattr(draws, which)(flops[:, None]))
    entry = result.get("a" if which == "n_star" else "b") or {}
    if entry.get("lo") is None or entry.get("hi") is None:
        return None
    log_distance = np.log(flops / math.sqrt(math.prod(document["range"]["flops"])))
    ends = [line * np.exp((entry[end] - entry["value"]) * log_distance) for end in ("lo", "hi")]
    return np.minimum(*ends), np.maximum(*ends)


def predicted(document: Document, n: np.ndarray, d: np.ndarray) -> np.ndarray | None:
    """The law's loss at N and D (broadcast together); None when the law needs other inputs, or is
    not parametric.
    """
    from scaling.fit.laws.laws import LAWS

    law, values = (
        LAWS.get(document["law"]),
        {name: entry["value"] for name, entry in document["params"].items()},
    )
    if (
        law is None
        or document["approach"] != "parametric"
        or not set(law.inputs) <= {"N", "D"}
        or None in values.values()
    ):
        return None
    n, d = np.broadcast_arrays(n, d)
    return np.exp(law.log_predict(law.theta(values), {"N": n.ravel(), "D": d.ravel()})).reshape(
        n.shape
    )


def contours(document: Document) -> Figure | None:
    """Lines of equal loss over compute and size, runs as dots, and the efficient frontier (Hoffmann
    2022, figure 4).
    """
    data, cost = document["data"], document["cost"]
    if not (data.get("n_params") and data.get("flops")):
        return None
    sizes, budgets, runs_loss = (
        np.asarray(data[name], float) for name in ("n_params", "flops", "loss")
    )
    x, y = (
        np.geomspace(budgets.min() / 1.6, budgets.max() * BEYOND * 1.05, 90),
        np.geomspace(sizes.min() / 2, sizes.max() * 3, 90),
    )
    loss = predicted(document, y[:, None], x[None, :] / (cost["c0"] * y[:, None] ** cost["p"]))
    if loss is None:
        return None
    levels = np.geomspace(
        float(loss.min()) * 1.005, min(float(loss.max()), float(runs_loss.max()) * 1.02), LEVELS + 2
    )[1:-1]
    ramp = ColorScale("loss of the law", float(levels[0]), float(levels[-1]), "number")
    traces: list[Trace] = [
        trace for level in levels for trace in _contour(x, y, loss, float(level), ramp)
    ]
    frontier = document["approaches"].get("parametric") or {}
    if frontier.get("n_star"):
        traces.append(
            Line(x, power_law(frontier, "n_star", x), "efficient frontier", 1, "solid", 2.6)
        )
    kept = thinned(len(sizes), POINTS_SHOWN)
    notes = [
        f"{format_count(sizes[i])} parameters, {format_flops(budgets[i])} FLOPs, loss "
        f"{runs_loss[i]:.4g}"
        for i in kept
    ]
    traces.append(Markers(budgets[kept], sizes[kept], "runs", "ink", "circle", 6, notes=notes))
    caption = (
        "Lines of equal loss of the fitted law; along the frontier the loss is the lowest for "
        "its compute. Dots are the fitted runs."
    )
    caption += of_all(len(kept), document["n_points"])
    return Figure(
        "contours",
        "Contours of the fitted law",
        caption,
        _fixed(C_AXIS, x),
        _fixed(N_AXIS, y),
        tuple(traces),
        ramp,
    )


def _fixed(axis: Axis, values: np.ndarray) -> Axis:
    return replace(axis, range=(float(values[0]), float(values[-1])))


def _contour(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, level: float, ramp: ColorScale
) -> list[Trace]:
    """The lines of one loss, sought in logarithmic coordinates."""
    from contourpy import contour_generator

    lines = contour_generator(np.log(x), np.log(y), z).lines(level)
    note = f"loss {level:.3g}"
    return [
        Line(np.exp(line[:, 0]), np.exp(line[:, 1]), "", ramp.at(level), width=1.4, note=note)
        for line in map(np.asarray, lines)
    ]


def residuals(document: Document) -> list[Figure]:
    """log(measured / predicted) against size, tokens and prediction: a slope or a bend means that
    the law's form is wrong.
    """
    data = document["data"]
    if not (data.get("n_params") and data.get("tokens")):
        return []
    n, d, loss = (np.asarray(data[name], float) for name in ("n_params", "tokens", "loss"))
    law = predicted(document, n, d)
    if law is None:
        return []
    error, kept = np.log(loss / law), thinned(len(loss), POINTS_SHOWN)
    notes = [
        f"{format_count(n[i])} parameters, {format_count(d[i])} tokens: {100 * error[i]:+.2g} %"
        for i in kept
    ]
    rms = (
        f"{100 * float(np.sqrt(np.mean(error**2))):.2g} %.{of_all(len(kept), document['n_points'])}"
    )
    panels = {
        "size": (N_AXIS, n),
        "tokens": (D_AXIS, d),
        "prediction": (Axis("predicted loss", log=True), law),
    }
    return [
        _residual(name, axis, values[kept], error[kept], notes, rms)
        for name, (axis, values) in panels.items()
    ]


def _residual(
    name: str, axis: Axis, values: np.ndarray, error: np.ndarray, notes: list[str], rms: str
) -> Figure:
    reach = max(float(np.abs(error).max()) * 1.15, 1e-6)
    traces = (ReferenceLine(y=0.0), Markers(values, error, "", 0, "circle", 6, notes=notes))
    caption = f"log(measured / predicted); root mean square {rms}"
    y_axis = Axis("log residual", range=(-reach, reach))
    return Figure(
        f"residuals-{name}",
        f"Residuals against {name}",
        caption,
        axis,
        y_axis,
        traces,
        size="small",
    )
