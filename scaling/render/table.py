"""One table type for terminal, CSV, HTML and LaTeX: raw values with formats, so that each output
rounds or keeps its digits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from scaling.formatting import flatten, format_bytes, format_count, format_flops, format_seconds
from scaling.render.escape import csv_text, environment, sanitize

if TYPE_CHECKING:
    pass

Kind = Literal[
    "text",
    "number",
    "count",
    "flops",
    "integer",
    "percent",
    "short",
    "rough",
    "bytes",
    "seconds",
    "loss",
]
Estimate = tuple[Union[float, None], Union[float, None], Union[float, None]]
Cell = Union[str, float, int, None, Estimate]
Document = Mapping[str, Any]
KINDS: dict[str, Kind] = {  # of columns by heading
    **dict.fromkeys(("N", "D", "N*", "D*", "parameters N*", "tokens D*"), "count"),
    **dict.fromkeys(("C", "FLOPs"), "flops"),
    **dict.fromkeys(("L*", "loss L*", "tokens per parameter"), "rough"),
    **dict.fromkeys(("error", "excess", "bias"), "percent"),
}


@dataclass(frozen=True)
class Column:
    """A column; with `interval` its cells are (value, lo, hi)."""

    name: str
    kind: Kind = "text"
    interval: bool = False

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

        def spread(cells: Iterable[Any]) -> list[Any]:
            pairs = zip(cells, self.columns, strict=True)
            return [
                item
                for cell, column in pairs
                for item in ((cell or (None, None, None)) if column.interval else [cell])
            ]

        names = [
            (c.name, f"{c.name} lo", f"{c.name} hi") if c.interval else c.name for c in self.columns
        ]
        return csv_text([spread(names), *map(spread, self.rows)])

    def to_html(self, *, inline_style: bool = False) -> str:
        """A `<table>` with every text escaped; `inline_style` is for pages without a style sheet of
        ours.
        """
        template = environment(Path(__file__).parent).get_template("table.html.j2")
        return str(template.render(table=self, inline_style=inline_style)).rstrip()

    def to_latex(self) -> str:
        """A LaTeX tabular with booktabs rules, for a table environment of your own."""
        from scaling.render.latex import to_latex

        return to_latex(self)


def records_to_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """Records of a JSON document as CSV: nested fields become columns named `a.b`, lists one cell
    of JSON.
    """
    flat = [
        {
            name: json.dumps(value) if isinstance(value, (bool, list, tuple)) else value
            for name, value in flatten(row)
        }
        for row in records
    ]
    names = list(dict.fromkeys(name for row in flat for name in row))
    return csv_text([names, *([row.get(name) for name in names] for row in flat)])


PAIR = (Column("what"), Column("value"))


def pairs(name: str, title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """A table of two columns, `what` and `value`."""
    return Table(name, title, PAIR, tuple(rows))


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
        if ends == [None, None]:
            return format_cell(value, column)
        middle = "–" if value is None else _format(value, column.kind, 3)
        low, high = ("…" if end is None else _format(end, column.kind, 3) for end in ends)
        return f"{middle} [{low}, {high}]"
    if cell is None:
        return "–"
    return sanitize(cell, 400) if isinstance(cell, str) else _format(float(cell), column.kind, 4)


def _format(value: float, kind: Kind, digits: int) -> str:
    if kind in FORMATS:
        return FORMATS[kind](value)
    return number(value, 3 if kind == "rough" else digits)


FORMATS: dict[Kind, Callable[[float], str]] = {
    "count": format_count,
    "flops": format_flops,
    "bytes": format_bytes,
    "seconds": format_seconds,
    "loss": "{:.4f}".format,
    "integer": "{:.0f}".format,
    "percent": lambda value: f"{100 * value:+.2g} %",
    "short": "{:.2g}".format,
}


def estimate(entry: Any) -> Estimate:
    """(value, lo, hi) of an estimate, an interval or a record of a document; None where there is
    none.
    """
    if isinstance(entry, tuple):
        return entry  # type: ignore[return-value]
    read = entry.get if isinstance(entry, Mapping) else partial(getattr, entry)
    return tuple(read(name, None) for name in ("value", "lo", "hi"))  # type: ignore[return-value]


def format_estimate(entry: Any, kind: Kind = "rough") -> str:
    """An estimate as text: 0.514 [0.500, 0.530], or the value alone without an interval."""
    return format_cell(estimate(entry), Column("", kind, True))


def record_table(
    name: str,
    title: str,
    records: Iterable[Any] | None,
    caption: str = "",
    max_rows: int | None = None,
    columns: Mapping[str, str] | None = None,
    **kinds: Sequence[str],
) -> Table | None:
    """A table with one row for each record. None without records.

    Its columns are the keys that the records share, or `columns`: the heading of each path
    ("best.loss") to a field of a record. Some headings have a kind of their own (KINDS); of others
    the first value tells it: text, an estimate with its interval, an integer, or else a number.
    `rough=("R2", "p")` names the columns of another kind, `interval=` those that may lack all
    values.
    """
    rows = list(records or ())
    if not rows:
        return None
    named: dict[str, Any] = {heading: kind for kind, names in kinds.items() for heading in names}
    shown, cells = [], []
    for path, heading in (columns or {key: key for key in rows[0]}).items():
        values = [_field(row, path) if columns else row[path] for row in rows]
        first = next((value for value in values if value is not None), 0.0)
        kind: Kind = "text" if isinstance(first, str) else "number"
        if isinstance(first, (int, np.integer)):
            kind = "integer"
        is_interval = hasattr(first, "lo") or isinstance(first, tuple)
        if named.get(heading) == "interval":
            is_interval = True
        else:
            kind = named.get(heading, KINDS.get(heading, kind))
        shown.append(Column(heading, kind, is_interval))
        cells.append([estimate(value) for value in values] if is_interval else values)
    return Table(name, title, tuple(shown), tuple(zip(*cells, strict=True)), caption, max_rows)


def _field(record: Any, path: str) -> Any:
    for name in path.split("."):
        if record is not None:
            record = record.get(name) if isinstance(record, Mapping) else getattr(record, name)
    return record
