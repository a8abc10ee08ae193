"""Diagnostics of a fit as tables and figures: forecasts against measurements, seed noise, runs
above the law, loss-curve collapse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling.formatting import format_count, format_flops
from scaling.render.figure import Axis, Band, ColorScale, Figure, Line, Markers, Trace
from scaling.render.table import Cell, Column, Document, Table, number

if TYPE_CHECKING:
    from scaling.predict.verification import CheckedForecast


def forecasts(checked: Sequence[CheckedForecast]) -> Table | None:
    """What the fit predicted for each run before it was trained, and what came of it."""
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
        ("runs about the law, standard deviation", f"{100 * result['residual_sd']:.2f} %")
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
    """How far the best run of each budget lies above the fitted frontier."""
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
        f"{100 * result['closest_spread']:.1f} %. Dashed: their median."
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


ROWS_LISTED = 200


def flagged(document: Document) -> Table | None:
    """Suspicious points, by reason; the caption tells the fit without them."""
    if not document.get("flagged"):
        return None
    rows = tuple(
        (
            item["reason"],
            item["count"],
            ", ".join(str(point["row"]) for point in item["points"][:8]),
        )
        for item in document["flagged"]
    )
    columns = (Column("reason"), Column("points", "integer"), Column("which"))
    without = document["fit_without_flagged"]
    caption = (
        "Kept in the fit. Without "
        f"{'it' if without['left_out'] == 1 else 'these ' + str(without['left_out'])}: "
    )
    if without.get("unavailable"):
        return Table(
            "flagged",
            "Suspicious points",
            columns,
            rows,
            caption + f"{without['unavailable']}.",
        )
    values = {**({"a": without["a"]} if "a" in without else {}), **without["params"]}
    return Table(
        "flagged",
        "Suspicious points",
        columns,
        rows,
        caption + ", ".join(f"{name} {number(v, 4)}" for name, v in values.items()) + ".",
    )


def minima(document: Document) -> Table | None:
    """The local minima that the starts ended in, where there are several: none of them alone is the
    answer.
    """
    minima_list = ((document.get("identification") or {}).get("starts") or {}).get("minima") or []
    if len(minima_list) < 2:
        return None
    varying = [
        name
        for name in minima_list[0]["params"]
        if len({minimum["params"][name] for minimum in minima_list}) > 1
    ]
    columns = (
        Column("objective", "number"),
        Column("starts", "integer"),
        *(Column(name, "number") for name in varying),
    )
    rows = tuple(
        (minimum["value"], minimum["starts"], *(minimum["params"][name] for name in varying))
        for minimum in minima_list[:8]
    )
    return Table("minima", "Local minima that the starts ended in", columns, rows)


def rollout(document: Document) -> Table | None:
    """Each size predicted from the smaller ones."""
    if not document.get("rollout"):
        return None
    names = ("n_params", "n_train", "mean_abs_rel_error", "bias", "covered")
    columns = (
        Column("size N", "count"),
        Column("runs fitted", "integer"),
        Column("mean error", "percent"),
        Column("bias", "percent"),
        Column("inside", "short"),
    )
    rows = tuple(tuple(row[name] for name in names) for row in document["rollout"])
    return Table("rollout", "Rollout: each size from the smaller ones", columns, rows)


def holdout(document: Document) -> Table | None:
    """The runs of the budget that was left out, predicted from the others."""
    result = document.get("holdout")
    if not result:
        return None
    rows = tuple(
        (
            row["n_params"],
            row["tokens"],
            row["loss"],
            (row["predicted"], row["lo"], row["hi"]),
            row["predicted"] / row["loss"] - 1,
        )
        for row in result["rows"]
    )
    columns = (
        Column("N", "count"),
        Column("D", "count"),
        Column("measured", "number"),
        Column("predicted", "number", True),
        Column("error", "percent"),
    )
    caption = (
        f"The budget of {format_flops(result['budget'])} FLOPs was left out of this fit. "
        "Error: predicted / measured - 1."
    )
    caption += (
        f" {min(len(rows), ROWS_LISTED)} of {result['n_test']:,} runs are listed."
        if min(len(rows), ROWS_LISTED) < result["n_test"]
        else ""
    )
    return Table("holdout", "Hold-out", columns, rows, caption, ROWS_LISTED)


def truth(document: Document) -> Table | None:
    """E with its interval, the floor on the windows measured, the entropy of the language, and how
    far E lies from each.
    """
    floor = document.get("known_entropy")
    if not floor:
        return None
    rows: list[tuple[Cell, ...]] = [
        ("fitted E", (floor["fitted_E"], floor["lo"], floor["hi"]), None)
    ]
    if floor["floor"] is not None:
        rows.append(
            (
                "lowest loss on the windows measured",
                _alone(floor["floor"]),
                floor["floor_difference_percent"] / 100,
            )
        )
    rows.append(
        ("entropy of the language", _alone(floor["entropy"]), floor["difference_percent"] / 100)
    )
    columns = (
        Column("floor of the loss"),
        Column("nats per token", "number", True),
        Column("E minus this", "percent"),
    )
    return Table(
        "truth", "The fitted floor and the true one", columns, tuple(rows), _told(document)
    )


def _alone(value: float) -> Cell:
    return value, None, None


def _told(document: Document) -> str:
    floor = document["known_entropy"]
    status = "" if document["status"] == "ok" else f" The fit's status is {document['status']}."
    if floor["covers"] is None:
        return f"No interval: nothing says how far E may be off.{status}"
    which = "true floor" if floor["floor"] is None else "lowest possible loss on these windows"
    return (
        f"The {100 * document['ci']:g} % interval of E "
        f"{'holds' if floor['covers'] else 'misses'} the {which}.{status}"
    )
