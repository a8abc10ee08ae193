"""The template of a study: rows -> analysis -> expected results, figures, tables and notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import pandas as pd

from scaling.render.figure import Figure
from scaling.render.section import Section
from scaling.render.table import Column, Kind, Table

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
            [expected, *(table for table in self.tables(analysis) if table is not None)],
            notes,
            summary=" ".join([lead, count, *notes[:1]]),
        )


def record_table(
    name: str,
    title: str,
    records: Sequence[Mapping[str, Any]],
    caption: str = "",
    **kinds: Sequence[str],
) -> Table:
    """A table of one record or more with the same keys, which are its columns.

    The first value of a column tells its kind: text, an interval, an integer, or else a number;
    `count=("N", "D")` names the columns of another kind, `interval=` those that may lack all.
    """
    by_column = {column: kind for kind, columns in kinds.items() for column in columns}
    columns = []
    for column in records[0]:
        first = next((r[column] for r in records if r[column] is not None), 0.0)
        is_interval = by_column.get(column) == "interval" or isinstance(first, tuple)
        is_integer = isinstance(first, (int, np.integer))
        kind = "text" if isinstance(first, str) else "integer" if is_integer else "number"
        if not is_interval:
            kind = by_column.get(column, kind)
        columns.append(Column(column, cast(Kind, kind), is_interval))
    rows = tuple(tuple(record.values()) for record in records)
    return Table(name, title, tuple(columns), rows, caption)
