"""The one place that makes foreign text safe: names, notes and exception text reach HTML, Markdown, CSV and terminals.

HTML is escaped by jinja2 (autoescape on, always) and terminals get rich `Text` of plain text, which knows no markup; the
other formats have their function here.
"""

from __future__ import annotations

import re

from scaling.plain import plain

_MARKDOWN = re.compile(r"([\\`*_\[\]|~$#])")


def for_plotly(text: object) -> str:
    """Text that plotly draws as it stands: it would read `<b>` and `<a href>` as markup."""
    return plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def for_markdown(text: object) -> str:
    """One line of Markdown that shows the text itself: no markup, no HTML, no table cell ended early."""
    one_line = " ".join(plain(text).split())
    escaped = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", escaped)


def for_csv(cell: object) -> object:
    """A cell that no spreadsheet runs as a formula; numbers stay numbers, None is an empty cell."""
    if cell is None or isinstance(cell, (int, float)):
        return cell
    text = plain(cell)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t") else text
