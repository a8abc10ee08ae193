"""A Table as a LaTeX tabular with the rules of booktabs; every text is escaped to ASCII."""

from __future__ import annotations

import re

from scaling.render.escape import for_latex
from scaling.render.table import Table

GREEK = ("alpha", "beta", "gamma", "delta", "kappa")
MATH = {
    **{name: rf"$\{name}$" for name in GREEK},
    **{f"{name}_{at}": rf"$\{name}_{at}$" for name in GREEK for at in "ND"},
    **{name: f"${name}$" for name in "ABEGNDCab"},
    **{f"{name}_{at}": f"${name}_{at}$" for name in "NDR" for at in "cND"},
}  # of parameters, where a cell is nothing else
MAX_WORD = 32  # letters of one word that a paragraph column can hold
PARAGRAPH_ABOVE = 48  # letters from which a text column becomes a paragraph of 0.4 line widths


def to_latex(table: Table) -> str:
    """The rounded table; title and caption stand above it as comments. Needs the package booktabs.

    Numbers are aligned to the right, text to the left, long text in paragraphs. `{}` at the start
    of a row keeps a first cell that begins with [ or * from being read as an option of the row
    before.
    """
    rows = table.formatted()
    alignment = []
    for index, column in enumerate(table.columns):
        cells = [row[index] for row in rows]
        is_long = max(map(len, cells), default=0) > PARAGRAPH_ABOVE
        is_broken = all(len(word) <= MAX_WORD for cell in cells for word in cell.split())
        text = r"p{0.4\linewidth}" if is_long and is_broken else "l"
        alignment.append(text if column.is_text else "r")
    body = [
        [
            MATH.get(cell) or for_latex(cell if column.is_text else cell.replace("-", "−"))
            for cell, column in zip(row, table.columns, strict=True)
        ]
        for row in rows
    ]
    lines = [
        *(f"% {for_latex(text)}" for text in (table.title, table.caption) if text),
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{@{{}}{' '.join(alignment)}@{{}}}}",
        r"\toprule",
        _row([_heading(column.name) for column in table.columns]),
        r"\midrule",
        *map(_row, body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return "{}" + " & ".join(cells) + r" \\"


def _heading(name: str) -> str:
    """A heading with N*, C^a and ~ as mathematics."""
    text = (MATH.get(name) or for_latex(name)).replace(r"\textasciitilde{}", r"$\sim$")
    text = re.sub(r"\b([NDLC])\*", r"$\1^*$", text)
    return re.sub(r"\b([NDC])\\textasciicircum\{\}([ab])\b", r"$\1^\2$", text)
