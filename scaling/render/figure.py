"""A picture as frozen values: traces, axes and a caption, which matplotlib_backend draws.

A colour is an index into a colour-blind-safe palette (an int; Okabe and Ito 2008, darkened to keep
contrast), a value on the figure's ordered scale (a float, or an array of one for each point), or
"ink" / "muted".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Union

import numpy as np

from scaling.render.escape import csv_text

Colour = Union[int, float, str]
Values = Union[Sequence[Union[float, None]], np.ndarray]
Dash = Literal["solid", "dash", "dot"]
Symbol = Literal["circle", "open", "diamond", "cross", "star"]
INK, MUTED = "#1b1f24", "#6b7280"
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#00805d",
    "#b0568a",
    "#a87400",
    "#5b3aa6",
    "#3c8fa0",
    "#7d1d1d",
)


@dataclass(frozen=True)
class Axis:
    """An axis in data units. `unit` chooses the tick labels: 300k for counts, 10¹⁸ for FLOPs, 2.5
    for numbers, ×2 for times; percent ends at 100.
    """

    label: str
    log: bool = False
    unit: Literal["number", "count", "flops", "times", "percent"] = "number"
    range: tuple[float, float] | None = None


SIZES = Axis("parameters N", log=True, unit="count")


@dataclass(frozen=True)
class Line:
    """A curve; without a label it stays out of the legend, and `name` is what files call it."""

    x: Values
    y: Values
    label: str = ""
    colour: Colour = 0
    dash: Dash = "solid"
    width: float = 2.0
    name: str = ""


@dataclass(frozen=True)
class Markers:
    """Points, with optional intervals [lo, hi] along y."""

    x: Values
    y: Values
    label: str = ""
    colour: Colour | Sequence[float] | np.ndarray = 0  # of all, or a value of each
    symbol: Symbol = "circle"
    size: float = 7.0
    lo: Values | None = None
    hi: Values | None = None
    name: str = ""  # in files, where there is no label


@dataclass(frozen=True)
class Band:
    """The area between two curves."""

    x: Values
    lo: Values
    hi: Values
    colour: Colour = 0
    name: str = ""


@dataclass(frozen=True)
class ReferenceLine:
    """A thin line across the picture at one x or one y."""

    x: float | None = None
    y: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Text:
    """A word in the picture, anchored at its left, centre or right."""

    x: float
    y: float
    text: str
    colour: Colour = "muted"
    anchor: Literal["left", "center", "right"] = "center"


Trace = Union[Line, Markers, Band, Text, ReferenceLine]


@dataclass(frozen=True)
class Figure:
    """One picture. `name` is its file name; `caption` says in one or two sentences what to see;
    `scale` is the logarithmic axis of colours that are values.
    """

    name: str
    title: str
    caption: str
    x: Axis
    y: Axis
    traces: Sequence[Trace]
    scale: Axis | None = None

    def to_csv(self) -> str:
        """All points, lines and words of the picture, one row each, under the name of their trace
        and with what their colour stands for.
        """
        rows: list[Sequence[object]] = [
            ["trace", "kind", self.x.label, self.y.label, "lo", "hi"]
            + ([self.scale.label] if self.scale else [])
        ]
        for index, trace in enumerate(self.traces):
            field = vars(trace).get
            names = filter(None, map(field, ("label", "text", "name")))
            cells = [next(names, f"trace {index + 1}"), type(trace).__name__.lower()]
            cells += map(field, ("x", "y", "lo", "hi"))
            if self.scale:
                colour = field("colour")
                cells.append(None if isinstance(colour, (int, str)) else colour)
            columns = [np.atleast_1d(np.asarray(cell, object)) for cell in cells]
            rows += zip(*np.broadcast_arrays(*columns), strict=True)
        return csv_text(rows)
