"""A Table for a terminal: cells wrap at spaces only; where not even that fits, each row becomes a
paragraph.
"""

from __future__ import annotations

from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from scaling.render.escape import sanitize
from scaling.render.table import PAIR, Table


def to_rich(table: Table, *, ruled: bool = True) -> RenderableType:
    """Title and rows as rich `Text` of plain text, which knows no markup and no escape codes; pairs
    need no heading.
    """
    heading = table.columns != PAIR
    drawn = WrappingTable(
        box=box.SIMPLE_HEAD if ruled and heading else None,
        show_header=heading,
        pad_edge=False,
        padding=(0, 2 if ruled else 1, 0, 0),
    )
    for index, column in enumerate(table.columns):
        drawn.add_column(
            Text(sanitize(column.name), style="" if ruled else "bold"),
            style="" if heading or index else "bold",
            justify="left" if column.is_text else "right",
            overflow="fold",
            no_wrap=not column.is_text or (not ruled and index == 0),
        )
    for row in table.formatted():
        cells = zip(row, table.columns, strict=True)
        drawn.add_row(
            *(Text(sanitize(text), column.styles.get(text, "")) for text, column in cells)
        )
    title = [Text(sanitize(table.title), style="bold")] if table.title else []
    return Group(*title, drawn, *([] if heading else [Text()]))


class WrappingTable(RichTable):
    """A table of `Text` that breaks its cells at spaces only and becomes one paragraph per row on a
    narrow terminal: no number is cut.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, or its rows as `column value` one after the other."""
        texts: list[list[Any]] = [[column.header, *column.cells] for column in self.columns]
        widest = [max(text.cell_len for text in column) for column in texts]
        minimum = [
            whole
            if column.no_wrap
            else max(cell_len(word) for text in cells for word in ["", *text.plain.split()])
            for column, cells, whole in zip(self.columns, texts, widest, strict=True)
        ]
        gaps = self.padding[1] * (len(minimum) - 1) + self._extra_width
        spare = options.max_width - sum(minimum) - gaps
        if spare >= 0:
            for column, low, high in zip(self.columns, minimum, widest, strict=True):
                column.width = min(high, low + spare)
                spare -= column.width - low
            yield from super().__rich_console__(console, options)
            return
        names, *rows = zip(*texts, strict=True)
        for first, *others in rows:
            cells = [
                Text.assemble((f"{name.plain} " if name.plain else "", "dim"), value)
                for name, value in zip(names[1:], others, strict=True)
                if value.plain
            ]
            yield Text("  ").join([first, *cells])
