"""What the bootstrap says of the exponents: the cloud of (alpha, beta), and the exponent a by each
approach.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scaling.render.figure import (
    Axis,
    Band,
    Figure,
    Line,
    Markers,
    ReferenceLine,
    Text,
    Trace,
)
from scaling.render.table import Column, Document, estimate, format_cell
from scaling.report.parts.fit_tables import APPROACHES, TITLES
from scaling.report.parts.law_plots import frontier_draws
from scaling.report.parts.run_plots import (
    POINTS_SHOWN,
    thinned,
)

BINS = 40


def cloud(document: Document, published: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """The bootstrap's (alpha, beta), the fit, and the published laws."""
    draws = (document.get("bootstrap") or {}).get("draws") or {}
    alpha, beta = (np.asarray(draws.get(name, []), float) for name in ("alpha", "beta"))
    if not len(alpha) or len(alpha) != len(beta):
        return None
    kept = thinned(len(alpha), POINTS_SHOWN)
    center = [float(document["params"][name]["value"]) for name in ("alpha", "beta")]
    others = [
        (name, law["alpha"], law["beta"])
        for name, law in published.items()
        if "alpha" in law and "beta" in law
    ]
    x_axis = _cloud_axis("α, of size", alpha, [center[0], *(law[1] for law in others)])
    y_axis = _cloud_axis("β, of tokens", beta, [center[1], *(law[2] for law in others)])
    span = x_axis.range or (0.0, 1.0)
    traces: list[Trace] = [Markers(alpha[kept], beta[kept], "bootstrap refits", 0, "open", 4.5)]
    traces.append(Line(span, span, "α = β (a = ½)", "muted", "dash", 1.2))
    traces += [
        Markers([a], [b], name, 2 + index, "diamond", 10)
        for index, (name, a, b) in enumerate(others)
    ]
    traces.append(Markers([center[0]], [center[1]], "this fit", 1, "star", 15))
    caption = (
        "Each ring is one refit to resampled runs: the tilt shows how far α and β trade "
        "against each other."
    )
    return Figure(
        "bootstrap-cloud",
        "Bootstrap cloud of the exponents",
        caption,
        x_axis,
        y_axis,
        tuple(traces),
    )


def exponents(document: Document, published: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """How the bootstrap spreads the exponent a of N* ~ C^a by each approach, with the published
    laws.
    """
    draws = {
        name: values for name in APPROACHES if len(values := _drawn_exponents(document, name)) > 1
    }
    if not draws:
        return None
    others = {name: law["a"] for name, law in published.items() if "a" in law}
    ends = [end for values in draws.values() for end in np.quantile(values, [0.005, 0.995])]
    low, high = min([*ends, *others.values()]), max([*ends, *others.values()])
    edges = np.linspace(low, high if high > low else low + 0.01, BINS + 1)
    traces: list[Trace] = [ReferenceLine(x=0.5, label="a = ½")]
    for name, values in draws.items():
        share = np.histogram(values, edges)[0] / len(values)
        x, y, colour = np.repeat(edges, 2)[1:-1], 100 * np.repeat(share, 2), APPROACHES.index(name)
        entry = format_cell(
            estimate((document["approaches"].get(name) or {}).get("a")), Column("", "rough", True)
        )
        traces += [
            Band(x, np.zeros_like(y), y, colour),
            Line(x, y, f"{TITLES[name].split(' (')[0]} {entry}", colour, width=1.6),
        ]
    top = max(float(np.max(trace.y)) for trace in traces if isinstance(trace, Line))
    traces += [
        trace
        for i, (name, a) in enumerate(others.items())
        for trace in _named_exponent(name, a, top * (1.1 + 0.11 * i), edges)
    ]
    caption = (
        "How many of the bootstrap's refits give which exponent, for each approach; the "
        "diamonds above are the published laws."
    )
    x_axis = Axis("exponent a of N* ∝ C^a", range=(float(edges[0] - 0.02), float(edges[-1] + 0.02)))
    y_axis = Axis("refits, %", unit="percent", range=(0.0, top * (1.25 + 0.11 * len(others))))
    return Figure(
        "bootstrap-exponent", "Bootstrap of the exponent a", caption, x_axis, y_axis, tuple(traces)
    )


def _named_exponent(name: str, a: float, height: float, edges: np.ndarray) -> list[Trace]:
    """A published exponent as a diamond, with its name on the side where there is more room."""
    right = a < (edges[0] + edges[-1]) / 2
    gap = 0.015 * (edges[-1] - edges[0])
    text = Text(a + (gap if right else -gap), height, name, "muted", "left" if right else "right")
    return [Markers([a], [height], "", "muted", "diamond", 8, notes=[f"{name}: a = {a:.3g}"]), text]


def _drawn_exponents(document: Document, approach: str) -> np.ndarray:
    """The finite draws (R,) of an approach's a; of the law's own, all that the document keeps."""
    of_law = frontier_draws(document) if approach == "parametric" else None
    stored = ((document["approaches"].get(approach) or {}).get("draws") or {}).get("a") or []
    values = np.asarray(stored if of_law is None else of_law.a, float)
    return values[np.isfinite(values)]


def _cloud_axis(label: str, values: np.ndarray, others: list[float]) -> Axis:
    low, high = np.quantile(values, [0.005, 0.995])
    low, high = min(float(low), *others), max(float(high), *others)
    margin = 0.08 * (high - low) or 0.05
    return Axis(f"exponent {label}", range=(low - margin, high + margin))
