"""How honest a sweep was, as tables and pictures: forecasts against measurements, seeds, runs above the law, curves that collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling.formatting import format_count, format_flops
from scaling.render.figure import Axis, Band, ColorScale, Figure, Line, Markers, Trace
from scaling.render.table import Column, Document, Table, number

if TYPE_CHECKING:
    from scaling.predict.verification import CheckedForecast


def forecasts(found: Sequence[CheckedForecast]) -> Table | None:
    """What the fit said of each run before it was trained, and what came of it."""
    if not found:
        return None
    rows = tuple(
        (
            each.forecast.role,
            each.n_params,
            each.tokens,
            each.forecast.flops,
            (each.forecast.loss, each.forecast.lo, each.forecast.hi),
            ", ".join(f"{loss:.4f}" for loss in each.losses),
            each.error,
            None if each.inside is None else f"{each.inside} of {len(each.losses)}",
        )
        for each in found
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
    told = f"Predicted by {found[0].forecast.source or 'a fit'} before training; {100 * found[0].forecast.ci:g} % intervals are those of one run."
    return Table("forecasts", "Predicted before training, then measured", columns, rows, told)


def forecast_figure(found: Sequence[CheckedForecast]) -> Figure | None:
    """Loss against size at the predicted budget: the interval, the prediction, and the runs."""
    if not found:
        return None
    ordered = sorted(found, key=lambda each: each.n_params)
    n = [each.n_params for each in ordered]
    ends = [
        (each.forecast.lo or each.forecast.loss, each.forecast.hi or each.forecast.loss)
        for each in ordered
    ]
    lo, hi = zip(*ends, strict=True)
    x = [each.n_params for each in ordered for _ in each.losses]
    y = [loss for each in ordered for loss in each.losses]
    traces: tuple[Trace, ...] = (
        Band(np.array(n), np.array(lo), np.array(hi), 0),
        Line(n, [each.forecast.loss for each in ordered], "predicted", 0, "dash"),
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
    caption = f"At {format_flops(ordered[0].forecast.flops)} FLOPs. The band is the interval for one run; it was written down before training."
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
    held = document.get("noise")
    if not held:
        return None
    rows: list[tuple[str, str]] = []
    if held["basis"] == "seeds":
        interval = f"{100 * held['sd']:.2f} % [{100 * held['lo']:.2f}, {100 * held['hi']:.2f}]"
        rows.append(
            (
                "loss of a run over seeds, standard deviation",
                f"{interval}, from {held['cells']} cells, {held['degrees_of_freedom']} degrees of freedom",
            )
        )
    rows.append(
        ("runs about the law, robust standard deviation", f"{100 * held['residual_sd']:.2f} %")
    )
    test = held.get("lack_of_fit")
    if test:
        rows.append(
            (
                "lack of fit: variance about the law over that of seeds",
                f"{number(test['ratio'], 3)} (p = {test['p']:.2g})",
            )
        )
    if held["basis"] != "seeds":
        rows.append(
            ("seeds", "no cell has more than one: noise and errors of the law cannot be told apart")
        )
    return Table("noise", "Noise", (Column("what"), Column("value")), tuple(rows))


def above(document: Document) -> Table | None:
    """Runs above the law with their likely cause."""
    held: Sequence[Mapping[str, Any]] = document.get("runs_above_law") or []
    if not held:
        return None
    rows = tuple(
        (
            each["run_id"],
            each["n_params"],
            each["tokens"],
            each["loss"],
            each["excess"],
            each["cause"],
        )
        for each in held
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
        "Neglect only adds to a loss: these runs deserve a second look. They are kept in the fit.",
    )


def over_frontier(document: Document) -> Table | None:
    """How far the best run of each budget lies above the fitted frontier."""
    held: Sequence[Mapping[str, Any]] = document.get("frontier_gap") or []
    if not held:
        return None
    rows = tuple(
        tuple(each[name] for name in ("flops", "n_params", "loss", "optimal_loss", "excess"))
        for each in held
    )
    columns = (
        Column("C", "flops"),
        Column("N of the best run", "count"),
        Column("its loss", "number"),
        Column("L*(C)", "number"),
        Column("excess", "percent"),
    )
    told = "The best run of a budget should lie near the frontier: far above, no size of that budget was well tuned or well placed."
    return Table("over-frontier", "Best runs over the frontier", columns, rows, told)


def collapse(document: Document) -> Figure | None:
    """The normalised loss curves of the best run of each budget."""
    held = document.get("loss_curve_collapse")
    if not held:
        return None
    sizes = [curve["n_params"] for curve in held["curves"]]
    ramp = ColorScale("parameters N", min(sizes), max(sizes))
    traces: list[Trace] = [
        Line(
            held["shares"],
            curve["y"],
            "",
            ramp.at(curve["n_params"]),
            "dot" if curve["flagged"] else "solid",
            1.8,
            f"{format_count(curve['n_params'])} parameters, {100 * curve['deviation']:+.1f} % off, run {curve['run_id']}",
        )
        for curve in held["curves"]
    ]
    traces.append(Line(held["shares"], held["median"], "median", "ink", "dash", 1.4))
    caption = (
        f"(L - E) / (final L - E) of the best run of each budget, before the cooldown; E = {held['floor']:.3g}. Tuned alike, the curves fall "
        f"on one another: here they differ by {100 * held['spread']:.1f} %, and at best, with E = {held['closest_floor']:.3g}, by "
        f"{100 * held['closest_spread']:.1f} %. Dashed: their middle."
    )
    caption += (
        " Dotted curves lie off even then."
        if any(curve["flagged"] for curve in held["curves"])
        else ""
    )
    y_axis = Axis("normalised loss", True)
    return Figure(
        "collapse",
        "Do the loss curves collapse?",
        caption,
        Axis("share of the run", True),
        y_axis,
        tuple(traces),
        ramp,
    )
