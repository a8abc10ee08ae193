"""Several sweeps on one page: their frontiers over each other, what one needs for the loss of the
other, and what tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scaling.formatting import format_flops
from scaling.render.section import Section
from scaling.render.table import Column, Document, estimate, format_cell
from scaling.report.parts.comparison import (
    Found,
    computable,
    estimates,
    list_names,
    losses,
    multiplier,
    sizes,
    spending,
    sweeps,
    tests,
)
from scaling.report.sections import Report
from scaling.report.summary import Tile

RATIO, ROUGH = Column("", "rough", True), Column("", "rough")


def compose(
    comparison: Found, documents: Mapping[str, Document], notes: Sequence[str], command: str
) -> Report:
    """The page of a comparison (`scaling.predict.compare.compare`) of these fit documents; `notes`
    says how they were fitted.
    """
    others = [side["name"] for side in comparison["sides"][1:]]
    name = list_names([comparison["baseline"], *others])
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
    for other, result in computable(comparison):
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
        else " That is not significantly different from the same compute (p = "
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
            f"{text} do not differ significantly in {list_names(same)}: the data are "
            "consistent with "
            "equality and do not prove it."
        )
    return f"{text}; no significant difference in {list_names(same)}." if same else f"{text}."


def _headline(comparison: Found) -> tuple[str, list[Tile]]:
    """The numbers of the headline: the share of each other sweep, or the exponents where losses do
    not compare.
    """
    multipliers = computable(comparison)
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
    for other, result in computable(comparison):
        top = result["at_top"]
        if not result["both_trained"]:
            texts.append(
                f"{other} and {comparison['baseline']} trained no budget in common: "
                "every statement about compute is extrapolated."
            )
        elif top["beyond"]:
            texts.append(
                "At the largest budget that both trained, the same loss lies beyond what "
                f"{list_names(top['beyond'])} trained: extrapolated."
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
