"""The template of a study: rows -> analysis -> expected results, figures, tables and notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import pandas as pd

from scaling.render.figure import Figure
from scaling.render.section import Section
from scaling.render.table import Table
from scaling.render.table import record_table as record_table  # studies take it from here

T = TypeVar("T")
ANSWERS = {True: "yes", False: "no", None: "not settled"}


class Interval(NamedTuple):
    """A value with its interval; `f"{interval:.2f}"` is 0.24 [0.21, 0.26]."""

    value: float
    lo: float
    hi: float

    def __format__(self, spec: str) -> str:
        value, lo, hi = (format(part, spec) for part in self)
        return f"{value} [{lo}, {hi}]"


@dataclass(frozen=True)
class Claim:
    """One expected result. `quantity`, `expected` and `measured` are words with units; `holds` is
    None where the runs do not decide.
    """

    quantity: str
    expected: str
    measured: str
    holds: bool | None


@dataclass(frozen=True)
class Study(Generic[T]):
    """A study. `analyze` is None for rows that show nothing of it; the other functions say and draw
    what it measured. `name` is the section's id and the file name of its first table.
    """

    name: str
    title: str
    analyze: Callable[[pd.DataFrame], T | None]
    claims: Callable[[T], Sequence[Claim]]
    figures: Callable[[T], Iterable[Figure | None]]
    tables: Callable[[T], Iterable[Table | None]]
    notes: Callable[[T], Sequence[str]]

    def section(self, rows: pd.DataFrame) -> Section | None:
        """The section of a report: the table of its claims comes first, and the summary counts
        those that hold.
        """
        analysis = self.analyze(rows)
        if analysis is None:
            return None
        claims, notes = self.claims(analysis), self.notes(analysis)
        records = [
            {
                "quantity": claim.quantity,
                "expected": claim.expected,
                "measured": claim.measured,
                "holds": ANSWERS[claim.holds],
            }
            for claim in claims
        ]
        caption = "What was published or predicted, and what these runs gave."
        expected = record_table(f"expected-{self.name}", "Expected results", records, caption)
        lead = self.title if self.title.endswith("?") else f"{self.title}:"
        n_holding = sum(bool(claim.holds) for claim in claims)
        count = f"{n_holding} of {len(claims)} expected results hold."
        return Section(
            self.name,
            self.title,
            [figure for figure in self.figures(analysis) if figure is not None],
            [table for table in (expected, *self.tables(analysis)) if table is not None],
            notes,
            summary=" ".join([lead, count, *notes[:1]]),
        )
