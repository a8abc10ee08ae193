"""A Figure as the JSON that plotly.js draws, in light colours, with the patch that turns it dark.

The JSON is built here, not by plotly's Python objects: that keeps plotly's import (0.5 s) out of a
report.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from scaling.render.escape import for_plotly
from scaling.render.figure import (
    DARK,
    LIGHT,
    Axis,
    Band,
    ColorScale,
    Figure,
    Line,
    Markers,
    Text,
    Theme,
    ticks,
)

CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
SYMBOLS = {  # others have our name
    "open": "circle-open",
    "cross": "x-thin-open",
    "up": "triangle-up",
    "down": "triangle-down",
    "plus": "cross",
    "left": "triangle-left",
}
LAYOUT = Path(__file__).parent / "plotly_layout.json"  # of all figures, with the theme's colours
LETTER = 0.022  # width of one, as a share of the x axis


def plotly_js() -> str:
    """The source of plotly.js as the installed plotly package ships it."""
    from importlib.util import find_spec

    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("plotly is not installed")
    package = Path(spec.submodule_search_locations[0])
    return (package / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def to_plotly(figure: Figure) -> dict[str, Any]:
    """`data` and `layout` in light colours, and `dark`: what differs in the dark."""
    light, dark = _draw(figure, LIGHT), _draw(figure, DARK)
    return light | {"dark": _changes(light, dark)}


def _changes(base: Any, other: Any) -> Any:
    """Leaves of `other` that differ from `base`, or None; lists become objects by index."""
    if isinstance(base, list) and len(base) and isinstance(base[0], dict):
        base, other = (dict(enumerate(items)) for items in (base, other))
    if not isinstance(base, dict):
        return None if base == other else other
    pairs = {str(key): _changes(base[key], other[key]) for key in base}
    return {key: change for key, change in pairs.items() if change is not None} or None


def _draw(figure: Figure, theme: Theme) -> dict[str, Any]:
    layout = json.loads(Template(LAYOUT.read_text("utf-8")).substitute(vars(theme)))
    axes = {"x": figure.x, "y": figure.y}
    for (name, axis), limits in zip(axes.items(), figure.limits(LETTER), strict=True):
        values, labels = ticks(*limits, axis.log, axis.unit)
        layout[f"{name}axis"] |= {
            "title": {"text": for_plotly(axis.label), "standoff": 8},
            "type": "log" if axis.log else "linear",
            "range": [_position(limit, axis) for limit in limits],
            "tickvals": values,
            "ticktext": labels,
            "exponentformat": "SI" if axis.unit == "count" else "power",
        }
    drawn = figure.drawn(LETTER)
    data = [_trace(trace, theme) for trace in drawn if not isinstance(trace, Text)]
    layout["showlegend"] = any(trace["showlegend"] for trace in data)
    layout["annotations"] = [
        {
            **{name: _position(getattr(word, name), axis) for name, axis in axes.items()},
            "text": for_plotly(word.text),  # without a background, which would hide data
            "showarrow": False,
            "borderpad": 1,
            "font": {"size": 11, "color": theme.colour(word.colour)},
            "xanchor": word.anchor,
            "yanchor": "middle" if word.edge == "center" else word.edge,
        }
        for word in drawn
        if isinstance(word, Text)
    ]
    if figure.ramp and figure.ramp.has_bar:
        data.append(_colour_bar(figure.ramp, theme))
    return {"data": data, "layout": layout}


def _position(value: float, axis: Axis) -> float:
    """Ranges and annotations of a log axis are given by exponent."""
    return float(np.log10(value)) if axis.log else float(value)


def _numbers(values: Any) -> list[float | None]:
    """Six significant digits: what a screen can show, at a third of the bytes."""
    numbers = np.asarray(values, float)
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in numbers]


def _scatter(mode: str, x: Any, y: Any, label: str = "", **more: Any) -> dict[str, Any]:
    named = {"name": for_plotly(label), "showlegend": bool(label), "hoverinfo": "skip"}
    return {"type": "scatter", "mode": mode, "x": _numbers(x), "y": _numbers(y)} | named | more


def _trace(trace: Line | Markers | Band, theme: Theme) -> dict[str, Any]:
    colour = theme.colour(trace.colour)
    if isinstance(trace, Band):  # one closed outline, so that two never fill towards each other
        x, y = [*trace.x, *reversed(trace.x)], [*trace.hi, *reversed(trace.lo)]
        red, green, blue = bytes.fromhex(colour[1:])
        fill = f"rgba({red},{green},{blue},0.16)"
        return _scatter("lines", x, y, fill="toself", fillcolor=fill, line={"width": 0})
    symbol = trace.mark and SYMBOLS.get(trace.mark, trace.mark)
    if isinstance(trace, Line):
        style = {"color": colour, "width": trace.width, "dash": trace.dash}
        drawn = _scatter("lines", trace.x, trace.y, trace.label, line=style)
        if trace.label or trace.note:
            drawn["hoverinfo"] = "x+y+text" if trace.note else "x+y+name"
        if trace.note:
            drawn["text"] = for_plotly(trace.note)
        if symbol:
            drawn |= {"mode": "lines+markers", "marker": {"symbol": symbol, "maxdisplayed": 4}}
        return drawn
    is_hollow = trace.symbol in ("open", "cross")
    line = {"color": colour if is_hollow else theme.background, "width": 1.6 if is_hollow else 0.8}
    marker = {"color": colour, "size": trace.size, "line": line}
    own = SYMBOLS.get(trace.symbol, trace.symbol)
    marker["symbol"] = f"{symbol}-open" if symbol and is_hollow else symbol or own
    drawn = _scatter("markers", trace.x, trace.y, trace.label, marker=marker, hoverinfo="all")
    if trace.notes:
        drawn |= {"text": [for_plotly(note) for note in trace.notes], "hoverinfo": "text"}
    if trace.errors:
        below, above = map(_numbers, trace.errors)
        bars = {"type": "data", "array": above, "arrayminus": below, "thickness": 1.2, "width": 3}
        drawn["error_y"] = bars | {"color": colour if isinstance(colour, str) else theme.muted}
    return drawn


def _colour_bar(ramp: ColorScale, theme: Theme) -> dict[str, Any]:
    values, labels = ticks(ramp.lo, ramp.hi, True, ramp.unit)
    marker = {
        "color": [0.0],
        "cmin": 0,
        "cmax": 1,
        "colorscale": [[step / 8, theme.colour(step / 8)] for step in range(9)],
        "colorbar": {
            "title": {"text": for_plotly(ramp.label), "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
            "tickvals": ramp.at(values).tolist(),
            "ticktext": labels,
            "len": 0.9,
            "xpad": 6,
        },
        "showscale": True,
        "opacity": 0,
    }
    return _scatter("markers", [np.nan], [np.nan], marker=marker)
