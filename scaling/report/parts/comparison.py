"""Figures and tables of a comparison of sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from scaling.fit.result import FitResult
from scaling.formatting import format_count, format_flops
from scaling.predict.comparison import Band as Curve
from scaling.predict.comparison import Comparison, ComputeMultiplier
from scaling.render.figure import Axis, Band, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Cell, Column, Table, estimate, tabulate
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


def computable(comparison: Comparison) -> list[tuple[str, ComputeMultiplier]]:
    """The other sweeps whose compute multiplier is known."""
    return [(other, result) for other, result in comparison.multipliers.items() if result]


def list_names(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def losses(comparison: Comparison, fits: Mapping[str, FitResult]) -> Figure | None:
    """L*(C) of all sweeps whose losses compare with the first's, with bands and the runs
    themselves.
    """
    others = [other for other, item in comparison.losses.items() if item.compare is not False]
    curves = {
        name: curve
        for name in (comparison.baseline, *others)
        if (curve := comparison.frontiers[name].loss)
    }
    if len(curves) < 2:
        return None
    order, traces = [side.name for side in comparison.sides], []
    for name in curves:
        data = fits[name].data
        flops, loss = (np.asarray(data.get(key) or [], float) for key in ("flops", "loss"))
        if len(flops) == len(loss):  # a fit need not keep the C of its runs
            kept, label = thinned(len(loss), POINTS_SHOWN), f"runs of {name}"
            runs = Markers(flops[kept], loss[kept], label, order.index(name), "open", 4.5)
            traces.append(runs)
    lines = [
        trace
        for name, curve in curves.items()
        for trace in _frontier(comparison, name, curve, order.index(name))
    ]
    caption = (
        "Lines: the loss that each law expects of a compute-optimal run, with its interval. "
        f"Rings: the runs; those of any other size lie above. {DASHED}"
    )
    title, axes = "Compute-optimal loss L*(C)", (C_AXIS, LOSS_AXIS)
    return Figure("compare-loss", title, caption, *axes, (*traces, *lines), size="wide")


def sizes(comparison: Comparison) -> Figure:
    """N*(C) of all sweeps."""
    traces = [
        trace
        for index, side in enumerate(comparison.sides)
        if (curve := comparison.frontiers[side.name].n_star)
        for trace in _frontier(comparison, side.name, curve, index)
    ]
    caption = (
        "The compute-optimal size of each sweep, with its interval; where the bands part, the "
        f"sweeps ask for other models. {DASHED}"
    )
    title, axes = "Compute-optimal size N*(C)", (C_AXIS, N_AXIS)
    return Figure("compare-size", title, caption, *axes, tuple(traces), size="wide")


def _frontier(comparison: Comparison, name: str, curve: Curve, colour: int) -> list[Trace]:
    flops, line, lo, hi = (
        np.asarray(values, float)
        for values in (comparison.frontiers[name].flops, curve.value, curve.lo, curve.hi)
    )
    low, top = next(side.range["flops"] for side in comparison.sides if side.name == name)
    inside = np.flatnonzero((flops >= low / 1.05) & (flops <= top * 1.05))
    first, last = (int(inside[0]), int(inside[-1])) if inside.size else (0, 0)
    beyond = [
        Line(flops[part], line[part], "", colour, "dash")
        for part in (slice(0, first + 1), slice(last, None))
    ]
    trained = slice(first, last + 1)
    band, solid = Band(flops, lo, hi, colour), Line(flops[trained], line[trained], name, colour)
    return [band, solid, *beyond]


def multiplier(comparison: Comparison) -> Figure | None:
    """C_A / C_B at equal loss over the compute of the first, with bands."""
    multipliers, first = computable(comparison), comparison.baseline
    if not multipliers:
        return None
    order = [side.name for side in comparison.sides]
    traces: list[Trace] = [ReferenceLine(y=1.0, label="the same compute")]
    shared = [other for other, result in multipliers if result.both_trained]
    for other, result in multipliers:
        curve, colour = result.curve, order.index(other)
        flops, gain, lo, hi = (
            np.array(values, float) for values in (curve.flops, curve.gain, curve.lo, curve.hi)
        )
        drawn = np.isfinite(gain) & (gain > 0)
        floor = float(gain[drawn].min()) / 20 if drawn.any() else 0.05
        traces += [
            Band(flops[drawn], np.maximum(lo[drawn], floor), hi[drawn], colour),
            Line(flops[drawn], gain[drawn], other, colour),
        ]
        if result.both_trained:
            label = f"largest budget of both{'' if len(shared) == 1 else f' ({other})'}"
            traces.append(ReferenceLine(x=float(result.range[1]), label=label))
    caption = (
        f"How many times the compute {first} needs for the loss of the other sweep: above 1, "
        "the other is cheaper. To the right, extrapolated."
    )
    axes = (
        replace(C_AXIS, label=f"training FLOPs C of {first}"),
        Axis("compute multiplier at equal loss", log=True),
    )
    title = f"Compute multiplier over {first}"
    return Figure("compare-multiplier", title, caption, *axes, tuple(traces), size="wide")


def spending(comparison: Comparison) -> Table | None:
    """For budgets of the first sweep: its loss, what the other needs for it, the share and the
    multiplier.
    """
    first = comparison.baseline
    rows = [
        {
            "other": other,
            "row": row,
            "note": row.never
            or (f"beyond what {list_names(row.beyond)} trained" if row.beyond else ""),
        }
        for other, result in computable(comparison)
        for row in result.rows
    ]
    columns = {
        "other": Column("sweep"),
        "row.flops": Column(f"C of {first}", "flops"),
        "row.loss": Column("loss", "number"),
        "row.needed": Column("C for this loss", "flops"),
        "row.share": Column("times the compute", "rough", True),
        "row.gain": Column("multiplier", "rough", True),
        "note": Column("note"),
    }
    caption = (
        f"Times the compute: C of the sweep / C of {first} at the same loss. Multiplier: the "
        f"inverse, the compute-equivalent gain. {100 * comparison.ci:g} % intervals from pairs of "
        "refits; … is an open end."
    )
    return tabulate("compute", "Compute for the same loss", rows, columns, caption)


def estimates(comparison: Comparison) -> Table:
    """Exponents and parameters side by side, one row a quantity."""
    sides = [{**side.derived, **side.params} for side in comparison.sides]
    names = list(dict.fromkeys(name for each in sides for name in each))
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(estimate(each.get(name)) for each in sides)) for name in names
    )
    columns = (Column("parameter"), *(Column(s.name, "number", True) for s in comparison.sides))
    caption = f"{100 * comparison.ci:g} % intervals from each sweep's own bootstrap."
    return Table("estimates", "Parameters side by side", columns, rows, caption)


def tests(comparison: Comparison) -> Table | None:
    """The difference of each quantity from the first sweep's, with its interval, p and verdict."""
    rows = [
        {
            "test": test,
            "quantity": MEANING["compute"]
            if test.quantity == "compute"
            else ": ".join(filter(None, (test.quantity, MEANING.get(test.quantity)))),
            "verdict": "significant" if test.significant else "not significant",
        }
        for test in comparison.tests
    ]
    columns = {
        "test.other": Column("sweep"),
        "quantity": Column("quantity"),
        "test.difference": Column(f"against {comparison.baseline}", "rough", True),
        "test.p": Column("p", "short"),
        "test.p_holm": Column("p, Holm", "short"),
        "verdict": Column(f"at {100 * comparison.level:g} %"),
    }
    caption = (
        "Differences (of compute: the ratio, to be compared with 1) from independent refits of "
        "both sweeps; two-sided p, alone and after Holm's correction for all "
        f"{len(rows)} tests. Not significant does not mean equal: the runs do not decide."
    )
    return tabulate("tests", "Test of difference", rows, columns, caption)


def sweeps(comparison: Comparison) -> Table | None:
    """What each sweep is and how it was fitted."""
    rows = []
    for side in comparison.sides:
        counted = side.source.convention
        size = COUNTED.get(counted.params or "", counted.params or "as given")
        spans = {
            name: " to ".join(map(form, side.range[name])) if name in side.range else "–"
            for name, form in (("n_params", format_count), ("flops", format_flops))
        }
        rows.append(
            {
                "side": side,
                "n": spans["n_params"],
                "c": spans["flops"],
                "by": f"{side.approach}, {side.objective}",
                "counted": f"{size}; {counted.flops or 'as given'}",
                "paths": ", ".join(side.source.paths),
            }
        )
    columns = {
        "side.name": Column("sweep"),
        "side.n_points": Column("runs", "integer"),
        "c": Column("C trained"),
        "n": Column("N trained"),
        "side.law": Column("law"),
        "by": Column("fitted by"),
        "counted": Column("N and C counted"),
        "paths": Column("source"),
    }
    return tabulate("sweeps", "The sweeps", rows, columns)
