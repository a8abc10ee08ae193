"""Figures and tables of a comparison of sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scaling.formatting import format_count, format_flops
from scaling.render.figure import Axis, Band, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Cell, Column, Document, Table, estimate
from scaling.report.parts.run_plots import C_AXIS, LOSS_AXIS, N_AXIS, thinned
from scaling.report.summary import COUNTED

POINTS_SHOWN = 1000


DASHED = "Dashed: beyond the largest budget that the sweep trained."


MEANING = {
    "a": "exponent of N* ∝ C^a",
    "b": "exponent of D* ∝ C^b",
    "E": "floor of the loss, nats",
    "compute": "times the compute for the same loss",
}


Found = Mapping[str, Any]


def computable(comparison: Found) -> list[tuple[str, Found]]:
    """The other sweeps whose compute multiplier is known."""
    return [(other, result) for other, result in comparison["multipliers"].items() if result]


def list_names(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def losses(comparison: Found, documents: Mapping[str, Document]) -> Figure | None:
    """L*(C) of all sweeps whose losses compare with the first's, with bands and the runs
    themselves.
    """
    names = [
        comparison["baseline"],
        *(
            other
            for other, result in comparison["losses"].items()
            if result["compare"] is not False
        ),
    ]
    names = [name for name in names if comparison["frontiers"][name].get("loss")]
    if len(names) < 2:
        return None
    order = [side["name"] for side in comparison["sides"]]
    traces: list[Trace] = [_runs(documents[name], name, order.index(name)) for name in names]
    for name in names:
        traces += _frontier(comparison, name, "loss", order.index(name))
    caption = (
        "Lines: the loss that each law expects of a compute-optimal run, with its interval. "
        "Rings: the runs; those of any other size lie above. "
    )
    caption += DASHED
    return Figure(
        "compare-loss",
        "Compute-optimal loss L*(C)",
        caption,
        C_AXIS,
        LOSS_AXIS,
        tuple(traces),
        size="wide",
    )


def sizes(comparison: Found) -> Figure:
    """N*(C) of all sweeps."""
    traces = [
        trace
        for index, side in enumerate(comparison["sides"])
        for trace in _frontier(comparison, side["name"], "n_star", index)
    ]
    caption = (
        "The compute-optimal size of each sweep, with its interval; where the bands part, the "
        f"sweeps ask for other models. {DASHED}"
    )
    return Figure(
        "compare-size",
        "Compute-optimal size N*(C)",
        caption,
        C_AXIS,
        N_AXIS,
        tuple(traces),
        size="wide",
    )


def _runs(document: Document, name: str, colour: int) -> Markers:
    flops, loss = (np.asarray(document["data"].get(key) or [], float) for key in ("flops", "loss"))
    if len(flops) != len(loss):  # a document need not keep the C of its runs
        flops = loss = np.empty(0)
    kept = thinned(len(loss), POINTS_SHOWN)
    return Markers(flops[kept], loss[kept], f"runs of {name}", colour, "open", 4.5)


def _frontier(comparison: Found, name: str, which: str, colour: int) -> list[Trace]:
    result, flops = (
        comparison["frontiers"][name][which],
        np.asarray(comparison["frontiers"][name]["flops"], float),
    )
    low, top = next(side["range"]["flops"] for side in comparison["sides"] if side["name"] == name)
    band, line = Band(flops, result["lo"], result["hi"], colour), np.asarray(result["value"], float)
    inside = np.flatnonzero((flops >= low / 1.05) & (flops <= top * 1.05))
    first, last = (int(inside[0]), int(inside[-1])) if inside.size else (0, 0)
    beyond = [
        Line(flops[part], line[part], "", colour, "dash")
        for part in (slice(0, first + 1), slice(last, None))
    ]
    return [band, Line(flops[first : last + 1], line[first : last + 1], name, colour), *beyond]


def multiplier(comparison: Found) -> Figure | None:
    """C_A / C_B at equal loss over the compute of the first, with bands."""
    multipliers = computable(comparison)
    if not multipliers:
        return None
    order = [side["name"] for side in comparison["sides"]]
    traces: list[Trace] = [ReferenceLine(y=1.0, label="the same compute")]
    for other, result in multipliers:
        flops, gain, lo, hi = (
            np.array([np.nan if value is None else value for value in result["curve"][key]], float)
            for key in ("flops", "gain", "lo", "hi")
        )
        drawn = np.isfinite(gain) & (gain > 0)
        colour = order.index(other)
        floor = float(gain[drawn].min()) / 20 if drawn.any() else 0.05
        traces += [
            Band(flops[drawn], np.maximum(lo[drawn], floor), hi[drawn], colour),
            Line(flops[drawn], gain[drawn], other, colour),
        ]
    shared = [
        (other, float(result["range"][1]))
        for other, result in multipliers
        if result["both_trained"]
    ]
    alone = len(shared) == 1
    traces += [
        ReferenceLine(x=top, label=f"largest budget of both{'' if alone else f' ({other})'}")
        for other, top in shared
    ]
    first = comparison["baseline"]
    caption = (
        f"How many times the compute {first} needs for the loss of the other sweep: above 1, "
        "the other is cheaper. To the right, extrapolated."
    )
    axis = Axis("compute multiplier at equal loss", log=True)
    return Figure(
        "compare-multiplier",
        f"Compute multiplier over {first}",
        caption,
        replace(C_AXIS, label=f"training FLOPs C of {first}"),
        axis,
        tuple(traces),
        size="wide",
    )


def spending(comparison: Found) -> Table | None:
    """For budgets of the first sweep: its loss, what the other needs for it, the share and the
    multiplier.
    """
    rows = [
        _spending_row(other, row)
        for other, result in computable(comparison)
        for row in result["rows"]
    ]
    if not rows:
        return None
    first = comparison["baseline"]
    columns = (
        Column("sweep"),
        Column(f"C of {first}", "flops"),
        Column("loss", "number"),
        Column("C for this loss", "flops"),
        Column("times the compute", "rough", True),
        Column("multiplier", "rough", True),
        Column("note"),
    )
    caption = (
        f"Times the compute: C of the sweep / C of {first} at the same loss. Multiplier: the "
        "inverse, the compute-equivalent gain. "
    )
    caption += f"{100 * comparison['ci']:g} % intervals from pairs of refits; … is an open end."
    return Table("compute", "Compute for the same loss", columns, tuple(rows), caption)


def _spending_row(other: str, row: Found) -> tuple[Cell, ...]:
    note = row.get("never") or (
        f"beyond what {list_names(row['beyond'])} trained" if row["beyond"] else ""
    )
    return (
        other,
        row["flops"],
        row["loss"],
        row["needed"],
        estimate(row["share"]),
        estimate(row["gain"]),
        note,
    )


def estimates(comparison: Found) -> Table:
    """Exponents and parameters side by side, one row a quantity."""
    result = [{**side["derived"], **side["params"]} for side in comparison["sides"]]
    names = list(dict.fromkeys(name for each in result for name in each))
    rows = tuple((name, *(estimate(each.get(name)) for each in result)) for name in names)
    columns = (
        Column("parameter"),
        *(Column(side["name"], "number", True) for side in comparison["sides"]),
    )
    return Table(
        "estimates",
        "Parameters side by side",
        columns,
        rows,
        f"{100 * comparison['ci']:g} % intervals from each sweep's own bootstrap.",
    )


def tests(comparison: Found) -> Table:
    """The difference of each quantity from the first sweep's, with its interval, p and verdict."""
    rows = tuple(
        (
            test["other"],
            _quantity(test["quantity"]),
            estimate(test["difference"]),
            test["p"],
            test["p_holm"],
            "significant" if test["significant"] else "not significant",
        )
        for test in comparison["tests"]
    )
    columns = (
        Column("sweep"),
        Column("quantity"),
        Column(f"against {comparison['baseline']}", "rough", True),
        Column("p", "short"),
        Column("p, Holm", "short"),
        Column(f"at {100 * comparison['level']:g} %"),
    )
    caption = (
        "Differences (of compute: the ratio, to be compared with 1) from independent refits of "
        "both sweeps; two-sided p, alone and after "
    )
    caption += (
        f"Holm's correction for all {len(rows)} tests. Not significant does not mean equal: "
        "the runs "
        "do not decide."
    )
    return Table("tests", "Test of difference", columns, rows, caption)


def _quantity(name: str) -> str:
    return (
        MEANING[name]
        if name == "compute"
        else f"{name}: {MEANING[name]}"
        if name in MEANING
        else name
    )


def sweeps(comparison: Found) -> Table:
    """What each sweep is and how it was fitted."""
    columns = (
        Column("sweep"),
        Column("runs", "integer"),
        Column("C trained"),
        Column("N trained"),
        Column("law"),
        Column("fitted by"),
        Column("N and C counted"),
        Column("source"),
    )
    return Table("sweeps", "The sweeps", columns, tuple(map(_sweep_row, comparison["sides"])))


def _sweep_row(side: Found) -> tuple[Cell, ...]:
    ranges, counted = side["range"], side["source"].get("convention") or {}
    n, c = (
        [" to ".join(map(form, ranges[name]))] if ranges.get(name) else ["–"]
        for name, form in (("n_params", format_count), ("flops", format_flops))
    )
    size = COUNTED.get(counted.get("params", ""), counted.get("params", "as given"))
    return (
        side["name"],
        side["n_points"],
        c[0],
        n[0],
        side["law"],
        f"{side['approach']}, {side['objective']}",
        f"{size}; {counted.get('flops', 'as given')}",
        ", ".join(map(str, side["source"]["paths"])),
    )
