"""A report's table for a paper: a LaTeX tabular with the rules of booktabs, to be put into a table of one's own."""

from __future__ import annotations

from scaling.report.escape import for_latex
from scaling.report.tables import Column, Table

WIDE = 48  # letters beyond which a column of words is set as a paragraph, 0.4 of the line wide


def latex(table: Table) -> str:
    """The table as people read it, rounded; the CSV beside it holds all digits. The title and caption stand in comments.

    The preamble needs the package booktabs and nothing else: what is not ASCII is written as commands.
    """
    rows = table.shown()
    said = [f"% {for_latex(text)}" for text in (table.title, table.caption) if text]
    lines = [
        *said,
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{@{{}}{' '.join(_alignment(table, rows))}@{{}}}}",
        r"\toprule",
        _row([column.name for column in table.columns]),
        r"\midrule",
        *(_row([_signed(cell, column) for cell, column in zip(row, table.columns, strict=True)]) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _alignment(table: Table, rows: list[list[str]]) -> list[str]:
    """Numbers to the right, words to the left, long words as paragraphs."""
    longest = [max((len(row[place]) for row in rows), default=0) for place in range(len(table.columns))]
    return [_column(column, width) for column, width in zip(table.columns, longest, strict=True)]


def _column(column: Column, width: int) -> str:
    if column.kind != "text":
        return "r"
    return r"p{0.4\linewidth}" if width > WIDE else "l"


def _signed(cell: str, column: Column) -> str:
    """A number with a minus where it was written with a hyphen."""
    return cell if column.kind == "text" else cell.replace("-", "−")


def _row(cells: list[str]) -> str:
    """One line; an empty group keeps a first cell that begins with [ or * from being read as an option of the line before."""
    return "{}" + " & ".join(map(for_latex, cells)) + r" \\"
