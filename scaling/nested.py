"""Nested tables as flat ones: names joined by dots, as in `model.d_model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of whatever in `value` is no mapping, in its order; lists and None are left as they are."""
    if isinstance(value, Mapping):
        for inner, held in value.items():
            yield from leaves(held, f"{name}.{inner}" if name else str(inner))
    else:
        yield name, value
