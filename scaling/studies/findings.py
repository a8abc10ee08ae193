"""A figure that a study promises: what it is, what was published or asked for, and what these runs reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scaling.render.table import Column, Table


@dataclass(frozen=True)
class Claim:
    """One line of the table that `make lab` prints; `holds` is None where the runs do not settle it.

    `figure` names what is measured and `target` what it should be, both in words with units; `reached` is the number.
    """

    figure: str
    target: str
    reached: str
    holds: bool | None


WORDS = {True: "yes", False: "no", None: "not settled"}


def table(study: str, found: Sequence[Claim]) -> Table:
    """`findings-STUDY`: figure, target, reached, holds."""
    columns = (Column("figure"), Column("target"), Column("reached"), Column("holds"))
    rows = tuple((one.figure, one.target, one.reached, WORDS[one.holds]) for one in found)
    return Table(
        f"findings-{study}",
        "Figures reached",
        columns,
        rows,
        "What was asked for or published, and what these runs reached.",
    )
