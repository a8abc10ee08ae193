"""Pictures of the runs themselves: training curves, isoFLOP curves, hold-out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scaling.formatting import format_count, format_flops
from scaling.points.points import Points
from scaling.render.figure import Axis, Band, ColorScale, Figure, Line, Markers, Text, Trace
from scaling.render.table import Document

N_AXIS = Axis("parameters N", log=True, unit="count")
D_AXIS = Axis("training tokens D", log=True, unit="count")
C_AXIS = Axis("training FLOPs C", log=True, unit="flops")
LOSS_AXIS = Axis("loss", log=True)
CURVES_SHOWN = 240
FRONT_SHOWN = 500
POINTS_SHOWN = 2000
HELD_SHOWN = 300


def training_curves(curves: Points) -> Figure | None:
    """Loss against compute, one line a run, and the best loss that any run reached with that
    compute (approach 1).

    `curves` holds every evaluation of every run; its `group` is the run.
    """
    if not len(curves):
        return None
    table = pd.DataFrame(
        {"run": curves.group, "n": curves.n, "d": curves.d, "c": curves.c, "loss": curves.loss}
    ).sort_values(["n", "run", "c"])
    ramp = ColorScale("parameters N", float(table["n"].min()), float(table["n"].max()))
    runs = table["run"].unique()
    kept = runs[thinned(len(runs), CURVES_SHOWN)]
    drawn = [run for _, run in table[table["run"].isin(kept)].groupby("run", sort=False)]
    x, y = _steps(*_front(table["c"].to_numpy(float), table["loss"].to_numpy(float)))
    lines: list[Trace] = [
        *(_run_line(run, ramp) for run in drawn),
        Line(x, y, "best loss at this compute", "ink", "dash", 1.8),
    ]
    shown = of_all(len(kept), len(runs))
    caption = (
        "Each line is one run, coloured by its size; the dashed line is the lowest loss "
        f"measured with that much compute.{shown}"
    )
    top = float(np.quantile(table["loss"], 0.995)) * 1.02
    y_axis = Axis("loss (nats per token)", True, range=(float(table["loss"].min()) * 0.97, top))
    several = (
        ramp.hi > 1.02 * ramp.lo
    )  # a scale of one size, or of sizes that round to one, tells nothing
    return Figure(
        "training-curves",
        "Loss against compute",
        caption,
        C_AXIS,
        y_axis,
        tuple(lines),
        ramp if several else None,
    )


def _run_line(run: pd.DataFrame, ramp: ColorScale) -> Line:
    size, tokens = float(run["n"].iloc[0]), float(run["d"].iloc[-1])
    note = (
        f"{format_count(size)} parameters, {format_count(tokens)} tokens, run {run['run'].iloc[0]}"
    )
    return Line(
        run["c"].to_numpy(float),
        run["loss"].to_numpy(float),
        colour=ramp.at(size),
        width=1.3,
        note=note,
    )


def _front(flops: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The measurements that no cheaper one beats, in order of compute."""
    order = np.lexsort((loss, flops))
    flops, loss = flops[order], loss[order]
    best = np.minimum.accumulate(loss)
    new = np.flatnonzero(np.r_[True, best[1:] < best[:-1]])
    kept = new[thinned(len(new), FRONT_SHOWN)]
    return flops[kept], loss[kept]


def _steps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The stairs through (x, y): what was reached stays reached until it is beaten; a slope between
    would be a loss that no run had.
    """
    return np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]


def thinned(count: int, limit: int) -> np.ndarray:
    """At most `limit` indices out of `count`, evenly spread, first and last included."""
    return (
        np.arange(count)
        if count <= limit
        else np.unique(np.linspace(0, count - 1, limit).round().astype(int))
    )


def of_all(drawn: int, count: int) -> str:
    """What a caption says of a picture that shows some of the runs."""
    return "" if drawn >= count else f" {drawn:,} of {count:,} runs are drawn."


def isoflop_curves(document: Document) -> Figure | None:
    """Loss against size at each budget, the fitted curve and its minimum (approach 2); unavailable
    budgets stay grey.
    """
    curves = [
        curve
        for curve in (document["approaches"].get("isoflop") or {}).get("minima") or []
        if curve.get("n_params")
    ]
    if not curves:
        return None
    budgets = [float(curve["flops"]) for curve in curves]
    ramp = ColorScale("training FLOPs C", min(budgets) * 0.95, max(budgets) * 1.05, "flops")
    most = max(2, POINTS_SHOWN // len(curves))
    traces: list[Trace] = [
        trace for curve in curves for trace in _isoflop_traces(curve, ramp, most)
    ]
    with_minimum = [curve for curve in curves if not curve.get("unavailable")]
    if with_minimum:
        traces.append(
            Line(
                [curve["n_star"] for curve in with_minimum],
                [curve["loss_star"] for curve in with_minimum],
                "",
                "muted",
                "dot",
                1.4,
            )
        )
        traces.append(
            Markers(
                [curve["n_star"] for curve in with_minimum],
                [curve["loss_star"] for curve in with_minimum],
                "minimum",
                "ink",
                "star",
                13,
                notes=[
                    f"N* {format_count(curve['n_star'])} at {format_flops(curve['flops'])} FLOPs"
                    for curve in with_minimum
                ],
            )
        )
    refused = [
        f"{format_flops(curve['flops'])}: {curve['unavailable']}"
        for curve in curves
        if curve.get("unavailable")
    ]
    caption = (
        "Each colour is one compute budget: dots are runs, curves the fitted isoFLOP curves, "
        "stars their minima N*."
    )
    caption += f" Unavailable (grey rings): {'; '.join(refused)}." if refused else ""
    counts = [len(curve["n_params"]) for curve in curves]
    caption += of_all(sum(min(count, most) for count in counts), sum(counts))
    return Figure(
        "isoflop-curves",
        "Loss against size at fixed compute",
        caption,
        N_AXIS,
        LOSS_AXIS,
        tuple(traces),
        ramp if len(curves) > 1 else None,
    )


def _isoflop_traces(isoflop: Mapping[str, Any], ramp: ColorScale, most: int) -> list[Trace]:
    """A budget's runs, at most so many of them, and the curve that was fitted to all."""
    kept = thinned(len(isoflop["n_params"]), most)
    sizes, losses = (
        np.asarray(isoflop["n_params"], float)[kept],
        np.asarray(isoflop["loss"], float)[kept],
    )
    budget = format_flops(isoflop["flops"])
    notes = [
        f"{format_count(size)} parameters, loss {loss:.4g}, {budget} FLOPs"
        for size, loss in zip(sizes, losses, strict=True)
    ]
    right = int(np.argmax(sizes))
    if isoflop.get("unavailable"):
        text = Text(sizes[right] * 1.06, losses[right], "unavailable", "muted", "left")
        return [
            Line(sizes, losses, "", "muted", "dot", 1.0),
            Markers(sizes, losses, "", "muted", "open", 7, notes=notes),
            text,
        ]
    colour = ramp.at(float(isoflop["flops"]))
    curve = isoflop.get("curve") or {}
    drawn = [Line(curve["n_params"], curve["loss"], "", colour)] if curve.get("n_params") else []
    return [*drawn, Markers(sizes, losses, "", colour, notes=notes)]


def holdout(document: Document) -> Figure | None:
    """Predicted against measured loss of the budget that was left out; on the diagonal the
    prediction is exact.
    """
    result = document.get("holdout") or {}
    all_rows: Sequence[Mapping[str, Any]] = result.get("rows") or []
    if not all_rows:
        return None
    rows = [all_rows[i] for i in thinned(len(all_rows), HELD_SHOWN)]
    measured, predicted = (
        np.array([row[name] for row in rows], float) for name in ("loss", "predicted")
    )
    ends = [np.array([row[name] for row in rows], float) for name in ("lo", "hi")]
    low, high = min(measured.min(), ends[0].min()), max(measured.max(), ends[1].max())
    margin = 0.06 * (high - low) or 0.05 * high
    limits = (float(low - margin), float(high + margin))
    notes = [
        f"{format_count(row['n_params'])} parameters: measured {row['loss']:.4g}, predicted "
        f"{row['predicted']:.4g}"
        for row in rows
    ]
    diagonal = np.array(limits)
    traces = (
        Band(diagonal, diagonal * 0.99, diagonal * 1.01, "muted"),
        Line(limits, limits, "exact", "muted", "dash", 1.4),
        Markers(measured, predicted, "left-out runs", 1, "circle", 9, ends[0], ends[1], notes),
    )
    caption = (
        f"The {format_flops(result['budget'])}-FLOP runs were left out, then predicted from "
        "the cheaper ones. The grey band is ±1 %."
    )
    caption += of_all(len(rows), result["n_test"])
    return Figure(
        "holdout",
        "Hold-out prediction",
        caption,
        Axis("measured loss", range=limits),
        Axis("predicted loss", range=limits),
        traces,
    )
