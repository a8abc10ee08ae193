"""jinja2 for pages, fragments and Markdown, in one place: nothing reaches a page unescaped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scaling.render.escape import sanitize


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
