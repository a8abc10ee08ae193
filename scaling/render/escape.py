"""The one place that makes foreign text safe: names, notes and exception text reach HTML, Markdown,
CSV and terminals.

HTML is escaped by jinja2 (autoescape on, always) and terminals get rich `Text` of plain text, which
knows no markup; the other formats have their function here.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scaling.formatting import sanitize

_MARKDOWN = re.compile(r"([\\`*_\[\]|~$#])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': r"{\char34}",
    "`": r"{\char96}",
    "'": r"{\char39}",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∝": r"$\propto$",
    "√": r"$\surd$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\epsilon$",
    "η": r"$\eta$",
    "κ": r"$\kappa$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "²": "$^2$",
    "³": "$^3$",
}


def for_markdown(text: object) -> str:
    """One line of Markdown that shows the text itself: no markup, no HTML, no table cell ended
    early.
    """
    line = html.escape(" ".join(sanitize(text).split()), quote=False)
    return _MARKDOWN.sub(r"\\\1", line)


def for_csv(cell: object) -> object:
    """A cell that no spreadsheet runs as a formula; what is no text stays as it is."""
    if not isinstance(cell, str):
        return cell
    text = sanitize(cell)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t") else text


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV with safe cells; None is an empty one."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(for_csv, row) for row in rows)
    return text.getvalue()


def for_latex(text: object) -> str:
    """One line of LaTeX that shows the text itself: no command, no cell or row ended early; other
    letters than these by their number.
    """
    letters = [
        _LATEX.get(letter, letter if letter.isascii() else f"(U+{ord(letter):04X})")
        for letter in " ".join(sanitize(text).split())
    ]
    return re.sub("-(?=-)", "-{}", "".join(letters))


def environment(
    folder: Path, escape: Callable[[Any], Any] | None = None, **filters: Callable[..., str]
) -> Any:
    """An environment of the templates in a folder; `escape` replaces that of HTML, and what the
    `filters` give is taken as it is.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finish(value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        if escape is not None:
            return Markup(escape(value))
        return sanitize(value) if isinstance(value, str) else value

    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finish,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name, function in filters.items():
        made.filters[name] = lambda value, function=function: Markup(function(value))
    return made
