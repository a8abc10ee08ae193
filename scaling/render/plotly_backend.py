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
    Colour,
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
LAYOUT = Path(__file__).parent / "plotly_layout.json"  # of all figures, with the theme's colours


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
    axes = (figure.x, figure.y)
    for name, axis, limits in zip(("xaxis", "yaxis"), axes, figure.limits(0.022), strict=True):
        values, labels = ticks(*limits, axis.log, axis.unit)
        layout[name] |= {
            "title": {"text": for_plotly(axis.label), "standoff": 8},
            "type": "log" if axis.log else "linear",
            "range": [_position(limit, axis) for limit in limits],
            "tickvals": values,
            "ticktext": labels,
            "exponentformat": "SI" if axis.unit == "count" else "power",
        }
    data: list[dict[str, Any]] = []
    layout |= {"shapes": [], "annotations": []}
    for trace in figure.traces:
        match trace:
            case Line():
                data.append(_line(trace, theme))
            case Markers():
                data.append(_markers(trace, theme))
            case Band():
                data.append(_band(trace, theme))
            case ReferenceLine():
                layout["shapes"].append(_rule(trace, theme))
            case Text():
                position = {"x": _position(trace.x, figure.x), "y": _position(trace.y, figure.y)}
                word = _word(trace.text, trace.colour, theme)
                layout["annotations"].append(
                    word | position | {"xanchor": trace.anchor, "yanchor": "middle"}
                )
    layout["annotations"] += [
        _rule_label(line, row, side, axes, theme) for line, row, side in figure.reference_labels()
    ]
    layout["showlegend"] = any(trace.get("showlegend") for trace in data)
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


def _rgba(colour: str, alpha: float) -> str:
    red, green, blue = bytes.fromhex(colour[1:])
    return f"rgba({red},{green},{blue},{alpha:g})"


def _scatter(mode: str, x: Any, y: Any, label: str = "", **more: Any) -> dict[str, Any]:
    named = {"name": for_plotly(label), "showlegend": bool(label), "hoverinfo": "skip"}
    return {"type": "scatter", "mode": mode, "x": _numbers(x), "y": _numbers(y)} | named | more


def _line(trace: Line, theme: Theme) -> dict[str, Any]:
    style = {"color": theme.colour(trace.colour), "width": trace.width, "dash": trace.dash}
    drawn = _scatter("lines", trace.x, trace.y, trace.label, line=style)
    if trace.note:
        return drawn | {"text": for_plotly(trace.note), "hoverinfo": "x+y+text"}
    return drawn | ({"hoverinfo": "x+y+name"} if trace.label else {})


def _markers(trace: Markers, theme: Theme) -> dict[str, Any]:
    colour = theme.colours(trace.colour)
    is_hollow = trace.symbol in ("open", "cross")
    outline = colour if is_hollow else theme.background
    marker = {
        "color": colour,
        "size": trace.size,
        "symbol": SYMBOLS[trace.symbol],
        "line": {"color": outline, "width": 1.6 if is_hollow else 0.8},
    }
    drawn = _scatter("markers", trace.x, trace.y, trace.label, marker=marker, hoverinfo="all")
    if trace.notes:
        drawn |= {"text": [for_plotly(note) for note in trace.notes], "hoverinfo": "text"}
    if trace.errors:
        below, above = map(_numbers, trace.errors)
        drawn["error_y"] = {
            "type": "data",
            "array": above,
            "arrayminus": below,
            "color": colour if isinstance(colour, str) else theme.muted,
            "thickness": 1.2,
            "width": 3,
        }
    return drawn


def _band(trace: Band, theme: Theme) -> dict[str, Any]:
    """One closed outline, so that two bands never fill towards each other."""
    x, y = [*trace.x, *reversed(trace.x)], [*trace.hi, *reversed(trace.lo)]
    fill = _rgba(theme.colour(trace.colour), 0.16)
    return _scatter("lines", x, y, fill="toself", fillcolor=fill, line={"width": 0})


def _rule(rule: ReferenceLine, theme: Theme) -> dict[str, Any]:
    across, along = ("y", "x") if rule.y is None else ("x", "y")
    at = rule.x if rule.y is None else rule.y
    ends = {f"{along}0": at, f"{along}1": at, f"{across}0": 0, f"{across}1": 1}
    line = {"color": theme.muted, "width": 1.2, "dash": "dot"}
    return {"type": "line", "layer": "below", "line": line, f"{across}ref": "paper"} | ends


def _rule_label(
    rule: ReferenceLine, row: int, side: str, axes: tuple[Axis, Axis], theme: Theme
) -> dict[str, Any]:
    """At the top of a vertical line, at the right of a horizontal one."""
    at: dict[str, Any] = {"xref": "paper", "x": 1, "yanchor": "bottom", "xanchor": "right"}
    if rule.x is not None:
        at |= {"x": _position(rule.x, axes[0]), "xref": "x", "yref": "paper", "y": 1}
        at |= {"yanchor": "top", "yshift": -14 * row, "xshift": -3 if side == "left" else 3}
        at["xanchor"] = "right" if side == "left" else "left"
    elif rule.y is not None:
        at["y"] = _position(rule.y, axes[1])
    return _word(rule.label, "muted", theme) | at


def _word(text: str, colour: Colour, theme: Theme) -> dict[str, Any]:
    """An annotation; without a background, which would hide data."""
    return {
        "text": for_plotly(text),
        "showarrow": False,
        "borderpad": 1,
        "font": {"size": 11, "color": theme.colour(colour)},
    }


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
