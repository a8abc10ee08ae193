"""Several sweeps on one page: their frontiers over each other, what one needs for the loss of the
other, and whether they differ significantly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from scaling.fit.document import FitStatus, in_one_table
from scaling.fit.result import FitResult
from scaling.formatting import format_flops, format_percent
from scaling.predict.comparison import Comparison, ComputeMultiplier, DifferenceTest
from scaling.predict.law_source import load_law
from scaling.render.figure import Axis, Band, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.section import section
from scaling.render.table import (
    Table,
    format_estimate,
    number,
    record_table,
)
from scaling.report.parts.drawing import (
    answer_curve,
    c_axis,
    fitted_points,
    loss_axis,
    n_axis,
    thinned,
)
from scaling.report.sections import Report

Quantity = Literal["n_star", "loss_star"]
QUANTITIES: tuple[Quantity, Quantity] = ("loss_star", "n_star")
POINTS_SHOWN, CURVE = 1000, 60
LOSS_CAPTION = (
    "Lines: the loss that each law expects of a compute-optimal run, with its interval. Hollow "
    "marks: the runs; those of other sizes lie above, except for the noise of a run."
)
SIZE_CAPTION = (
    "The compute-optimal size of each sweep, with its interval; where the bands part, the sweeps "
    "ask for other models."
)
MEANING = {
    "a": "a: exponent of N* ∝ C^a",
    "b": "b: exponent of D* ∝ C^b",
    "E": "E: floor of the loss, nats",
    "compute": "times the compute for the same loss",
}


def compose(
    comparison: Comparison, fits: Mapping[str, FitResult], notes: Sequence[str], command: str
) -> Report:
    """The page of a comparison (`scaling.predict.compare.compare`) of these fits; `notes` says how
    they were fitted.
    """
    first = comparison.baseline
    losses, sizes = (_frontiers(comparison, fits, quantity) for quantity in QUANTITIES)
    sections = (
        section(
            "compute",
            "Compute for the same loss",
            [_multiplier(comparison)],
            [_spending(comparison)],
        ),
        section("exponents", "Exponents", [], [_estimates(comparison), _tests(comparison)]),
        section("size", "Compute-optimal size", [sizes] if losses else []),
        section("provenance", "Provenance", commands=[command]),
    )
    apart = {name: item.why for name, item in comparison.losses.items() if item.compare is False}
    caveats = [item.why for name, item in comparison.losses.items() if name not in apart]
    caveats += [*_reach(comparison), *notes, *comparison.notes]
    caveats += [
        f"The fit of {side.name} has the status {side.status}: not every parameter is settled by "
        "its runs."
        for side in comparison.sides
        if side.status is not FitStatus.OK
    ]
    return Report(
        name=_listed([side.name for side in comparison.sides]),
        question="Do these sweeps follow the same law, and how much compute does one need for the "
        "loss of the other?",
        sections=tuple(part for part in sections if not part.is_empty),
        lead=tuple(figure for figure in [losses or sizes] if figure),
        sentences=tuple(sentences(comparison)),
        notices=tuple(
            f"{other} and {first}: {why} Only exponents are compared."
            for other, why in apart.items()
        ),
        caveats=tuple(dict.fromkeys(caveats)),
    )


def _computable(comparison: Comparison) -> list[tuple[str, ComputeMultiplier]]:
    """The other sweeps whose compute multiplier is known."""
    return [(other, result) for other, result in comparison.multipliers.items() if result]


def _listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def sentences(comparison: Comparison) -> list[str]:
    """What the comparison comes to, compute first."""
    first, texts = comparison.baseline, []
    for other, result in _computable(comparison):
        test = next(t for t in comparison.tests if (t.other, t.quantity) == (other, "compute"))
        texts += _compute_sentences(first, result, test)
    for side in comparison.sides[1:]:
        tests = [t for t in comparison.tests if t.other == side.name and t.quantity != "compute"]
        same = _listed([test.quantity for test in tests if not test.significant])
        different = [
            f"{t.quantity} (by {format_estimate(t.difference)}, p = {number(t.p_holm, 3)})"
            for t in tests
            if t.significant
        ]
        if different:
            rest = f"; no significant difference in {same}" if same else ""
            texts.append(f"{side.name} differs from {first} in {', '.join(different)}{rest}.")
        else:
            texts.append(
                f"{side.name} and {first} do not differ significantly in {same}: the "
                "data are consistent with equality and do not prove it."
            )
    return texts


def _compute_sentences(first: str, result: ComputeMultiplier, test: DifferenceTest) -> list[str]:
    """The compute of the other sweep at the largest budget, and at the smallest where its share is
    quite another one there.
    """
    top, other = result.at_top, test.other
    where = f"what {first} reaches with {format_flops(top.flops)} FLOPs"
    where += (
        ", the largest budget that both trained"
        if result.both_trained
        else "; no budget was trained by both"
    )
    if top.share.value is None:
        return [
            f"By these fits {other} never reaches the loss of {first}, at any compute ({where})."
        ]
    text = f"{other} needs {format_estimate(top.share)} times the compute of {first} for the same "
    text += f"loss ({where})."
    if not test.significant:
        text += " That is not significantly different from the same compute (p = "
        text += f"{number(test.p_holm, 3)}, Holm's for all that is tested)."
    low = next(row for row in result.rows if row.flops >= result.range[0] * 0.999)
    ends = low.share.value or top.share.value, top.share.value
    if low.flops >= top.flops or max(ends) < 1.5 * min(ends):
        return [text]
    depends = f"At {format_flops(low.flops)} FLOPs of {first} it is {format_estimate(low.share)} "
    return [text, f"{depends}times: the gain depends on scale."]


def _reach(comparison: Comparison) -> list[str]:
    texts = []
    for other, result in _computable(comparison):
        top = result.at_top
        if not result.both_trained:
            texts.append(
                f"{other} and {comparison.baseline} trained no budget in common: "
                "every statement about compute is extrapolated."
            )
        elif top.beyond:
            texts.append(
                "At the largest budget that both trained, the same loss lies beyond what "
                f"{_listed(top.beyond)} trained: extrapolated."
            )
        if top.unreached > 0:
            texts.append(
                f"In {format_percent(top.unreached)} of the pairs of refits {other} never reaches "
                "that loss."
            )
    return texts


def _frontiers(
    comparison: Comparison, fits: Mapping[str, FitResult], quantity: Quantity
) -> Figure | None:
    """`n_star`(C) of all sweeps, or `loss_star` of those whose losses compare with the first's,
    with the runs themselves, each by the law that heads its fit, over the budgets of all and ten
    times beyond the largest.
    """
    runs, lines, sides = list[Trace](), list[Trace](), comparison.sides
    sources, is_loss = [side.source for side in sides], quantity == "loss_star"
    lowest, highest = np.array([side.range["flops"] for side in sides]).T
    budgets = np.geomspace(lowest.min(), 10 * highest.max(), CURVE)
    for index, side in enumerate(sides):
        law = replace(load_law(fits[side.name]), combination=None)
        curve, comparable = answer_curve(law, quantity, budgets), comparison.losses.get(side.name)
        if curve is None or (is_loss and comparable and comparable.compare is False):
            continue
        lines += [
            Band(budgets, curve.lo, curve.hi, index, f"interval of {side.name}"),
            Line(budgets, curve.value, side.name, index),
        ]
        points = fitted_points(fits[side.name], "flops", "loss") if is_loss else None
        if points:  # a fit need not keep the C of its runs
            flops, loss = (column[thinned(len(column), POINTS_SHOWN)] for column in points)
            runs.append(Markers(flops, loss, f"runs of {side.name}", index, "open", 4.5))
    name, title, axis, caption = {
        "loss_star": ("compare-loss", "Compute-optimal loss L*(C)", loss_axis, LOSS_CAPTION),
        "n_star": ("compare-size", "Compute-optimal size N*(C)", n_axis, SIZE_CAPTION),
    }[quantity]
    if sum(isinstance(trace, Band) for trace in lines) < 2 and is_loss:
        return None
    axes = c_axis(*sources), axis(*sources)
    return Figure(name, title, caption, *axes, (*runs, *lines))


def _multiplier(comparison: Comparison) -> Figure | None:
    """C_A / C_B at equal loss over the compute of the first, with bands."""
    multipliers, first = _computable(comparison), comparison.baseline
    if not multipliers:
        return None
    order = [side.name for side in comparison.sides]
    traces: list[Trace] = []
    shared = sum(result.both_trained for _, result in multipliers)
    for other, result in multipliers:
        curve, colour = result.curve, order.index(other)
        columns = np.array((curve.flops, curve.gain, curve.lo, curve.hi), float)
        flops, gain, lo, hi = columns[:, np.isfinite(columns[1]) & (columns[1] > 0)]
        floor = gain.min() / 20 if len(gain) else 0.05
        traces += [
            Band(flops, np.maximum(lo, floor), hi, colour, f"interval of {other}"),
            Line(flops, gain, other, colour),
        ]
        if result.both_trained:
            label = f"largest {'budget of both' if shared == 1 else f'of both, {other}'}"
            traces.append(ReferenceLine(x=float(result.range[1]), label=label))
    reach = np.array([result.curve.flops for _, result in multipliers], float)
    ends = (float(reach.min()), float(reach.max()))
    traces.append(Line(ends, (1.0, 1.0), "the same compute", "muted", "dot", 1.2))
    caption = (
        f"How many times the compute {first} needs for the loss of the other sweep: above 1, "
        "the other is cheaper. To the right, extrapolated."
    )
    x_axis = c_axis(comparison.sides[0].source, of=f" of {first}")
    axes = x_axis, Axis("compute multiplier at equal loss", log=True)
    title = f"Compute multiplier over {first}"
    return Figure("compare-multiplier", title, caption, *axes, traces)


def _spending(comparison: Comparison) -> Table | None:
    """For budgets of the first sweep: its loss, what the other needs for it, the share and the
    multiplier.
    """
    first = comparison.baseline
    rows = [
        {
            "sweep": other,
            f"C of {first}": row.flops,
            "loss": row.loss,
            "C for this loss": row.needed,
            "times the compute": row.share,
            "multiplier": row.gain,
            "note": row.never
            or (f"beyond what {_listed(row.beyond)} trained" if row.beyond else ""),
        }
        for other, result in _computable(comparison)
        for row in result.rows
    ]
    caption = (
        f"Times the compute: C of the sweep / C of {first} at the same loss. Multiplier: the "
        f"inverse, the compute-equivalent gain. {100 * comparison.ci:g} % intervals from pairs of "
        "refits; … is an open end."
    )
    return record_table(
        "compute",
        "Compute for the same loss",
        rows,
        caption,
        flops=(f"C of {first}", "C for this loss"),
        rough=("times the compute", "multiplier"),
    )


def _estimates(comparison: Comparison) -> Table | None:
    """Exponents and parameters side by side, one row a quantity."""
    sides = in_one_table(*comparison.sides)
    rows = [
        {
            "parameter": name,
            **{
                side.name: entries.get(name)
                for side, entries in zip(comparison.sides, sides, strict=True)
            },
        }
        for name in dict.fromkeys(name for side in sides for name in side)
    ]
    headings = tuple(side.name for side in comparison.sides)
    caption = f"{100 * comparison.ci:g} % intervals from each sweep's own bootstrap."
    title = "Parameters side by side"
    return record_table("estimates", title, rows, caption, interval=headings)


def _tests(comparison: Comparison) -> Table | None:
    """The difference of each quantity from the first sweep's, with its interval, p and verdict."""
    difference = f"against {comparison.baseline}"
    rows = [
        {
            "sweep": test.other,
            "quantity": MEANING.get(test.quantity, test.quantity),
            difference: test.difference,
            "p": test.p,
            "p, Holm": test.p_holm,
            f"at {100 * comparison.level:g} %": "significant"
            if test.significant
            else "not significant",
        }
        for test in comparison.tests
    ]
    caption = (
        "Differences (of compute: the ratio, to be compared with 1) from independent refits of "
        "both sweeps; two-sided p, alone and after Holm's correction for all "
        f"{len(rows)} tests. Not significant does not mean equal: the runs do not decide."
    )
    return record_table(
        "tests", "Test of difference", rows, caption, rough=(difference,), short=("p", "p, Holm")
    )
