"""A Table as a LaTeX tabular with the rules of booktabs; every text is escaped to ASCII."""

from __future__ import annotations

import re
from collections.abc import Callable
from textwrap import wrap

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
BREAK = r" \\ {}"  # else [ would start an option of the break
MIN_PARAGRAPH = 12  # letters of a text column that is broken to fit
SIZES = (
    ("", 5.0),
    (r"\small", 4.5),
    (r"\footnotesize", 4.0),
    (r"\scriptsize", 3.5),
)  # of letters, width in points


def to_latex(table: Table, width: float | None = None) -> str:
    """The rounded table; title and caption stand above it as comments. Needs the package booktabs.

    Numbers are aligned to the right, text to the left, long text in paragraphs. `{}` at the start
    of a row keeps a first cell that begins with [ or * from being read as an option of the row
    before. For a column of `width` inches letters become smaller and text columns narrower; where
    that does not suffice a comment says so.
    """
    body = [
        [
            _lines(text if column.is_text else text.replace("-", "−"), width)
            for text, column in zip(cells, table.columns, strict=True)
        ]
        for cells in table.formatted()
    ]
    headings = [[column.name] for column in table.columns]
    alignment, lengths, breaks = [], [], []
    for index, (column, *cells) in enumerate(zip(table.columns, *body, strict=True)):
        lines = [line for cell in cells for line in cell]
        longest = max(map(_length, lines), default=0)
        longest_word = max((len(word) for line in lines for word in line.split()), default=0)
        is_broken = column.is_text and longest_word <= MAX_WORD  # a digest is not
        if is_broken and longest > longest_word:
            breaks.append(index)
        is_long = is_broken and max(map(len, lines), default=0) > PARAGRAPH_ABOVE
        text = r"p{0.4\linewidth}" if is_long else "l"
        alignment.append(text if column.is_text else "r")
        if width is not None:
            headings[index] = wrap(column.name, max(int(longest), 6)) or [""]
        lengths.append(max([longest, *map(_length, headings[index])]) + 1.5)
    size, notes = "", list[str]()
    if width is not None:
        fits = [name for name, points in SIZES if sum(lengths) * points <= 72 * width]
        size, points = SIZES[-1]
        rest = 72 * width / points - 2 - sum(lengths) + sum(lengths[index] for index in breaks)
        if fits:
            size = fits[0]
        elif breaks and rest / len(breaks) >= MIN_PARAGRAPH:
            for index in breaks:
                alignment[index] = rf"p{{{rest / len(breaks) * points:.0f}pt}}"
        else:
            notes = [f"% wider than {width:g} inches: it needs table*"]
    lines = [
        *(f"% {for_latex(text)}" for text in (table.title, table.caption) if text),
        r"% needs \usepackage{booktabs}",
        *notes,
        *([f"{{{size}", r"\setlength{\tabcolsep}{3pt}"] if size else []),
        rf"\begin{{tabular}}{{@{{}}{' '.join(alignment)}@{{}}}}",
        r"\toprule",
        _row(headings, _symbols),
        r"\midrule",
        *(_row(cells, _text) for cells in body),
        r"\bottomrule",
        r"\end{tabular}" + ("}" if size else ""),
    ]
    return "\n".join(lines) + "\n"


def _length(line: str) -> float:
    """The width of a line in digits: capitals are wider, brackets, points and spaces narrower."""
    wide, narrow = (len(re.findall(letters, line)) for letters in ("[A-Z]", r"[][()., :;il|'!]"))
    return len(line) + 0.7 * wide - 0.5 * narrow


def _lines(cell: str, width: float | None) -> list[str]:
    """A cell; in a column of a given width an interval stands below its value."""
    return cell.replace(" [", "\n[").split("\n") if width and cell.endswith("]") else [cell]


def _row(cells: list[list[str]], form: Callable[[str], str]) -> str:
    stacks = [BREAK.join(map(form, cell)) for cell in cells]
    pairs = zip(stacks, cells, strict=True)
    shown = (rf"\shortstack[r]{{{stack}}}" if cell[1:] else stack for stack, cell in pairs)
    return "{}" + " & ".join(shown) + r" \\"


def _text(line: str) -> str:
    return MATH.get(line) or for_latex(line)


def _symbols(line: str) -> str:
    """A line of a heading with N*, C^a and ~ as mathematics."""
    text = re.sub(r"\b([NDLC])\*", r"$\1^*$", _text(line).replace(r"\textasciitilde{}", r"$\sim$"))
    return re.sub(r"\b([NDC])\\textasciicircum\{\}([ab])\b", r"$\1^\2$", text)
