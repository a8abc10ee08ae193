"""Expected results: what a study should measure, what its runs gave, and whether the expectation
holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scaling.render.figure import Figure
from scaling.render.section import Section
from scaling.render.table import Column, Table

ANSWERS = {True: "yes", False: "no", None: "not settled"}


@dataclass(frozen=True)
class Claim:
    """One expected result. `quantity`, `expected` and `measured` are words with units; `holds` is
    None where the runs do not decide.
    """

    quantity: str
    expected: str
    measured: str
    holds: bool | None


def study_section(
    study: str,
    title: str,
    claims: Sequence[Claim],
    figures: Sequence[Figure | None],
    tables: Sequence[Table | None],
    notes: Sequence[str],
) -> Section:
    """The section of a study: the table of its claims comes first, and the summary counts those
    that hold.
    """
    rows = tuple(
        (claim.quantity, claim.expected, claim.measured, ANSWERS[claim.holds]) for claim in claims
    )
    expected = Table(
        f"expected-{study}",
        "Expected results",
        tuple(map(Column, ("quantity", "expected", "measured", "holds"))),
        rows,
        "What was published or predicted, and what these runs gave.",
    )
    n_holding = sum(claim.holds is True for claim in claims)
    lead = title if title.endswith("?") else f"{title}:"
    count = f"{n_holding} of {len(claims)} expected results hold."
    return Section(
        study,
        title,
        [figure for figure in figures if figure is not None],
        [expected, *(table for table in tables if table is not None)],
        notes,
        summary=" ".join([lead, count, *notes[:1]]),
    )
