"""A picture without a backend: traces, axes and a caption as frozen values that plotly and
matplotlib both draw.

A colour is an index into a colour-blind-safe palette (Okabe and Ito 2008, darkened or lightened to
keep contrast), a number in [0, 1] on an ordered scale (viridis), or "ink" / "muted". Each theme
gives them their hexadecimal value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Union

import numpy as np

from scaling.formatting import format_count
from scaling.render.escape import csv_text

Colour = Union[int, float, str]
Values = Union[Sequence[Union[float, None]], np.ndarray]
Dash = Literal["solid", "dash", "dot", "longdash", "dashdot", "longdashdot"]
Symbol = Literal[
    "circle", "open", "diamond", "cross", "star", "square", "up", "down", "plus", "x", "left"
]
# what tells colours apart in grey print: dashes, or symbols where dashes have a meaning
SERIES_DASHES: tuple[Dash, ...] = ("solid", "longdash", "dashdot", "longdashdot")
SERIES: tuple[Symbol, ...] = ("circle", "square", "up", "diamond", "down", "plus", "x", "left")
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Ends = tuple[float, float]
PAD = 0.04
RAMP = (0.0, 0.8)  # of viridis: what contrasts with white


@dataclass(frozen=True)
class Theme:
    """The colours of one mode; `lift` mixes white into the dark end of the ordered scale, so that a
    value has the same hue in both.
    """

    background: str
    ink: str
    muted: str
    grid: str
    palette: tuple[str, ...]
    lift: float

    def colour(self, colour: Colour | Values) -> Any:
        """The hexadecimal value of a colour, or a list of those of several on the scale."""
        if isinstance(colour, str):
            return getattr(self, colour)
        if isinstance(colour, int):
            return self.palette[colour % len(self.palette)]
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        shares = np.clip(np.asarray(colour, float), 0, 1)[..., None]
        rgb = np.asarray(colormaps["viridis"](np.interp(shares[..., 0], (0, 1), RAMP)))[..., :3]
        rgb = rgb + self.lift * (1 - shares) * (1 - rgb)
        return to_hex(rgb) if rgb.ndim == 1 else [to_hex(each) for each in rgb]


LIGHT = Theme(
    "#ffffff",
    "#1b1f24",
    "#6b7280",
    "#e7e9ee",
    ("#0072b2", "#d55e00", "#00805d", "#b0568a", "#a87400", "#5b3aa6", "#3c8fa0", "#7d1d1d"),
    0.0,
)
DARK = Theme(
    "#15181d",
    "#e8eaed",
    "#9aa2ae",
    "#2c313a",
    ("#56b4e9", "#ff8c42", "#2bc596", "#e39ac4", "#e9b949", "#a994f5", "#9fe3e8", "#e0685f"),
    0.45,
)


@dataclass(frozen=True)
class Axis:
    """An axis in data units. `unit` chooses the tick labels: 300k for counts, 10¹⁸ for FLOPs, 2.5
    for numbers, ×2 for times; percent ends at 100.
    """

    label: str
    log: bool = False
    unit: Literal["number", "count", "flops", "times", "percent"] = "number"
    range: Ends | None = None

    def share(self, value: float, ends: Ends) -> float:
        """How far a value lies between the ends, in [0, 1]."""
        low, high = ends
        if self.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    def at(self, share: float, ends: Ends) -> float:
        """The value there."""
        low, high = ends
        return low * (high / low) ** share if self.log else low + share * (high - low)


@dataclass(frozen=True)
class Line:
    """A curve; without a label it stays out of the legend."""

    x: Values
    y: Values
    label: str = ""
    colour: Colour = 0
    dash: Dash = "solid"
    width: float = 2.0
    note: str = ""
    mark: Symbol | None = None  # at some places of it


@dataclass(frozen=True)
class Markers:
    """Points, with optional intervals [lo, hi] along y and one note a point (shown on hover)."""

    x: Values
    y: Values
    label: str = ""
    colour: Colour | Sequence[float] | np.ndarray = 0  # of all, or one on the scale for each
    symbol: Symbol = "circle"
    size: float = 7.0
    lo: Values | None = None
    hi: Values | None = None
    notes: Sequence[str] = ()
    name: str = ""  # in files, where there is no label
    mark: Symbol | None = None  # instead of the circle or ring

    @property
    def errors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """How far the intervals reach below and above y."""
        if self.lo is None or self.hi is None:
            return None
        lo, y, hi = (np.asarray(values, float) for values in (self.lo, self.y, self.hi))
        return y - lo, hi - y


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
    """A word in the picture, anchored at its left, centre or right and its top, ... or bottom."""

    x: float
    y: float
    text: str
    colour: Colour = "muted"
    anchor: Literal["left", "center", "right"] = "center"
    edge: Literal["top", "center", "bottom"] = "center"


Drawn = Union[Line, Markers, Band, Text]
Trace = Union[Drawn, ReferenceLine]


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
    size: Literal["half", "wide"] = "half"

    def limits(self, letter: float = 0.016) -> tuple[Ends, Ends]:
        """The ranges of x and y: as asked, or those of the data with a margin. No word at a log
        axis is cut; `letter` is the width of one, as a share of the x axis.
        """
        low, high = _limits(self.x, self.traces, "x")
        for trace in self.traces:
            if isinstance(trace, Text) and self.x.log:
                more = 1 / max(0.5, 1 - letter * (len(trace.text) + 1))
                if trace.anchor == "left":
                    high = max(high, low * (trace.x / low) ** more)
                elif trace.anchor == "right":
                    low = min(low, high / (high / trace.x) ** more)
        return (low, high), _limits(self.y, self.traces, "y", "lo", "hi")

    def drawn(self, letter: float = 0.016) -> list[Drawn]:
        """The traces with all that the other ones decide: colours distinguished by dashes or
        symbols too, reference lines as lines across the picture with their labels, those of
        vertical ones in rows from the top, each on the side that has place.
        """
        marks, dashes = self._series()
        (across, up), drawn, labels = self.limits(letter), list[Drawn](), list[Text]()
        for trace in self.traces:
            if isinstance(trace, ReferenceLine):
                share = 1.0 if trace.x is None else self.x.share(trace.x, across)
                x = across if trace.x is None else (trace.x, trace.x)
                y = up if trace.y is None else (trace.y, trace.y)
                drawn.append(Line(x, y, "", "muted", "dot", 1.2))
                is_left = share > min(0.5, letter * len(trace.label))
                place = self.x.at(share + (-0.008 if is_left else 0.008), across)
                top = y[1] if trace.x is None else self.y.at(0.99 - 0.06 * len(labels), up)
                word = Text(place, top, trace.label, anchor="right" if is_left else "left")
                labels.append(replace(word, edge="bottom" if trace.x is None else "top"))
            elif isinstance(trace, Line) and isinstance(trace.colour, int) and dashes:
                drawn.append(replace(trace, dash=dashes[trace.colour]))
            elif (
                isinstance(trace, (Line, Markers))
                and isinstance(trace.colour, int)
                and getattr(trace, "symbol", "") not in ("cross", "star")
            ):
                drawn.append(replace(trace, mark=marks.get(trace.colour)))
            else:
                drawn.append(trace)
        return [*drawn, *(label for label in labels if label.text)]

    def _series(self) -> tuple[dict[int, Symbol], dict[int, Dash]]:
        """What tells several colours apart in grey print: the marks of each, and the dashes of
        each, where these have no meaning and suffice.
        """
        lines = [t for t in self.traces if isinstance(t, Line) and isinstance(t.colour, int)]
        signs = [t for t in self.traces if isinstance(t, Markers) and t.symbol == "diamond"]
        all_colours = [line.colour for line in lines] + [sign.colour for sign in signs]
        colours = sorted({colour for colour in all_colours if isinstance(colour, int)})
        if len(colours) < 2:
            return {}, {}
        marks = {colour: SERIES[index % len(SERIES)] for index, colour in enumerate(colours)}
        is_free = all(line.dash == "solid" for line in lines) and len(colours) <= len(SERIES_DASHES)
        return marks, dict(zip(colours, SERIES_DASHES, strict=False)) if is_free else {}

    def to_csv(self) -> str:
        """All points, lines and words of the picture, one row each, under the name of their trace
        and with what their colour stands for.
        """
        scale = [self.ramp.label] if self.ramp else []
        rows: list[Sequence[object]] = [
            ["trace", "kind", self.x.label, self.y.label, "lo", "hi", *scale, "note"]
        ]
        for index, trace in enumerate(self.traces):
            field = vars(trace).get
            names = filter(None, map(field, ("label", "text", "name", "note")))
            cells = [next(names, f"trace {index + 1}"), type(trace).__name__.lower()]
            cells += map(field, ("x", "y", "lo", "hi"))
            cells += [self.ramp.value(field("colour"))] if self.ramp else []
            columns = [np.atleast_1d(np.asarray(cell, object)) for cell in cells]
            notes = np.asarray(field("notes") or [field("note", "")], object)
            rows += zip(*np.broadcast_arrays(*columns, notes), strict=True)
        return csv_text(rows)


def _limits(axis: Axis, traces: Sequence[Trace], *names: str) -> Ends:
    if axis.range is not None:
        return axis.range
    columns = [getattr(trace, name, None) for trace in traces for name in names]
    arrays = [np.ravel(np.asarray(column, float)) for column in columns]
    values = np.concatenate([np.empty(0), *arrays])
    kept = values[np.isfinite(values) & ((values > 0) | (not axis.log))]
    low, high = (float(kept.min()), float(kept.max())) if len(kept) else (1.0, 10.0)
    if axis.log:
        margin = PAD * math.log(high / low) or 0.1
        return low * math.exp(-margin), high * math.exp(margin)
    margin = PAD * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def ticks(
    low: float, high: float, log: bool, unit: str = "number", most: int = 8
) -> tuple[list[float], list[str]]:
    """Few, round ticks inside [low, high] and their labels, at most `most` of them. On a log axis
    the first of decades, 1-3, 1-2-5, finer steps and every second, third ... decade that puts at
    least three into sight.
    """
    values = [low]  # where all that is shown has one value
    if unit == "times":
        values = [2.0**e for e in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    elif high > low:
        values = _linear(low, high, min(4, most - 1))
    if unit == "percent":
        values = [value for value in values if value <= 100]
    elif log and high > low and unit != "times":
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = [(1, mantissas) for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 6, 8))]
        steps += [(step, (1,)) for step in range(2, len(exponents))]
        sets = [
            [m * 10.0**e for e in exponents if e % step == 0 for m in mantissas]
            for step, mantissas in steps
        ]
        sets = [[mark for mark in marks if low <= mark <= high] for marks in sets]
        if high < 10 * low:  # then even steps are no worse
            sets[3 if high < 4 * low else 4 : 4] = [values, values[::2]]
        few = [marks for marks in sets if len(marks) <= most]
        values = next((marks for marks in few if len(marks) >= 3), max(few, key=len, default=[low]))
    return values, [_tick_label(value, unit) for value in values]


def _linear(low: float, high: float, count: int = 4) -> list[float]:
    """Multiples of the largest of 1, 2, 5 x 10^k that leaves `count` of them in sight."""
    power = 10.0 ** math.floor(math.log10(high - low))
    for step in (m * power / scale for scale in (1, 10, 100) for m in (5, 2, 1)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 >= count:
            break
    return [round(k * step, 15) for k in range(first, last + 1)]


def _tick_label(value: float, unit: str) -> str:
    """300k, 10¹⁸, ×2, 2.5."""
    if unit == "count" and 1 <= abs(value) < 1e15:
        return format_count(value)
    if unit == "times":
        return f"×{value:.4g}"
    if unit in ("number", "percent") or value <= 0:
        return f"{value:.4g}".replace("-", "−")
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = f"{value / 10.0**exponent:.3g}"
    power = "10" + str(exponent).translate(_SUPERSCRIPT)
    return power if mantissa == "1" else f"{mantissa}×{power}"
