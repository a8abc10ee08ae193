"""What speaks for and against a sweep's honesty: the noise of seeds, runs above the law with their cause, curves that collapse."""

from __future__ import annotations

from typing import Any

from scaling.fit import causes, collapse, noise
from scaling.fit.fitted import Fitted
from scaling.fit.table import Source


def examined(source: Source, fitted: Fitted | None, ci: float) -> tuple[dict[str, Any], list[str]]:
    """The document's `noise`, `above` and `collapse`, as far as the source allows them, and their warnings."""
    if fitted is None:
        return {}, []
    spread = noise.report(source.points, fitted.estimate, ci)
    found: dict[str, Any] = {"noise": spread}
    told = noise.warnings(spread)
    if source.runs is not None and source.trails is not None:
        above = causes.above(source.points, source.runs, source.trails, fitted.estimate, spread["sd"])
        curves = collapse.collapse(source.points, source.trails, float(fitted.estimate.values.get("E", 0.0)))
        found |= {"above": above, **({"collapse": curves} if curves else {})}
        told += [*causes.warnings(above), *collapse.warnings(curves)]
    return found, told
