"""A Table for a terminal: cells wrap at spaces only; where not even that fits, each row becomes a
paragraph.
"""

from __future__ import annotations

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from scaling.render.escape import sanitize
from scaling.render.table import Table


def to_rich(table: Table, *, heading: bool = True, ruled: bool = True) -> RenderableType:
    """Title and rows as rich `Text` of plain text, which knows no markup and no escape codes."""
    drawn = WrappingTable(
        box=box.SIMPLE_HEAD if ruled and heading else None,
        show_header=heading,
        pad_edge=False,
        padding=(0, 2 if ruled else 1, 0, 0),
    )
    for index, column in enumerate(table.columns):
        drawn.add_column(
            Text(sanitize(column.name), style="" if ruled else "bold"),
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
    """A table that breaks its cells at spaces only and becomes one paragraph per row on a narrow
    terminal: no number is cut.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, or its rows as `column value` one after the other."""
        texts = [
            [_to_text(console, cell) for cell in (column.header, *column.cells)]
            for column in self.columns
        ]
        widest = [max(text.cell_len for text in column) for column in texts]
        longest_word = [
            max(cell_len(word) for text in column for word in (text.plain.split() or [""]))
            for column in texts
        ]
        minimum = [
            whole if column.no_wrap else word
            for column, whole, word in zip(self.columns, widest, longest_word, strict=True)
        ]
        gaps = self.padding[1] * (len(minimum) - 1) + self._extra_width
        spare = options.max_width - sum(minimum) - gaps
        if spare >= 0:
            for column, low, high in zip(self.columns, minimum, widest, strict=True):
                column.width = min(high, low + spare)
                spare -= column.width - low
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield Text(_to_text(console, self.title).plain, style="bold")
        for row in list(zip(*texts, strict=True))[1:]:
            cells = [
                _with_header(texts[index][0], value) if index else value
                for index, value in enumerate(row)
            ]
            yield Text("  ").join(cell for cell in cells if cell.plain)


def _to_text(console: Console, cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell))


def _with_header(header: Text, value: Text) -> Text:
    """A cell after the name of its column; an empty one is left out."""
    if value.plain and header.plain:
        return Text.assemble((f"{header.plain} ", "dim"), value)
    return value
