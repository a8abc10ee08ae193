"""Findings as a table: what `make lab` collects from the reports."""

from __future__ import annotations

from collections.abc import Sequence

from scaling.lab.finding import Finding
from scaling.report.tables import Column, Table

WORDS = {True: "yes", False: "no", None: "not settled"}


def table(study: str, found: Sequence[Finding]) -> Table:
    """`findings-STUDY`: figure, target, reached, holds."""
    columns = (Column("figure"), Column("target"), Column("reached"), Column("holds"))
    rows = tuple((one.figure, one.target, one.reached, WORDS[one.holds]) for one in found)
    return Table(f"findings-{study}", "Figures reached", columns, rows, "What was asked for or published, and what these runs reached.")
