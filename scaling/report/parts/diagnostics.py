"""Diagnostics of a fit as tables and figures: forecasts against measurements, seed noise, runs
above the law, loss-curve collapse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling.formatting import format_count, format_flops
from scaling.render.figure import Axis, Band, ColorScale, Figure, Line, Markers, Trace
from scaling.render.table import Column, Document, Table, number

if TYPE_CHECKING:
    from scaling.predict.verification import CheckedForecast


def forecasts(checked: Sequence[CheckedForecast]) -> Table | None:
    """What the fit said of item run before it was trained, and what came of it."""
    if not checked:
        return None
    rows = tuple(
        (
            item.forecast.role,
            item.n_params,
            item.tokens,
            item.forecast.flops,
            (item.forecast.loss, item.forecast.lo, item.forecast.hi),
            ", ".join(f"{loss:.4f}" for loss in item.losses),
            item.error,
            None if item.inside is None else f"{item.inside} of {len(item.losses)}",
        )
        for item in checked
    )
    columns = (
        Column("model"),
        Column("N", "count"),
        Column("D", "count"),
        Column("C", "flops"),
        Column("predicted loss", "number", True),
        Column("measured"),
        Column("error", "percent"),
        Column("inside"),
    )
    caption = (
        f"Predicted by {checked[0].forecast.source or 'a fit'} before training; "
        f"{100 * checked[0].forecast.ci:g} % intervals are those of one run."
    )
    return Table(
        "forecasts", "Forecasts made before training, and measured losses", columns, rows, caption
    )


def forecast_figure(checked: Sequence[CheckedForecast]) -> Figure | None:
    """Loss against size at the predicted budget: the interval, the prediction, and the runs."""
    if not checked:
        return None
    ordered = sorted(checked, key=lambda item: item.n_params)
    n = [item.n_params for item in ordered]
    ends = [
        (item.forecast.lo or item.forecast.loss, item.forecast.hi or item.forecast.loss)
        for item in ordered
    ]
    lo, hi = zip(*ends, strict=True)
    x = [item.n_params for item in ordered for _ in item.losses]
    y = [loss for item in ordered for loss in item.losses]
    traces: tuple[Trace, ...] = (
        Band(np.array(n), np.array(lo), np.array(hi), 0),
        Line(n, [item.forecast.loss for item in ordered], "predicted", 0, "dash"),
        Markers(
            x,
            y,
            "measured",
            1,
            "circle",
            9,
            notes=[f"{format_count(size)}: {loss:.4f}" for size, loss in zip(x, y, strict=True)],
        ),
    )
    caption = (
        f"At {format_flops(ordered[0].forecast.flops)} FLOPs. The band is the interval for one "
        "run; it was recorded before training."
    )
    return Figure(
        "forecasts",
        "Prediction against measurement",
        caption,
        Axis("parameters N", True, "count"),
        Axis("loss"),
        traces,
    )


def noise(document: Document) -> Table | None:
    """What seeds change, what the law leaves, and whether that is more."""
    result = document.get("noise")
    if not result:
        return None
    rows: list[tuple[str, str]] = []
    if result["basis"] == "seeds":
        interval = (
            f"{100 * result['sd']:.2f} % [{100 * result['lo']:.2f}, {100 * result['hi']:.2f}]"
        )
        rows.append(
            (
                "loss of a run over seeds, standard deviation",
                f"{interval}, from {result['cells']} cells, {result['degrees_of_freedom']} "
                "degrees of freedom",
            )
        )
    rows.append(
        ("runs about the law, robust standard deviation", f"{100 * result['residual_sd']:.2f} %")
    )
    test = result.get("lack_of_fit")
    if test:
        rows.append(
            (
                "lack of fit: variance about the law over that of seeds",
                f"{number(test['ratio'], 3)} (p = {test['p']:.2g})",
            )
        )
    if result["basis"] != "seeds":
        rows.append(
            (
                "seeds",
                "no cell has more than one: seed noise and errors of the law cannot be separated",
            )
        )
    return Table("noise", "Noise", (Column("what"), Column("value")), tuple(rows))


def above(document: Document) -> Table | None:
    """Runs above the law with their likely cause."""
    runs: Sequence[Mapping[str, Any]] = document.get("runs_above_law") or []
    if not runs:
        return None
    rows = tuple(
        (
            run["run_id"],
            run["n_params"],
            run["tokens"],
            run["loss"],
            run["excess"],
            run["cause"],
        )
        for run in runs
    )
    columns = (
        Column("run"),
        Column("N", "count"),
        Column("D", "count"),
        Column("loss", "number"),
        Column("above the law", "percent"),
        Column("likely cause"),
    )
    return Table(
        "above",
        "Runs above the law",
        columns,
        rows,
        "A tuning error can only raise the loss: check these runs. They are kept in the fit.",
    )


def over_frontier(document: Document) -> Table | None:
    """How far the best run of gap budget lies above the fitted frontier."""
    gaps: Sequence[Mapping[str, Any]] = document.get("frontier_gap") or []
    if not gaps:
        return None
    rows = tuple(
        tuple(gap[name] for name in ("flops", "n_params", "loss", "optimal_loss", "excess"))
        for gap in gaps
    )
    columns = (
        Column("C", "flops"),
        Column("N of the best run", "count"),
        Column("its loss", "number"),
        Column("L*(C)", "number"),
        Column("excess", "percent"),
    )
    caption = (
        "The best run of a budget should lie near the frontier: far above it, no size of that "
        "budget was well tuned or well chosen."
    )
    return Table("over-frontier", "Best runs over the frontier", columns, rows, caption)


def collapse(document: Document) -> Figure | None:
    """The normalised loss curves of the best run of each budget."""
    result = document.get("loss_curve_collapse")
    if not result:
        return None
    sizes = [curve["n_params"] for curve in result["curves"]]
    ramp = ColorScale("parameters N", min(sizes), max(sizes))
    traces: list[Trace] = [
        Line(
            result["shares"],
            curve["y"],
            "",
            ramp.at(curve["n_params"]),
            "dot" if curve["flagged"] else "solid",
            1.8,
            f"{format_count(curve['n_params'])} parameters, {100 * curve['deviation']:+.1f} % "
            f"off, run {curve['run_id']}",
        )
        for curve in result["curves"]
    ]
    traces.append(Line(result["shares"], result["median"], "median", "ink", "dash", 1.4))
    caption = (
        "(L - E) / (final L - E) of the best run of each budget, before the cooldown; E = "
        f"{result['floor']:.3g}. Tuned alike, the curves fall "
        f"on one another: here they differ by {100 * result['spread']:.1f} %, and at best, "
        f"with E = {result['closest_floor']:.3g}, by "
        f"{100 * result['closest_spread']:.1f} %. Dashed: their middle."
    )
    caption += (
        " Dotted curves lie off even then."
        if any(curve["flagged"] for curve in result["curves"])
        else ""
    )
    y_axis = Axis("normalised loss", True)
    return Figure(
        "collapse",
        "Loss-curve collapse",
        caption,
        Axis("share of the run", True),
        y_axis,
        tuple(traces),
        ramp,
    )
