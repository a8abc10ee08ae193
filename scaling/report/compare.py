"""Several sweeps on one page: their frontiers over each other, what one needs for the loss of the
other, and what tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scaling.formatting import format_count, format_flops
from scaling.render.figure import Axis, Band, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.section import Section
from scaling.render.table import Cell, Column, Document, Table, estimate, format_cell
from scaling.report.parts.run_plots import C_AXIS, LOSS_AXIS, N_AXIS, thinned
from scaling.report.sections import Report
from scaling.report.summary import COUNTED, Tile

POINTS_SHOWN = 1000
DASHED = "Dashed: beyond the largest budget that the sweep trained."
RATIO, ROUGH = Column("", "rough", True), Column("", "rough")
MEANING = {
    "a": "exponent of N* ∝ C^a",
    "b": "exponent of D* ∝ C^b",
    "E": "floor of the loss, nats",
    "compute": "times the compute for the same loss",
}
Found = Mapping[str, Any]


def compose(
    comparison: Found, documents: Mapping[str, Document], notes: Sequence[str], command: str
) -> Report:
    """The page of a comparison (`scaling.predict.compare.compare`) of these fit documents; `notes`
    says how they were fitted.
    """
    others = [side["name"] for side in comparison["sides"][1:]]
    name = _listed([comparison["baseline"], *others])
    sections = (
        Section(
            "compute",
            "Compute for the same loss",
            _there(losses(comparison, documents), multiplier(comparison)),
            _there(spending(comparison)),
        ),
        Section("exponents", "Exponents", tables=[estimates(comparison), tests(comparison)]),
        Section("size", "Compute-optimal size", _there(sizes(comparison))),
        Section(
            "provenance", "Data and provenance", tables=[sweeps(comparison)], commands=[command]
        ),
    )
    incomparable = [
        f"{other} and {comparison['baseline']}: {result['why']} Only exponents are compared."
        for other, result in comparison["losses"].items()
        if result["compare"] is False
    ]
    trust = [
        result["why"] for result in comparison["losses"].values() if result["compare"] is not False
    ]
    trust += [*_reach(comparison), *notes, *comparison["notes"], *_status(comparison)]
    headline, tiles = _headline(comparison)
    question = (
        "Do these sweeps follow the same law, and how much compute does one need for the loss "
        "of the other?"
    )
    return Report(
        name,
        question,
        tuple(section for section in sections if not section.is_empty),
        tuple(sentences(comparison)),
        tuple(incomparable),
        headline,
        tuple(tiles),
        tuple(dict.fromkeys(trust)),
    )


def _there(*comparison: Any) -> list[Any]:
    return [item for item in comparison if item is not None]


def sentences(comparison: Found) -> list[str]:
    """What the comparison comes to, compute first."""
    first, texts = comparison["baseline"], []
    for other, result in _spent(comparison):
        texts.append(_spending_sentence(first, other, result, _test(comparison, other, "compute")))
        texts += _at_the_other_end(first, other, result)
    for other in (side["name"] for side in comparison["sides"][1:]):
        exponent_tests = [
            test
            for test in comparison["tests"]
            if test["other"] == other and test["quantity"] != "compute"
        ]
        texts.append(_exponent_sentence(first, other, exponent_tests))
    return texts


def _spent(comparison: Found) -> list[tuple[str, Found]]:
    return [(other, result) for other, result in comparison["multipliers"].items() if result]


def _test(comparison: Found, other: str, quantity: str) -> Found:
    return next(
        test
        for test in comparison["tests"]
        if test["other"] == other and test["quantity"] == quantity
    )


def _spending_sentence(first: str, other: str, multiplier: Found, test: Found) -> str:
    top = multiplier["at_top"]
    where = f"what {first} reaches with {format_flops(top['flops'])} FLOPs"
    where += (
        ", the largest budget that both trained"
        if multiplier["both_trained"]
        else "; no budget was trained by both"
    )
    if top["share"]["value"] is None:
        return f"By these fits {other} never reaches the loss of {first}, at any compute ({where})."
    level = (
        ""
        if test["significant"]
        else " That is not notes apart from the same compute (p = "
        f"{format_cell(test['p_holm'], ROUGH)}, Holm's for all that is tested)."
    )
    return (
        f"{other} needs {format_cell(estimate(top['share']), RATIO)} times the compute of "
        f"{first} for the same loss ({where}).{level}"
    )


def _at_the_other_end(first: str, other: str, result: Found) -> list[str]:
    """Where the share is quite another one at the smallest budget that both trained."""
    low = next(row for row in result["rows"] if row["flops"] >= result["range"][0] * 0.999)
    ends = [row["share"]["value"] for row in (low, result["at_top"])]
    if None in ends or low["flops"] >= result["at_top"]["flops"] or max(ends) < 1.5 * min(ends):
        return []
    return [
        f"At {format_flops(low['flops'])} FLOPs of {first} it is "
        f"{format_cell(estimate(low['share']), RATIO)} times: the gain depends on scale."
    ]


def _exponent_sentence(first: str, other: str, tests: Sequence[Found]) -> str:
    different = [
        f"{test['quantity']} (by {format_cell(estimate(test['difference']), RATIO)}, p = "
        f"{format_cell(test['p_holm'], ROUGH)})"
        for test in tests
        if test["significant"]
    ]
    same = [test["quantity"] for test in tests if not test["significant"]]
    text = (
        f"{other} differs from {first} in {', '.join(different)}"
        if different
        else f"{other} and {first}"
    )
    if not different:
        return (
            f"{text} are not notes different in {_listed(same)}: the data are consistent with "
            "equality and do not prove it."
        )
    return f"{text}; not notes different in {_listed(same)}." if same else f"{text}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _headline(comparison: Found) -> tuple[str, list[Tile]]:
    """The numbers of the headline: the share of each other sweep, or the exponents where losses do
    not compare.
    """
    multipliers = _spent(comparison)
    tiles = [
        _tile(f"compute of {other}, {comparison['baseline']} = 1", result["at_top"]["share"])
        for other, result in multipliers
    ]
    tiles += [
        _tile(f"compute multiplier of {other}", result["at_top"]["gain"])
        for other, result in multipliers
    ]
    tiles += [
        _tile(f"exponent a of {side['name']}", side["derived"].get("a"))
        for side in comparison["sides"]
    ]
    return ("At the same loss" if multipliers else "Exponents of N* ∝ C^a"), tiles


def _tile(label: str, entry: Mapping[str, Any] | None) -> Tile:
    value, low, high = (format_cell(part, ROUGH) for part in estimate(entry))
    return Tile(label, value, f"{low} to {high if high != '–' else 'no end'}" if low != "–" else "")


def _reach(comparison: Found) -> list[str]:
    texts = []
    for other, result in _spent(comparison):
        top = result["at_top"]
        if not result["both_trained"]:
            texts.append(
                f"{other} and {comparison['baseline']} trained no budget in common: what is "
                "texts of compute is extrapolated."
            )
        elif top["beyond"]:
            texts.append(
                "At the largest budget that both trained, the same loss lies beyond what "
                f"{_listed(top['beyond'])} trained: extrapolated."
            )
        if top["unreached"] > 0:
            texts.append(
                f"In {100 * top['unreached']:.2g} % of the pairs of refits {other} never "
                "reaches that loss."
            )
    return texts


def _status(comparison: Found) -> list[str]:
    return [
        f"The fit of {side['name']} has the status {side['status']}: not every parameter is "
        "settled by its runs."
        for side in comparison["sides"]
        if side["status"] != "ok"
    ]


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
    multipliers = _spent(comparison)
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
        _spending_row(other, row) for other, result in _spent(comparison) for row in result["rows"]
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
        f"beyond what {_listed(row['beyond'])} trained" if row["beyond"] else ""
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
            "notes apart" if test["significant"] else "not notes apart",
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
        f"Holm's correction for all {len(rows)} tests. Not notes apart is not equal: the runs "
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
