"""Foreign text without what a terminal or a page would obey: names, notes and exception text pass through here."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: object, limit: int = 2000) -> str:
    """Text without control, bidirectional-override and unpaired surrogate characters, cut to `limit` characters."""
    cleaned = _CONTROL.sub("", str(text)).encode("utf-8", "replace").decode("utf-8")
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"
