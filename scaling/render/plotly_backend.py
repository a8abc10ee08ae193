"""A Figure as the JSON that plotly.js draws, in light colours, with the patch that turns it dark.

The JSON is built here, not by plotly's Python objects: that keeps plotly's import (0.5 s) out of a
report.
"""

from __future__ import annotations

from pathlib import Path
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
    ReferenceLine,
    Text,
    Theme,
    ticks,
)

CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
SYMBOLS = {
    "circle": "circle",
    "open": "circle-open",
    "diamond": "diamond",
    "cross": "x-thin-open",
    "star": "star",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CLEAR = "rgba(0,0,0,0)"
LEGEND = {
    "orientation": "h",
    "yref": "container",
    "y": 0,
    "yanchor": "bottom",
    "x": 0.5,
    "xanchor": "center",
}


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
    x_limits, y_limits = figure.limits()
    data: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for trace in figure.traces:
        if isinstance(trace, Line):
            data.append(_line(trace, theme))
        elif isinstance(trace, Markers):
            data.append(_markers(trace, theme))
        elif isinstance(trace, Band):
            data.append(_band(trace, theme))
        elif isinstance(trace, ReferenceLine):
            shapes.append(_shape(trace, theme))
        if isinstance(trace, (ReferenceLine, Text)):
            annotations += _annotation(trace, figure, theme)
    labelled = any(trace.get("showlegend") for trace in data)
    if figure.ramp is not None:
        data.append(_colour_bar(figure.ramp, theme))
    hover = {"bgcolor": theme.background, "bordercolor": theme.muted, "font": {"color": theme.ink}}
    layout = {
        "font": {"family": FONT, "size": 13, "color": theme.ink},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": {"l": 56, "r": 16, "t": 14, "b": 48},
        "hovermode": "closest",
        "modebar": {"bgcolor": CLEAR, "color": theme.muted, "activecolor": theme.ink},
        "hoverlabel": hover,
        "xaxis": _axis(figure.x, x_limits, theme),
        "yaxis": _axis(figure.y, y_limits, theme),
        "showlegend": labelled,
        "legend": LEGEND,
        "shapes": shapes,
        "annotations": annotations,
    }
    return {"data": data, "layout": layout}


def _axis(axis: Axis, limits: tuple[float, float], theme: Theme) -> dict[str, Any]:
    values, labels = ticks(*limits, axis.log, axis.unit)
    return {
        "title": {"text": for_plotly(axis.label), "standoff": 8},
        "type": "log" if axis.log else "linear",
        "range": [_place(limit, axis) for limit in limits],
        "tickmode": "array",
        "tickvals": values,
        "ticktext": labels,
        "exponentformat": "SI" if axis.unit == "count" else "power",
        "gridcolor": theme.grid,
        "linecolor": theme.muted,
        "tickcolor": theme.muted,
        "ticks": "outside",
        "ticklen": 4,
        "showline": True,
        "zeroline": False,
        "automargin": True,
    }


def _place(value: float, axis: Axis) -> float:
    """Ranges and annotations of a log axis are given by exponent."""
    return float(np.log10(value)) if axis.log else float(value)


def _numbers(values: Any) -> list[float | None]:
    """Six significant digits: what a screen can show, at a third of the bytes."""
    numbers = np.asarray(values, float)
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in numbers]


def _rgba(colour: str, alpha: float) -> str:
    red, green, blue = bytes.fromhex(colour[1:])
    return f"rgba({red},{green},{blue},{alpha:g})"


def _scatter(trace: Line | Markers, mode: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": mode,
        "name": for_plotly(trace.label),
        "showlegend": bool(trace.label),
        "x": _numbers(trace.x),
        "y": _numbers(trace.y),
    }


def _line(trace: Line, theme: Theme) -> dict[str, Any]:
    drawn = _scatter(trace, "lines")
    style = {"color": theme.colour(trace.colour), "width": trace.width, "dash": trace.dash}
    if trace.note:
        return drawn | {"line": style, "text": for_plotly(trace.note), "hoverinfo": "x+y+text"}
    return drawn | {"line": style, "hoverinfo": "x+y+name" if trace.label else "skip"}


def _markers(trace: Markers, theme: Theme) -> dict[str, Any]:
    colours = theme.colours(trace.colour)
    colour: Any = colours[0] if len(colours) == 1 else colours
    is_hollow = trace.symbol in ("open", "cross")
    outline = colour if is_hollow else theme.background
    drawn = _scatter(trace, "markers")
    drawn["marker"] = {
        "color": colour,
        "size": trace.size,
        "symbol": SYMBOLS[trace.symbol],
        "line": {"color": outline, "width": 1.6 if is_hollow else 0.8},
    }
    if trace.notes:
        drawn |= {"text": [for_plotly(note) for note in trace.notes], "hoverinfo": "text"}
    if trace.lo is not None and trace.hi is not None:
        y = np.asarray(trace.y, float)
        drawn["error_y"] = {
            "type": "data",
            "array": _numbers(np.asarray(trace.hi, float) - y),
            "arrayminus": _numbers(y - np.asarray(trace.lo, float)),
            "color": colours[0] if len(colours) == 1 else theme.muted,
            "thickness": 1.2,
            "width": 3,
        }
    return drawn


def _band(trace: Band, theme: Theme) -> dict[str, Any]:
    """One closed outline, so that two bands never fill towards each other."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": _numbers([*trace.x, *reversed(trace.x)]),
        "y": _numbers([*trace.hi, *reversed(trace.lo)]),
        "fill": "toself",
        "showlegend": False,
        "fillcolor": _rgba(theme.colour(trace.colour), 0.16),
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _shape(rule: ReferenceLine, theme: Theme) -> dict[str, Any]:
    line = {"color": theme.muted, "width": 1.2, "dash": "dot"}
    if rule.x is not None:
        across: dict[str, Any] = {"x0": rule.x, "x1": rule.x, "yref": "paper", "y0": 0, "y1": 1}
    else:
        across = {"y0": rule.y, "y1": rule.y, "xref": "paper", "x0": 0, "x1": 1}
    return {"type": "line", "layer": "below", "line": line} | across


def _annotation(trace: ReferenceLine | Text, figure: Figure, theme: Theme) -> list[dict[str, Any]]:
    """A word that stays readable over lines."""
    word, colour = (trace.text, trace.colour) if isinstance(trace, Text) else (trace.label, "muted")
    if not word:
        return []
    x: dict[str, Any] = {"xref": "paper", "x": 1, "xanchor": "right"}
    y: dict[str, Any] = {"yref": "paper", "y": 1, "yanchor": "top"}
    if trace.x is not None:
        side = trace.anchor if isinstance(trace, Text) else "right"
        x = {"x": _place(trace.x, figure.x), "xanchor": side}
    if trace.y is not None:
        height = "middle" if isinstance(trace, Text) else "bottom"
        y = {"y": _place(trace.y, figure.y), "yanchor": height}
    if isinstance(trace, ReferenceLine) and trace.x is not None:
        x["xshift"] = -3
    style = {
        "showarrow": False,
        "bgcolor": _rgba(theme.background, 0.75),
        "borderpad": 1,
        "font": {"size": 11, "color": theme.colour(colour)},
    }
    return [{"text": for_plotly(word), **x, **y, **style}]


def _colour_bar(ramp: ColorScale, theme: Theme) -> dict[str, Any]:
    values, labels = ticks(ramp.lo, ramp.hi, ramp.log, ramp.unit)
    bar = {
        "title": {"text": for_plotly(ramp.label), "side": "right"},
        "thickness": 12,
        "outlinewidth": 0,
        "tickvals": [ramp.at(value) for value in values],
        "ticktext": labels,
        "len": 0.9,
        "xpad": 6,
    }
    marker = {
        "color": [0.0],
        "cmin": 0,
        "cmax": 1,
        "colorscale": [[step / 8, theme.colour(step / 8)] for step in range(9)],
        "colorbar": bar,
        "showscale": True,
        "opacity": 0,
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [None],
        "y": [None],
        "marker": marker,
        "showlegend": False,
        "hoverinfo": "skip",
    }
