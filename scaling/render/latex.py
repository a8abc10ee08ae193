"""A Table as a LaTeX tabular with the rules of booktabs; every text is escaped to ASCII."""

from __future__ import annotations

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

    def row(cells: list[str]) -> str:
        return "{}" + " & ".join(MATH.get(cell) or for_latex(cell) for cell in cells) + r" \\"

    body = [
        [
            text if column.is_text else text.replace("-", "−")
            for text, column in zip(cells, table.columns, strict=True)
        ]
        for cells in table.formatted()
    ]
    alignment = []
    for column, *cells in zip(table.columns, *body, strict=True):
        longest = max(map(len, cells), default=0)
        longest_word = max((len(word) for cell in cells for word in cell.split()), default=0)
        is_paragraph = longest > PARAGRAPH_ABOVE and longest_word <= MAX_WORD  # a digest is none
        text = r"p{0.4\linewidth}" if is_paragraph else "l"
        alignment.append(text if column.is_text else "r")
    lines = [
        *(f"% {for_latex(text)}" for text in (table.title, table.caption) if text),
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{@{{}}{' '.join(alignment)}@{{}}}}",
        r"\toprule",
        row([column.name for column in table.columns]),
        r"\midrule",
        *map(row, body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"
