"""A picture as frozen values: traces, axes and a caption, which matplotlib_backend draws.

A colour is an index into a colour-blind-safe palette (Okabe and Ito 2008, darkened to keep
contrast), a number in [0, 1] on an ordered scale (viridis), or "ink" / "muted".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

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
RAMP = (0.0, 0.75)  # of viridis: what contrasts with white


def to_hex(colour: Colour | Values) -> Any:
    """The hexadecimal value of a colour, or a list of those of several on the scale."""
    if isinstance(colour, str):
        return {"ink": INK, "muted": MUTED}[colour]
    if isinstance(colour, int):
        return PALETTE[colour % len(PALETTE)]
    from matplotlib import colormaps, colors

    shares = np.interp(np.asarray(colour, float), (0, 1), RAMP)
    names = [colors.to_hex(rgba) for rgba in np.atleast_2d(colormaps["viridis"](shares))]
    return names if shares.ndim else names[0]


@dataclass(frozen=True)
class Axis:
    """An axis in data units. `unit` chooses the tick labels: 300k for counts, 10¹⁸ for FLOPs, 2.5
    for numbers, ×2 for times; percent ends at 100.
    """

    label: str
    log: bool = False
    unit: Literal["number", "count", "flops", "times", "percent"] = "number"
    range: tuple[float, float] | None = None


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
    colour: Colour | Sequence[float] | np.ndarray = 0  # of all, or one on the scale for each
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
class ColorScale:
    """The ordered colour scale of a picture: colour 0.0 stands for `lo` and 1.0 for `hi`. One whose
    values stand in the picture `in_words` has no bar.
    """

    label: str
    lo: float
    hi: float
    unit: Literal["number", "count", "flops"] = "count"
    in_words: bool = False

    @classmethod
    def of(
        cls, values: Values, label: str = "parameters N", unit: Any = "count", **more: bool
    ) -> ColorScale:
        """The scale that reaches from the smallest to the largest of these values."""
        numbers = np.asarray(values, float)
        return cls(label, float(numbers.min()), float(numbers.max()), unit, **more)

    @property
    def has_bar(self) -> bool:
        """Whether a bar is drawn: not where there is nothing to tell apart."""
        return not self.in_words and self.hi > 1.02 * self.lo

    def at(self, value: Any) -> Any:
        """Where a value or an array of them lies on the logarithmic scale, in [0, 1]."""
        span = math.log(self.hi / self.lo)
        return np.log(np.asarray(value, float) / self.lo) / span if span > 0 else 0.5

    def value(self, colour: Any) -> Any:
        """The values that colours stand for, None for those that are not on the scale."""
        is_other = colour is None or isinstance(colour, (int, str))
        return None if is_other else self.lo * (self.hi / self.lo) ** np.asarray(colour)


@dataclass(frozen=True)
class Figure:
    """One picture. `name` is its file name; `caption` says in one or two sentences what to see."""

    name: str
    title: str
    caption: str
    x: Axis
    y: Axis
    traces: Sequence[Trace]
    ramp: ColorScale | None = None

    def to_csv(self) -> str:
        """All points, lines and words of the picture, one row each, under the name of their trace
        and with what their colour stands for.
        """
        scale = [self.ramp.label] if self.ramp else []
        rows: list[Sequence[object]] = [
            ["trace", "kind", self.x.label, self.y.label, "lo", "hi", *scale]
        ]
        for index, trace in enumerate(self.traces):
            field = vars(trace).get
            names = filter(None, map(field, ("label", "text", "name")))
            cells = [next(names, f"trace {index + 1}"), type(trace).__name__.lower()]
            cells += map(field, ("x", "y", "lo", "hi"))
            cells += [self.ramp.value(field("colour"))] if self.ramp else []
            columns = [np.atleast_1d(np.asarray(cell, object)) for cell in cells]
            rows += zip(*np.broadcast_arrays(*columns), strict=True)
        return csv_text(rows)
