"""One table type for terminal, CSV, HTML and LaTeX: raw values with formats, so that each output
rounds or keeps its digits.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Union

from scaling.formatting import flatten, format_bytes, format_count, format_flops, format_seconds
from scaling.render.escape import for_csv, sanitize

if TYPE_CHECKING:
    from rich.console import RenderableType

Kind = Literal[
    "text", "number", "count", "flops", "integer", "percent", "short", "rough", "bytes", "seconds"
]
Estimate = tuple[Union[float, None], Union[float, None], Union[float, None]]
Cell = Union[str, float, int, None, Estimate]
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column; with `interval` its cells are (value, lo, hi). `styles` gives a terminal the rich
    style of a cell's text.
    """

    name: str
    kind: Kind = "text"
    interval: bool = False
    styles: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_text(self) -> bool:
        """Whether cells are words, which stand to the left."""
        return self.kind == "text"


@dataclass(frozen=True)
class Table:
    """People see rounded numbers and at most `max_rows` rows; CSV has all rows and digits."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    max_rows: int | None = None

    def formatted(self) -> list[list[str]]:
        """The rows as people read them, at most `max_rows`."""
        return [
            [format_cell(cell, column) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows[: self.max_rows]
        ]

    def to_csv(self) -> str:
        """All rows with all digits; an interval takes three columns."""
        header = [
            name
            for column in self.columns
            for name in _spread([column.name, f"{column.name} lo", f"{column.name} hi"], column)
        ]
        rows = (
            [
                item
                for cell, column in zip(row, self.columns, strict=True)
                for item in _spread(cell, column)
            ]
            for row in self.rows
        )
        return _csv_text([header, *rows])

    def to_rich(self, *, heading: bool = True, ruled: bool = True) -> RenderableType:
        """The table for a terminal, no number cut; `ruled` draws lines around the heading."""
        from scaling.render.rich_table import to_rich

        return to_rich(self, heading=heading, ruled=ruled)

    def to_html(self, *, inline_style: bool = False) -> str:
        """A `<table>` with every text escaped; `inline_style` is for pages without a style sheet of
        ours.
        """

        def cell(tag: str, text: str, column: Column) -> str:
            if inline_style:
                style = f'style="text-align: {"left" if column.is_text else "right"}"'
            else:
                style = f'class="{"word" if column.is_text else "num"}"'
            scope = {"th": ' scope="row"', "thead": ' scope="col"', "td": ""}[tag]
            name = "td" if tag == "td" else "th"
            return f"<{name}{scope} {style}>{escape(sanitize(text))}</{name}>"

        head = "".join(cell("thead", column.name, column) for column in self.columns)
        body = "\n".join(
            "<tr>"
            + "".join(
                cell("td" if index else "th", text, column)
                for index, (text, column) in enumerate(zip(row, self.columns, strict=True))
            )
            + "</tr>"
            for row in self.formatted()
        )
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"

    def to_latex(self) -> str:
        """A LaTeX tabular with booktabs rules, for a table environment of your own."""
        from scaling.render.latex import to_latex

        return to_latex(self)


def records_to_csv(records: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Records of a JSON document as CSV: nested fields become columns named `a.b`, lists one cell
    of JSON.

    `columns` is the header where there is no record.
    """
    flat = [{name: _json_cell(value) for name, value in flatten(row)} for row in records]
    names = list(dict.fromkeys(name for row in flat for name in row)) or list(columns)
    return _csv_text([names, *([row.get(name) for name in names] for row in flat)])


def _csv_text(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([for_csv(cell) for cell in row] for row in rows)
    return text.getvalue()


def _json_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, (list, tuple)) else value


def _spread(cell: Any, column: Column) -> list[Any]:
    if not column.interval:
        return [cell[0] if isinstance(cell, list) else cell]
    return list(cell) if cell is not None else [None, None, None]


def pairs(name: str, title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """A table of two columns, `what` and `value`."""
    return Table(name, title, (Column("what"), Column("value")), tuple(rows))


def number(value: float, digits: int = 4) -> str:
    """A fixed number of significant digits, zeros kept: 0.5140, 2143, 1.25e9."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    if -5 < exponent < 6:
        return f"{value:.{max(0, digits - 1 - exponent)}f}"
    return f"{value:.{digits - 1}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def format_cell(cell: Cell, column: Column) -> str:
    """One cell as people read it; a missing value is a dash."""
    if isinstance(cell, tuple):
        value, *ends = cell
        is_bare = ends == [None, None]
        middle = "–" if value is None else _format(value, column.kind, 4 if is_bare else 3)
        if is_bare:
            return middle
        low, high = ("…" if end is None else _format(end, column.kind, 3) for end in ends)
        return f"{middle} [{low}, {high}]"
    if cell is None:
        return "–"
    return sanitize(cell, 400) if isinstance(cell, str) else _format(float(cell), column.kind, 4)


def _format(value: float, kind: Kind, digits: int) -> str:
    if kind == "count":
        return format_count(value)
    if kind == "flops":
        return format_flops(value)
    if kind == "bytes":
        return format_bytes(value)
    if kind == "seconds":
        return format_seconds(value)
    if kind == "integer":
        return f"{value:.0f}"
    if kind == "percent":
        return f"{100 * value:+.2g} %"
    return f"{value:.2g}" if kind == "short" else number(value, 3 if kind == "rough" else digits)


def estimate(entry: Any) -> Estimate:
    """(value, lo, hi) of an estimate or an interval of a document; None where there is none."""
    return (None, None, None) if entry is None else (entry.value, entry.lo, entry.hi)


def tabulate(
    name: str,
    title: str,
    records: Iterable[Any] | None,
    columns: Mapping[str, Column],
    caption: str = "",
    max_rows: int | None = None,
) -> Table | None:
    """A table with one row for each record and one column for each path ("best.loss") to a field
    of it. None without records.
    """
    rows = tuple(
        tuple(_field(record, path, column) for path, column in columns.items())
        for record in records or ()
    )
    shown = tuple(columns.values())
    return Table(name, title, shown, rows, caption, max_rows) if rows else None


def _field(record: Any, path: str, column: Column) -> Any:
    for name in path.split("."):
        if record is not None:
            record = record.get(name) if isinstance(record, Mapping) else getattr(record, name)
    if column.interval:
        if isinstance(record, Mapping):
            return record.get("value"), record.get("lo"), record.get("hi")
        return record if isinstance(record, tuple) else estimate(record)
    return record
