"""Tables, sentences and warnings for a terminal. Cells wrap at spaces only; where not even that
fits, each row becomes a paragraph: no number is cut.

Foreign text enters only as rich `Text` of plain text, which knows no markup and no escape codes.
"""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from scaling.render.escape import sanitize
from scaling.render.table import PAIR, Table
from scaling.warning import ResultWarning

LONGEST = 20_000  # letters of a sentence


def page(*parts: object) -> RenderableType:
    """Parts below each other: tables with their captions and what they leave out, sentences,
    warnings and what rich knows; None is left out.
    """
    shown: list[Any] = []
    for part in parts:
        if isinstance(part, ResultWarning):
            shown.append(Text.assemble(("warning: ", "bold yellow"), sanitize(part.message)))
        elif isinstance(part, Table):
            more = len(part.rows) - (part.max_rows or len(part.rows))
            left_out = f"... and {more:,} more (--json lists all)" if more > 0 else ""
            below = [Text(sanitize(text)) for text in (left_out, part.caption) if text]
            shown += [*([Text()] if shown and part.title else []), to_rich(part), *below]
        elif part is not None:
            shown.append(Text(sanitize(part, LONGEST)) if isinstance(part, str) else part)
    return Group(*shown)


def to_rich(table: Table) -> RenderableType:
    """Title and rows; pairs need no heading."""
    heading = table.columns != PAIR
    drawn = WrappingTable(box=None, show_header=heading, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(table.columns):
        drawn.add_column(
            Text(sanitize(column.name), style="bold"),
            style="" if heading or index else "bold",
            justify="left" if column.is_text else "right",
            overflow="fold",
            no_wrap=not column.is_text or (heading and index == 0),
        )
    for row in table.formatted():
        drawn.add_row(*(Text(sanitize(text)) for text in row))
    title = [Text(sanitize(table.title), style="bold")] if table.title else []
    return Group(*title, drawn)


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
