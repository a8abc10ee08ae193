"""Several sweeps on one page: their frontiers over each other, what one needs for the loss of the
other, and whether they differ significantly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scaling.fit.document import FitStatus
from scaling.fit.result import FitResult
from scaling.formatting import format_flops
from scaling.predict.comparison import Comparison, ComputeMultiplier, DifferenceTest
from scaling.render.section import section
from scaling.render.table import Column, estimate, format_cell
from scaling.report.parts import comparison as parts
from scaling.report.parts.comparison import computable, list_names
from scaling.report.sections import Report


def _ratio(entry: Any) -> str:
    return format_cell(estimate(entry), Column("", "rough", True))


def _p_value(p: float) -> str:
    return format_cell(p, Column("", "rough"))


def compose(
    comparison: Comparison, fits: Mapping[str, FitResult], notes: Sequence[str], command: str
) -> Report:
    """The page of a comparison (`scaling.predict.compare.compare`) of these fits; `notes` says how
    they were fitted.
    """
    first = comparison.baseline
    losses, size = parts.losses(comparison, fits), parts.sizes(comparison)
    sections = (
        section(
            "compute",
            "Compute for the same loss",
            [parts.multiplier(comparison)],
            [parts.spending(comparison)],
        ),
        section(
            "exponents", "Exponents", [], [parts.estimates(comparison), parts.tests(comparison)]
        ),
        section("size", "Compute-optimal size", [size] if losses else []),
        section(
            "provenance",
            "Data and provenance",
            tables=[parts.sweeps(comparison)],
            commands=[command],
        ),
    )
    incomparable, caveats = [], []
    for other, item in comparison.losses.items():
        if item.compare is False:
            text = f"{other} and {first}: {item.why} Only exponents are compared."
            incomparable.append(text)
        else:
            caveats.append(item.why)
    caveats += [*_reach(comparison), *notes, *comparison.notes]
    caveats += [
        f"The fit of {side.name} has the status {side.status}: not every parameter is settled by "
        "its runs."
        for side in comparison.sides
        if side.status is not FitStatus.OK
    ]
    return Report(
        name=list_names([side.name for side in comparison.sides]),
        question="Do these sweeps follow the same law, and how much compute does one need for the "
        "loss of the other?",
        sections=tuple(part for part in sections if not part.is_empty),
        lead=(losses or size,),
        sentences=tuple(sentences(comparison)),
        notices=tuple(incomparable),
        caveats=tuple(dict.fromkeys(caveats)),
    )


def sentences(comparison: Comparison) -> list[str]:
    """What the comparison comes to, compute first."""
    first, texts = comparison.baseline, []
    tests = {(test.other, test.quantity): test for test in comparison.tests}
    for other, result in computable(comparison):
        texts += _compute_sentences(first, other, result, tests[other, "compute"])
    for side in comparison.sides[1:]:
        own = [test for test in comparison.tests if test.other == side.name]
        exponents = [test for test in own if test.quantity != "compute"]
        same = [test.quantity for test in exponents if not test.significant]
        different = [
            f"{test.quantity} (by {_ratio(test.difference)}, p = {_p_value(test.p_holm)})"
            for test in exponents
            if test.significant
        ]
        if not different:
            texts.append(
                f"{side.name} and {first} do not differ significantly in {list_names(same)}: the "
                "data are consistent with equality and do not prove it."
            )
            continue
        rest = f"; no significant difference in {list_names(same)}" if same else ""
        texts.append(f"{side.name} differs from {first} in {', '.join(different)}{rest}.")
    return texts


def _compute_sentences(
    first: str, other: str, result: ComputeMultiplier, test: DifferenceTest
) -> list[str]:
    """The compute of the other sweep at the largest budget, and at the smallest where its share is
    quite another one there.
    """
    top = result.at_top
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
    level = (
        ""
        if test.significant
        else " That is not significantly different from the same compute (p = "
        f"{_p_value(test.p_holm)}, Holm's for all that is tested)."
    )
    texts = [
        f"{other} needs {_ratio(top.share)} times the compute of {first} for the same loss "
        f"({where}).{level}"
    ]
    low = next(row for row in result.rows if row.flops >= result.range[0] * 0.999)
    share = low.share.value
    if share is not None and low.flops < top.flops:
        ends = share, top.share.value
        if max(ends) >= 1.5 * min(ends):
            texts.append(
                f"At {format_flops(low.flops)} FLOPs of {first} it is {_ratio(low.share)} times: "
                "the gain depends on scale."
            )
    return texts


def _reach(comparison: Comparison) -> list[str]:
    texts = []
    for other, result in computable(comparison):
        top = result.at_top
        if not result.both_trained:
            texts.append(
                f"{other} and {comparison.baseline} trained no budget in common: "
                "every statement about compute is extrapolated."
            )
        elif top.beyond:
            texts.append(
                "At the largest budget that both trained, the same loss lies beyond what "
                f"{list_names(top.beyond)} trained: extrapolated."
            )
        if top.unreached > 0:
            texts.append(
                f"In {100 * top.unreached:.2g} % of the pairs of refits {other} never reaches "
                "that loss."
            )
    return texts
