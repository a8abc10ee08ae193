"""A Figure by matplotlib: on axes of yours, or as SVG, PDF or PNG with the same bytes every time.

The style `screen` is that of the page; `paper` is for a journal: letters stay text (TrueType, SVG
text), 9 points, 300 dots per inch, one width. paper.mplstyle holds the latter for figures of your
own: `plt.style.use("scaling.render.paper")`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any, BinaryIO, Literal

import numpy as np

from scaling.formatting import format_count
from scaling.render.escape import sanitize
from scaling.render.figure import (
    INK,
    MUTED,
    PALETTE,
    Axis,
    Band,
    Figure,
    Line,
    Markers,
    ReferenceLine,
    Text,
)

UNDATED: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
DASHES: Any = {"solid": "-", "dash": (0, (5, 3)), "dot": (0, (1.2, 2))}
NAMED = {"ink": INK, "muted": MUTED}
DARKEST_TO = 0.75  # of viridis
SYMBOLS = {"circle": "o", "open": "o", "diamond": "D", "cross": "x", "star": "*"}
# what tells series apart in grey print: dashes, or marks where dashes have a meaning
SERIES_DASHES: Any = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1.5, 1)))
SERIES_MARKS = "os^DvPX<"
TICK = {"x": 0.45, "y": 0.3}  # inches that one needs
LETTER_WIDTH, LINE_HEIGHT = 0.065, 0.12  # inches
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LOG_STEPS = ((1, (1, 2, 5)), (1, (1, 3)), *((step, (1,)) for step in (1, 2, 3, 5, 10, 20)))
WIDTHS = {"screen": 5.0, "paper": 3.25}  # inches
RATIO = 0.72  # of height to width
SCREEN_STYLE = Path(__file__).parent / "screen.mplstyle"
PAPER_STYLE = SCREEN_STYLE.with_name("paper.mplstyle")


@dataclass(frozen=True)
class Style:
    """How figures are written as files; `width` in inches replaces that of the style."""

    name: Literal["screen", "paper"] = "screen"
    width: float | None = None

    @property
    def settings(self) -> Any:
        """The settings of matplotlib."""
        from matplotlib import rc_params_from_file

        styles = (SCREEN_STYLE, PAPER_STYLE) if self.name == "paper" else (SCREEN_STYLE,)
        read = [rc_params_from_file(style, use_default_template=False) for style in styles]
        return {name: value for style in read for name, value in style.items()}


SCREEN = Style()


def draw(figure: Figure, style: Style = SCREEN) -> Any:
    """The picture on a canvas of its own, its legend below: no display, no global state."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(style.settings):
        width = style.width or WIDTHS[style.name]
        canvas = Canvas(figsize=(width, RATIO * width))
        handles, labels = _draw_all(canvas.add_subplot(), figure)
        if handles:
            wrapped = [fill(label, int((width - 0.6) / LETTER_WIDTH)) for label in labels]
            longest = 0.6 + LETTER_WIDTH * max(map(len, wrapped))
            columns = max(1, min(4, int(width / longest)))
            rows = sum(label.count("\n") for label in wrapped) + -(-len(labels) // columns)
            canvas.set_figheight(RATIO * width + 0.18 * (rows - 1))  # the axes keep their height
            canvas.legend(handles, wrapped, loc="outside lower center", ncols=columns)
    return canvas


def draw_on(axes: Any, figure: Figure) -> Any:
    """The picture on axes, which are returned, with its legend where it covers least."""
    handles, labels = _draw_all(axes, figure)
    if handles:
        short = [label.partition(" (")[0] for label in labels]
        legend = axes.legend(handles, short, loc="best", fontsize="x-small", frameon=False)
        legend.set_in_layout(False)
    return axes


def save(canvas: Any, kind: str, path: Path | BinaryIO, style: Style = SCREEN) -> None:
    """Write a canvas as `svg`, `pdf` or `png`, without a date."""
    import matplotlib

    with matplotlib.rc_context(style.settings):
        canvas.savefig(path, format=kind, metadata=UNDATED[kind])


def to_svg(figure: Figure) -> str:
    """The picture as the text of an SVG file."""
    with io.BytesIO() as written:
        save(draw(figure), "svg", written)
        return written.getvalue().decode()


def _draw_all(axes: Any, figure: Figure) -> Any:
    """Draw everything but the legend, and return what stands in it."""
    dimensions = {"x": figure.x, "y": figure.y}
    for name, axis in dimensions.items():
        axes.set(**{f"{name}scale": "log" if axis.log else "linear"})
    scale = colour_scale(figure)
    _draw_traces(axes, figure, scale)
    box = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted())
    words = [trace.text for trace in figure.traces if isinstance(trace, Text)]
    if words:  # room for those at the ends
        share = LETTER_WIDTH * max(map(len, words)) / box.width
        axes.margins(x=share / (1 - 2 * share) if share < 0.4 else 0.1)
    for (name, axis), inches in zip(dimensions.items(), (box.width, box.height), strict=True):
        if axis.range is not None:
            axes.set(**{f"{name}lim": axis.range})
        lines = getattr(axes, f"{name}axis")
        low, high = lines.get_view_interval()
        values, labels = ticks(low, high, axis, max(3, int(inches / TICK[name])))
        lines.set_ticks(values, labels)
        lines.set_ticks([], minor=True)
        letters = max(12, int(inches / LETTER_WIDTH))
        lines.set_label_text(fill(sanitize(axis.label), letters))
    _spread(axes, words, box.width, box.height)
    low, high = scale.get_clim()
    if figure.scale and not words and high > 1.02 * low:
        bar = axes.figure.colorbar(scale, ax=axes, pad=0.015, aspect=32)
        values, labels = ticks(low, high, replace(figure.scale, log=True), 8)
        bar.set_ticks(values, labels=labels)
        bar.minorticks_off()
        bar.set_label(fill(sanitize(figure.scale.label), 40))
        bar.outline.set_visible(False)
    return axes.get_legend_handles_labels()


def _spread(axes: Any, words: Sequence[str], width: float, height: float) -> None:
    """Move words below those that they would cover, on axes of this size in inches."""
    to_share = axes.transData - axes.transAxes
    texts = [text for text in axes.texts if text.get_text() in words]
    placed = list[tuple[float, float, float]]()
    for text in sorted(texts, key=lambda text: -text.get_position()[1]):
        x, y = to_share.transform(text.get_position())
        end = x + LETTER_WIDTH * len(text.get_text()) / width
        for left, right, above in placed:
            if x < right and left < end:
                y = min(y, above - LINE_HEIGHT / height)
        placed.append((x, end, y))
        text.set_position(to_share.inverted().transform((x, y)))


def colour_scale(figure: Figure) -> Any:
    """The part of viridis that contrasts with white, over the values that colours stand for."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm

    colours = [getattr(trace, "colour", 0) for trace in figure.traces]
    values = [np.ravel(colour) for colour in colours if not isinstance(colour, (int, str))]
    ends = np.concatenate(values or [np.ones(1)]).astype(float)
    colormap = ListedColormap(colormaps["viridis"](np.linspace(0, DARKEST_TO, 256)))
    return ScalarMappable(LogNorm(ends.min(), ends.max()), colormap)


def _series_looks(figure: Figure) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What tells the colours of series apart in grey print: of their lines, and of their points."""
    lines = [t for t in figure.traces if isinstance(t, Line) and isinstance(t.colour, int)]
    named = [t.colour for t in figure.traces if isinstance(t, Markers) and t.symbol == "diamond"]
    named += [line.colour for line in lines]
    colours = sorted({colour for colour in named if isinstance(colour, int)})
    if len(colours) < 2:
        return {}, {}
    marks = {c: {"marker": SERIES_MARKS[i % len(SERIES_MARKS)]} for i, c in enumerate(colours)}
    if all(line.dash == "solid" for line in lines) and len(colours) <= len(SERIES_DASHES):
        return {c: {"linestyle": SERIES_DASHES[i]} for i, c in enumerate(colours)}, marks
    return {c: {**mark, "markersize": 4, "markevery": 0.3} for c, mark in marks.items()}, marks


def _draw_traces(axes: Any, figure: Figure, scale: Any) -> None:
    """All traces, each over those before it."""
    line_looks, marker_looks = _series_looks(figure)
    for order, trace in enumerate(figure.traces):
        style: dict[str, Any] = {"zorder": 2 + 0.01 * order}
        word = {"fontsize": "small", "in_layout": False}
        colour: Any = getattr(trace, "colour", "muted")
        series = colour if isinstance(colour, int) else None
        if series is not None:
            colour = PALETTE[series % len(PALETTE)]
        else:
            colour = NAMED[colour] if isinstance(colour, str) else scale.to_rgba(colour)
        if isinstance(trace, (Line, Markers)) and trace.label:
            label = sanitize(trace.label)  # matplotlib hides labels that begin with an underscore
            style["label"] = f" {label}" if label.startswith("_") else label
        match trace:
            case Line():
                style |= {"color": colour, "linestyle": DASHES[trace.dash]}
                style |= line_looks.get(series, {})
                xy = np.asarray((trace.x, trace.y), float)
                axes.plot(*xy, linewidth=trace.width * 0.8, **style)
            case Markers():
                _draw_markers(axes, trace, colour, style, marker_looks.get(series, {}))
            case Band():
                style |= {"color": colour, "alpha": 0.16, "linewidth": 0}
                axes.fill_between(trace.x, trace.lo, trace.hi, **style)
            case Text():
                style |= {**word, "ha": trace.anchor, "va": "center", "color": colour}
                axes.text(trace.x, trace.y, sanitize(trace.text), **style)
            case ReferenceLine():
                style |= {"color": MUTED, "linestyle": DASHES["dot"], "linewidth": 1}
                word |= {"color": MUTED, "zorder": 5, "ha": "right"}
                if trace.x is not None:
                    axes.axvline(trace.x, **style)
                    word |= {"transform": axes.get_xaxis_transform(), "rotation": 90, "va": "top"}
                    axes.text(trace.x, 0.98, sanitize(trace.label), **word)
                elif trace.y is not None:
                    axes.axhline(trace.y, **style)
                    word |= {"transform": axes.get_yaxis_transform(), "va": "bottom"}
                    axes.text(0.99, trace.y, sanitize(trace.label), **word)


def _draw_markers(
    axes: Any, trace: Markers, colour: Any, style: dict[str, Any], series_look: dict[str, Any]
) -> None:
    if trace.lo is not None and trace.hi is not None:
        lo, y, hi = (np.asarray(values, float) for values in (trace.lo, trace.y, trace.hi))
        bars = {"ecolor": colour if np.ndim(colour) < 2 else MUTED, "zorder": style["zorder"]}
        axes.errorbar(trace.x, y, (y - lo, hi - y), fmt="none", capsize=2, elinewidth=1, **bars)
    is_hollow = trace.symbol in ("open", "cross")
    face, edge = ("none", colour) if is_hollow else (colour, "white")
    looks = {"facecolors": face, "edgecolors": edge}
    style |= {"color": colour} if trace.symbol == "cross" else looks
    style |= {"marker": SYMBOLS[trace.symbol]}
    style |= series_look if trace.symbol not in ("cross", "star") else {}
    style |= {"s": (trace.size * 0.75) ** 2, "linewidths": 1.2 if is_hollow else 0.5}
    axes.scatter(trace.x, trace.y, **style)


def ticks(low: float, high: float, axis: Axis, most: int) -> tuple[list[float], list[str]]:
    """Round ticks inside [low, high], at most about `most` of them, and their labels."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    values: list[float] = []
    if axis.unit == "times":
        values = list(LogLocator(2.0).tick_values(low, high))
    elif axis.log and high >= 10 * low:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        most = max(3, most // 2) if axis.unit == "flops" else most  # its labels are wide
        for step, mantissas in LOG_STEPS:
            values = [m * 10.0**e for e in exponents if e % step == 0 for m in mantissas]
            if sum(low <= value <= high for value in values) <= most:
                break
    else:
        values = list(MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high))
    top = min(high, 100.0) if axis.unit == "percent" else high
    values = [float(value) for value in values if low <= value <= top]
    return values, [_tick_label(value, axis.unit) for value in values]


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
    power = "10" + str(exponent).translate(SUPERSCRIPT)
    return power if mantissa == "1" else f"{mantissa}×{power}"
