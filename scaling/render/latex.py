"""A report's table for a paper: a LaTeX tabular with the rules of booktabs, to be put into a table of one's own."""

from __future__ import annotations

from scaling.render.escape import for_latex
from scaling.render.table import Column, Table

LINE = 78  # letters that a line of ten points in one column holds, about
WORD = 32  # letters of one word that a paragraph still holds
WIDE = 48  # letters beyond which a column of words is set as a paragraph, 0.4 of the line wide


def latex(table: Table) -> str:
    """The table as people read it, rounded; the CSV beside it holds all digits. The title and caption stand in comments.

    The preamble needs the package booktabs, and graphicx for a table that is wider than the line and is scaled to it: what is not ASCII is
    written as commands.
    """
    rows = table.shown()
    said = [f"% {for_latex(text)}" for text in (table.title, table.caption) if text]
    scaled = _letters(table, rows) > LINE
    lines = [
        *said,
        r"% needs \usepackage{booktabs,graphicx}" if scaled else r"% needs \usepackage{booktabs}",
        *([r"\resizebox{\linewidth}{!}{%"] if scaled else []),
        rf"\begin{{tabular}}{{@{{}}{' '.join(_alignment(table, rows))}@{{}}}}",
        r"\toprule",
        _row([column.name for column in table.columns]),
        r"\midrule",
        *(
            _row([_signed(cell, column) for cell, column in zip(row, table.columns, strict=True)])
            for row in rows
        ),
        r"\bottomrule",
        r"\end{tabular}" + ("}" if scaled else ""),
    ]
    return "\n".join(lines) + "\n"


def _letters(table: Table, rows: list[list[str]]) -> int:
    """About how wide the table is, in letters: its longest cells and two between columns."""
    columns = [
        [column.name, *(row[place] for row in rows)] for place, column in enumerate(table.columns)
    ]
    widths = [WIDE if _is_paragraph(cells[1:]) else max(map(len, cells)) for cells in columns]
    return sum(widths) + 2 * (len(widths) - 1)


def _alignment(table: Table, rows: list[list[str]]) -> list[str]:
    """Numbers to the right, words to the left, long ones as paragraphs, except where one word (a digest) would stick out of them."""
    return [
        _column(column, [row[place] for row in rows]) for place, column in enumerate(table.columns)
    ]


def _column(column: Column, cells: list[str]) -> str:
    if column.kind != "text":
        return "r"
    return r"p{0.4\linewidth}" if _is_paragraph(cells) else "l"


def _is_paragraph(cells: list[str]) -> bool:
    return (
        max(map(len, cells), default=0) > WIDE
        and max((len(word) for cell in cells for word in cell.split()), default=0) <= WORD
    )


def _signed(cell: str, column: Column) -> str:
    """A number with a minus where it was written with a hyphen."""
    return cell if column.kind == "text" else cell.replace("-", "−")


def _row(cells: list[str]) -> str:
    """One line; an empty group keeps a first cell that begins with [ or * from being read as an option of the line before."""
    return "{}" + " & ".join(map(for_latex, cells)) + r" \\"
