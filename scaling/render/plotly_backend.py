"""A Figure as the JSON that plotly.js draws, in light colours, with the patch that turns it dark.

The JSON is built here, not by plotly's Python objects: that keeps plotly's import (0.5 s) out of a
report.
"""

from __future__ import annotations

from collections.abc import Callable
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
    Colour,
    Figure,
    Line,
    Markers,
    ReferenceLine,
    Text,
    Theme,
    Trace,
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


def plotly_js() -> str:
    """The source of plotly.js as the installed plotly package ships it."""
    from importlib.util import find_spec

    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("plotly is not installed")
    return (Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js").read_text(
        encoding="utf-8"
    )


def to_plotly(figure: Figure) -> dict[str, Any]:
    """`data` and `layout` in light colours, and `dark`: what differs in the dark."""
    light, dark = _draw(figure, LIGHT), _draw(figure, DARK)
    return light | {"dark": _changes(light, dark)}


def _changes(base: Any, other: Any) -> Any:
    """Leaves of `other` that differ from `base`, or None; lists become objects by index."""
    if isinstance(base, dict):
        pairs = {key: _changes(base[key], other[key]) for key in base}
    elif isinstance(base, list) and len(base) and isinstance(base[0], dict):
        pairs = {
            str(index): _changes(one, two)
            for index, (one, two) in enumerate(zip(base, other, strict=True))
        }
    else:
        return None if base == other else other
    return {key: change for key, change in pairs.items() if change is not None} or None


def _draw(figure: Figure, theme: Theme) -> dict[str, Any]:
    x_limits, y_limits = figure.limits()
    data: list[dict[str, Any]] = []
    for trace in figure.traces:
        data += _DRAW[type(trace)](trace, theme)
    if figure.ramp is not None:
        data.append(_colour_bar(figure.ramp, theme))
    layout = {
        "font": {"family": FONT, "size": 13, "color": theme.ink},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 14, "b": 48},
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.muted, "activecolor": theme.ink},
        "hoverlabel": {
            "bgcolor": theme.background,
            "bordercolor": theme.muted,
            "font": {"color": theme.ink},
        },
        "xaxis": _axis(figure.x, x_limits, theme),
        "yaxis": _axis(figure.y, y_limits, theme),
        "showlegend": any(
            getattr(trace, "label", "")
            for trace in figure.traces
            if not isinstance(trace, ReferenceLine)
        ),
        "legend": {
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0.5,
            "xanchor": "center",
        },
        "shapes": [
            _shape(trace, theme) for trace in figure.traces if isinstance(trace, ReferenceLine)
        ],
        "annotations": [
            note
            for trace in figure.traces
            if isinstance(trace, (ReferenceLine, Text))
            for note in _annotation(trace, figure, theme)
        ],
    }
    return {"data": data, "layout": layout}


def _axis(axis: Axis, limits: tuple[float, float], theme: Theme) -> dict[str, Any]:
    values, labels = ticks(*limits, axis.log, axis.unit)
    shown = (
        [float(np.log10(limit)) for limit in limits]
        if axis.log
        else [float(limit) for limit in limits]
    )
    return {
        "title": {"text": for_plotly(axis.label), "standoff": 8},
        "type": "log" if axis.log else "linear",
        "range": shown,
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


def _numbers(values: Any) -> list[float]:
    """Six significant digits: what a screen can show, at a third of the bytes."""
    return [float(f"{value:.6g}") for value in np.asarray(values, float)]


def _rgba(colour: str, alpha: float) -> str:
    red, green, blue = bytes.fromhex(colour[1:])
    return f"rgba({red},{green},{blue},{alpha:g})"


def _named(trace: Any) -> dict[str, Any]:
    return {"type": "scatter", "name": for_plotly(trace.label), "showlegend": bool(trace.label)}


def _line(trace: Line, theme: Theme) -> list[dict[str, Any]]:
    style = {"color": theme.colour(trace.colour), "width": trace.width, "dash": trace.dash}
    hover = (
        {"text": for_plotly(trace.note), "hoverinfo": "x+y+text"}
        if trace.note
        else {"hoverinfo": "skip" if not trace.label else "x+y+name"}
    )
    return [
        _named(trace)
        | {"mode": "lines", "x": _numbers(trace.x), "y": _numbers(trace.y), "line": style}
        | hover
    ]


def _markers(trace: Markers, theme: Theme) -> list[dict[str, Any]]:
    colour = theme.colour(trace.colour)
    edge = 1.6 if trace.symbol in ("open", "cross") else 0.8
    outline = colour if trace.symbol in ("open", "cross") else theme.background
    marker = {
        "color": colour,
        "size": trace.size,
        "symbol": SYMBOLS[trace.symbol],
        "line": {"color": outline, "width": edge},
    }
    drawn = _named(trace) | {
        "mode": "markers",
        "x": _numbers(trace.x),
        "y": _numbers(trace.y),
        "marker": marker,
    }
    if trace.notes:
        drawn |= {"text": [for_plotly(note) for note in trace.notes], "hoverinfo": "text"}
    if trace.lo is not None and trace.hi is not None:
        y = np.asarray(trace.y, float)
        drawn["error_y"] = {
            "type": "data",
            "array": _numbers(trace.hi - y),
            "arrayminus": _numbers(y - trace.lo),
            "color": colour,
            "thickness": 1.2,
            "width": 3,
        }
    return [drawn]


def _band(trace: Band, theme: Theme) -> list[dict[str, Any]]:
    """One closed outline, so that two bands never fill towards each other."""
    x = np.concatenate([trace.x, np.asarray(trace.x)[::-1]])
    y = np.concatenate([trace.hi, np.asarray(trace.lo)[::-1]])
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": _numbers(x),
            "y": _numbers(y),
            "fill": "toself",
            "showlegend": False,
            "fillcolor": _rgba(theme.colour(trace.colour), 0.16),
            "line": {"width": 0},
            "hoverinfo": "skip",
        }
    ]


def _in_layout(trace: Trace, theme: Theme) -> list[dict[str, Any]]:
    return []


_DRAW: dict[type, Callable[[Any, Theme], list[dict[str, Any]]]] = {
    Line: _line,
    Markers: _markers,
    Band: _band,
    ReferenceLine: _in_layout,
    Text: _in_layout,
}


def _shape(rule: ReferenceLine, theme: Theme) -> dict[str, Any]:
    across = (
        {"x0": rule.x, "x1": rule.x, "yref": "paper", "y0": 0, "y1": 1}
        if rule.x is not None
        else {"y0": rule.y, "y1": rule.y, "xref": "paper", "x0": 0, "x1": 1}
    )
    return {
        "type": "line",
        "layer": "below",
        "line": {"color": theme.muted, "width": 1.2, "dash": "dot"},
    } | across


def _annotation(trace: ReferenceLine | Text, figure: Figure, theme: Theme) -> list[dict[str, Any]]:
    if not (trace.text if isinstance(trace, Text) else trace.label):
        return []
    if isinstance(trace, Text):
        at = {
            "x": _place(trace.x, figure.x),
            "y": _place(trace.y, figure.y),
            "xanchor": trace.anchor,
            "yanchor": "middle",
        }
        return [at | {"text": for_plotly(trace.text)} | _word(theme, trace.colour)]
    if trace.x is not None:
        at = {
            "x": _place(trace.x, figure.x),
            "xanchor": "right",
            "yref": "paper",
            "y": 1,
            "yanchor": "top",
            "xshift": -3,
        }
    else:
        at = {
            "y": _place(float(trace.y or 0), figure.y),
            "yanchor": "bottom",
            "xref": "paper",
            "x": 1,
            "xanchor": "right",
        }
    return [at | {"text": for_plotly(trace.label)} | _word(theme, "muted")]


def _word(theme: Theme, colour: Colour) -> dict[str, Any]:
    """A word that stays readable over lines."""
    return {
        "showarrow": False,
        "bgcolor": _rgba(theme.background, 0.75),
        "borderpad": 1,
        "font": {"size": 11, "color": theme.colour(colour)},
    }


def _place(value: float, axis: Axis) -> float:
    """Annotations on a log axis are placed by exponent."""
    return float(np.log10(value)) if axis.log else value


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
    scale = [[step / 8, theme.colour(step / 8)] for step in range(9)]
    marker = {
        "color": [0.0],
        "cmin": 0,
        "cmax": 1,
        "colorscale": scale,
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
