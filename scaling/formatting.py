"""Numbers as people read them, and text that cannot harm a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any


def format_count(value: float, digits: int = 3) -> str:
    """Significant digits and a suffix for parameters and tokens: 1.34B, 15T, 36.9k."""
    suffixes = (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3))
    suffix, scale = next(
        ((suffix, scale) for suffix, scale in suffixes if abs(value) >= scale * 0.9995), ("", 1.0)
    )
    if abs(value) >= 1e15:
        return f"{value:.{digits}g}"
    rounded = f"{value / scale:.{digits}g}"
    return f"{float(rounded):g}{suffix}" if "e+" in rounded else f"{rounded}{suffix}"


def format_percent(fraction: float) -> str:
    """Two significant digits of a share in percent, never with an exponent: 0.52 %, 12 %, 340 %."""
    rounded = f"{100 * fraction:.2g}"
    return f"{float(rounded):.0f} %" if "e+" in rounded else f"{rounded} %"


def format_flops(value: float) -> str:
    """FLOPs in the form that papers print: 5.76e+23 becomes 5.76e23, 4.8e+06 4.8e6."""
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")


def format_seconds(seconds: float) -> str:
    """A duration for people: 8.1 s, 2 min 05 s, 1 h 20 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02d} s"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )


def format_bytes(count: float) -> str:
    """Binary units: 4.0 GiB."""
    for unit, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def sanitize(text: object, limit: int = 2000) -> str:
    """Text without control, bidirectional-override and unpaired surrogate characters, cut to
    `limit` characters.
    """
    cleaned = _CONTROL.sub("", str(text)).encode("utf-8", "replace").decode("utf-8")
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def strip_ends(text: str) -> str:
    """The text without the blanks that fill its lines to a table's width."""
    return re.sub(" +$", "", text, flags=re.MULTILINE)


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of whatever in `value` is no mapping, in its order; lists and None are
    left as they are.
    """
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from flatten(item, f"{name}.{inner}" if name else str(inner))
    else:
        yield name, value
