"""What the bootstrap says of the exponents: the cloud of (alpha, beta), and the exponent a by each
approach.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scaling.fit.result import FitResult
from scaling.predict.law_source import FittedLaw
from scaling.render.figure import Axis, Band, Figure, Line, Markers, ReferenceLine, Text, Trace
from scaling.render.table import Column, estimate, format_cell
from scaling.report.parts.fit_tables import APPROACHES, TITLES
from scaling.report.parts.run_plots import POINTS_SHOWN, thinned

BINS = 40
Published = Mapping[str, Mapping[str, float]]


def cloud(fit: FitResult, published: Published) -> Figure | None:
    """The bootstrap's (alpha, beta), the fit, and the published laws."""
    draws = fit.bootstrap.draws if fit.bootstrap else {}
    alpha, beta = (np.asarray(draws.get(name, []), float) for name in ("alpha", "beta"))
    if not len(alpha) or len(alpha) != len(beta):
        return None
    kept = thinned(len(alpha), POINTS_SHOWN)
    center = [float(fit.params[name].value or np.nan) for name in ("alpha", "beta")]
    names: dict[tuple[float, float], list[str]] = {}  # two papers may have the same exponents
    for name, law in published.items():
        if "alpha" in law and "beta" in law:
            names.setdefault((round(law["alpha"], 2), round(law["beta"], 2)), []).append(name)
    x_axis = _cloud_axis("α, of size", alpha, [center[0], *(at[0] for at in names)])
    y_axis = _cloud_axis("β, of tokens", beta, [center[1], *(at[1] for at in names)])
    span = x_axis.range or (0.0, 1.0)
    traces: list[Trace] = [
        Markers(alpha[kept], beta[kept], "bootstrap refits", 0, "open", 4.5),
        Line(span, span, "α = β (a = ½)", "muted", "dash", 1.2),
    ]
    for index, ((a, b), same) in enumerate(names.items()):
        traces.append(Markers([a], [b], ", ".join(same), 2 + index, "diamond", 10))
    traces.append(Markers([center[0]], [center[1]], "this fit", 1, "star", 15))
    caption = (
        "Each ring is one refit to resampled runs: the tilt shows how far α and β trade "
        "against each other."
    )
    title = "Bootstrap cloud of the exponents"
    return Figure("bootstrap-cloud", title, caption, x_axis, y_axis, tuple(traces))


def exponents(fit: FitResult, law: FittedLaw | None, published: Published) -> Figure | None:
    """How the bootstrap spreads the exponent a of N* ~ C^a by each approach, with the published
    laws.
    """
    spreads = {name: spread for name, (_, spread) in law.approaches.items()} if law else {}
    if law and law.optimum_draws:
        spreads[fit.approach] = law.optimum_draws
    draws = {
        name: finite
        for name, spread in spreads.items()
        if spread is not None and len(finite := spread.a[np.isfinite(spread.a)]) > 1
    }
    if not draws:
        return None
    others = {name: law["a"] for name, law in published.items() if "a" in law}
    ends = [end for values in draws.values() for end in np.quantile(values, [0.005, 0.995])]
    low, high = min([*ends, *others.values()]), max([*ends, *others.values()])
    edges = np.linspace(low, high if high > low else low + 0.01, BINS + 1)
    traces: list[Trace] = [ReferenceLine(x=0.5, label="a = ½")]
    top = 0.0
    for colour, name in enumerate(APPROACHES):
        if name not in draws:
            continue
        share = np.histogram(draws[name], edges)[0] / len(draws[name])
        x, y = np.repeat(edges, 2)[1:-1], 100 * np.repeat(share, 2)
        entry = format_cell(estimate(fit.approaches[name].a), Column("", "rough", True))
        label = f"{TITLES[name].split(' (')[0]} {entry}"
        traces += [Band(x, np.zeros_like(y), y, colour), Line(x, y, label, colour, width=1.6)]
        top = max(top, float(y.max()))
    gap = 0.015 * (edges[-1] - edges[0])
    for index, (paper, a) in enumerate(others.items()):
        height, note = top * (1.1 + 0.11 * index), f"{paper}: a = {a:.3g}"
        left = a < (edges[0] + edges[-1]) / 2  # the name goes where there is more space
        word = Text(
            a + (gap if left else -gap), height, paper, "muted", "left" if left else "right"
        )
        traces += [Markers([a], [height], "", "muted", "diamond", 8, notes=[note]), word]
    caption = (
        "How many of the bootstrap's refits give which exponent, for each approach; the "
        "diamonds above are the published laws."
    )
    x_axis = Axis("exponent a of N* ∝ C^a", range=(float(edges[0] - 0.02), float(edges[-1] + 0.02)))
    y_axis = Axis("refits, %", unit="percent", range=(0.0, top * (1.25 + 0.11 * len(others))))
    title = "Bootstrap of the exponent a"
    return Figure("bootstrap-exponent", title, caption, x_axis, y_axis, tuple(traces))


def _cloud_axis(label: str, values: np.ndarray, others: list[float]) -> Axis:
    low, high = np.quantile(values, [0.005, 0.995])
    low, high = min(float(low), *others), max(float(high), *others)
    margin = 0.08 * (high - low) or 0.05
    return Axis(f"exponent {label}", range=(low - margin, high + margin))
