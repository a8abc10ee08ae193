"""Moved from tables.py."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from scaling.formatting import format_count, format_flops
from scaling.render.escape import for_csv, sanitize

Kind = Literal["text", "number", "count", "flops", "integer", "percent", "short", "rough"]


Estimate = tuple[Union[float, None], Union[float, None], Union[float, None]]


Cell = Union[str, float, int, None, Estimate]


Document = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column; with `interval` its cells are (value, lo, hi)."""

    name: str
    kind: Kind = "text"
    interval: bool = False


@dataclass(frozen=True)
class Table:
    """Raw values with formats: people see rounded numbers, and of a long table its first `most` rows; the CSV holds all of them."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    most: int | None = None

    def shown(self) -> list[list[str]]:
        """The rows as people read them."""
        return [
            [shown(cell, column) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows[: self.most]
        ]

    def csv(self) -> str:
        """The rows with all digits; an interval takes three columns."""
        header = [
            name
            for column in self.columns
            for name in _spread([column.name, f"{column.name} lo", f"{column.name} hi"], column)
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([for_csv(name) for name in header])  # a column may be named after a folder
        for row in self.rows:
            writer.writerow(
                [
                    for_csv(item)
                    for cell, column in zip(row, self.columns, strict=True)
                    for item in _spread(cell, column)
                ]
            )
        return text.getvalue()


def _spread(cell: Any, column: Column) -> list[Any]:
    if not column.interval:
        return [cell[0] if isinstance(cell, list) else cell]
    return list(cell) if cell is not None else [None, None, None]


def pairs(name: str, title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """A table of what and how."""
    return Table(name, title, (Column("what"), Column("value")), tuple(rows))


def number(value: float, digits: int = 4) -> str:
    """A fixed number of significant digits, zeros kept: 0.5140, 2143, 1.25e9."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    if -5 < exponent < 6:
        return f"{value:.{max(0, digits - 1 - exponent)}f}"
    return f"{value:.{digits - 1}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def shown(cell: Cell, column: Column) -> str:
    """One cell as people read it; what is missing is a dash."""
    if isinstance(cell, tuple):
        return _estimate(cell, column.kind)
    if cell is None:
        return "–"
    return sanitize(cell, 400) if isinstance(cell, str) else _format(float(cell), column.kind, 4)


def _estimate(cell: Estimate, kind: Kind) -> str:
    value, low, high = cell
    bare = low is None and high is None
    middle = "–" if value is None else _format(value, kind, 4 if bare else 3)
    if bare:
        return middle
    ends = ["…" if end is None else _format(end, kind, 3) for end in (low, high)]
    return f"{middle} [{ends[0]}, {ends[1]}]"


def _format(value: float, kind: Kind, digits: int) -> str:
    if kind == "count":
        return format_count(value)
    if kind == "flops":
        return format_flops(value)
    if kind == "integer":
        return f"{value:.0f}"
    if kind == "percent":
        return f"{100 * value:+.2g} %"
    return f"{value:.2g}" if kind == "short" else number(value, 3 if kind == "rough" else digits)


def estimate(entry: Mapping[str, Any] | None) -> Estimate:
    """(value, lo, hi) of a document's estimate; None where there is none."""
    held = entry or {}
    return held.get("value"), held.get("lo"), held.get("hi")
