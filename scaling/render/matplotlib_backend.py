"""A Figure by matplotlib: on axes of yours, or as SVG, PDF or PNG with the same bytes every time.

The style `screen` is that of the files that a report links; `paper` is for a journal: letters stay
text (TrueType, SVG text), 9 points, 300 dots per inch, one width. paper.mplstyle holds the latter
for figures of your own: `plt.style.use("scaling.render.paper")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import numpy as np

from scaling.render.escape import sanitize
from scaling.render.figure import (
    LIGHT,
    Band,
    ColorScale,
    Figure,
    Line,
    Markers,
    ReferenceLine,
    Text,
    Trace,
    ticks,
)

UNDATED: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
SIZES = {"half": (4.4, 3.3), "wide": (6.8, 4.4)}  # inches; letters stay readable in a column
DASHES: Any = {"solid": "-", "dash": (0, (5, 3)), "dot": (0, (1.2, 2))}
SYMBOLS = {"circle": "o", "open": "o", "diamond": "D", "cross": "x", "star": "*"}
# what tells colours apart in grey print: dashes, or markers where dashes have a meaning
SERIES = "os^DvPX<"
SERIES_DASHES: Any = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1.5, 1)))
LETTER = 0.6  # width of one, in font sizes
WORD: Any = {"fontsize": "small", "zorder": 5, "in_layout": False}
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

    def size(self, figure: Figure) -> tuple[float, float]:
        """Width and height in inches."""
        width, height = SIZES[figure.size]
        wanted = self.width or (3.25 if self.name == "paper" else width)
        return wanted, max(height * wanted / width, 0.72 * wanted)


SCREEN = Style()


def draw(figure: Figure, style: Style = SCREEN) -> Any:
    """The picture on a canvas of its own: no display, no global state."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(style.settings):
        canvas = Canvas(figsize=style.size(figure))
        draw_on(canvas.add_subplot(), figure, below=True)
    return canvas


def draw_on(axes: Any, figure: Figure, below: bool = False) -> Any:
    """The picture on axes, which are returned; with `below` its legend stands below the axes, and
    the canvas grows by its rows.
    """
    box = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted())
    inches = np.array([box.width, box.height])
    if not below:  # what the labels, and a bar, will leave of them
        inches = inches * 0.85 - [0.4 if figure.ramp and figure.ramp.has_bar else 0.0, 0.0]
    letter = LETTER * _points("small") / 72 / inches[0]
    limits = figure.limits(letter)
    drawn = zip("xy", (figure.x, figure.y), limits, inches, (0.45, 0.3), strict=True)
    for name, axis, ends, length, apart in drawn:
        axes.set(**{f"{name}scale": "log" if axis.log else "linear", f"{name}lim": ends})
        lines = getattr(axes, f"{name}axis")
        lines.set_ticks(*ticks(*ends, axis.log, axis.unit, max(3, int(length / apart))))
        lines.set_ticks([], minor=True)
        _name(lines, axis.label, length)
    series = _series(figure)
    for order, trace in enumerate(figure.traces):
        _draw(axes, trace, 2 + 0.01 * order, series)
    for line, row, side in figure.reference_labels(letter):
        fits = 72 * inches[0] * 0.55 / (LETTER * len(line.label))
        _label(axes, line, row, side, min(_points("small"), max(5.0, fits)))
    if below:
        _legend_below(axes)
    elif axes.get_legend_handles_labels()[0]:
        _legend_inside(axes, figure, *inches)
    if figure.ramp and figure.ramp.has_bar:
        _colour_bar(axes, figure.ramp, inches[1])
    return axes


def save(canvas: Any, kind: str, path: Path, style: Style = SCREEN) -> None:
    """Write a canvas as `svg`, `pdf` or `png`, without a date."""
    import matplotlib
    from matplotlib.patheffects import Normal
    from matplotlib.text import Text as Letters

    # for the screen, letters are outlines: subsetting a font takes longer than all the rest
    outlined = canvas.findobj(Letters) if kind == "pdf" and style.name == "screen" else []
    with matplotlib.rc_context(style.settings):
        for text in outlined:
            text.set_path_effects([Normal()])
        canvas.savefig(path, format=kind, metadata=UNDATED[kind])
    for text in outlined:
        text.set_path_effects(None)


def _wrapped(text: str, inches: float, size: float) -> str:
    """Text in lines of so many inches; longer lines would be cut or squeeze the axes."""
    letters = max(12, int(inches / (0.0076 * size)))
    lines = [text] if len(text) <= letters else text.replace(" (", "\n(").split("\n")
    return "\n".join(fill(sanitize(line), letters) for line in lines)


def _points(size: Any) -> float:
    """A font size in points."""
    from matplotlib.font_manager import FontProperties

    return float(FontProperties(size=size).get_size_in_points())


def _name(axis: Any, text: str, inches: float) -> None:
    """The label of an axis: a little smaller where that keeps it in one line, else in several."""
    size = axis.label.get_size()
    size = min(size, max(0.8 * size, 72 * inches / (0.55 * len(text))))
    axis.set_label_text(_wrapped(text, inches, size), fontsize=size)


def _legend_inside(axes: Any, figure: Figure, width: float, height: float) -> None:
    """Small, in the freest corner; the y axis grows where none is free. The layout of the canvas
    does not make way for it.
    """
    from matplotlib import rcParams

    lines = [trace for trace in figure.traces if isinstance(trace, Line) and trace.label]
    explained = {line.label for line in lines if isinstance(line.colour, float)}  # by words
    explained |= {
        trace.label
        for trace in figure.traces
        if isinstance(trace, Markers) and isinstance(trace.colour, int) and trace.symbol != "star"
        if trace.colour in [line.colour for line in lines]
    }
    pairs = zip(*axes.get_legend_handles_labels(), strict=True)
    shown = [(handle, label) for handle, label in pairs if label not in explained]
    labels = [label.partition(" (")[0] for _, label in shown]
    letters = LETTER * max(map(len, labels), default=0) + 2.6
    size = min(_points(rcParams["legend.fontsize"]), max(5.0, 68 * width / letters))
    width, height = (letters * size / 72 / width, (1.25 * len(labels) + 0.8) * size / 72 / height)
    free = 1 - min(0.6, height)
    u, v = axes.transAxes.inverted().transform(axes.transData.transform(_outline(figure))).T
    in_sight = (v >= 0) & (v <= 1) & (u >= 0) & (u <= 1)
    corners = []
    for side, near in (("left", u <= width), ("right", u >= 1 - width)):
        taken = v[near & in_sight]
        has_label = any(
            (t.x and width > 0.5) or at == side for t, _, at in figure.reference_labels()
        )
        corners.append((2.0 if has_label else taken.max(initial=0.0), "upper", side))
        corners.append((1 - taken.min(initial=1.0), "lower", side))
    reach, end, side = min(corners)
    low, high = axes.transScale.transform([(1.0, y) for y in axes.get_ylim()])[:, 1]
    span = (high - low) * max(1.0, reach / free)
    ends = (low, low + span) if end == "upper" else (high - span, high)
    axes.set_ylim(axes.transScale.inverted().transform([(0.0, y) for y in ends])[:, 1])
    place = {"loc": f"{end} {side}", "fontsize": size, "frameon": False, "handlelength": 1.6}
    legend = axes.legend([handle for handle, _ in shown], labels, **place)
    legend.set_in_layout(False)


def _outline(figure: Figure) -> np.ndarray:
    """Places (k, 2) along all that is drawn but reference lines."""
    places = [np.empty((0, 2))]
    for trace in figure.traces:
        for name in () if isinstance(trace, ReferenceLine) else ("y", "lo", "hi"):
            y: Any = getattr(trace, name, None)
            if y is not None:
                x: Any = trace.x
                place = np.column_stack((np.atleast_1d(x), np.atleast_1d(y))).astype(float)
                at = np.linspace(0, len(place) - 1, max(60, len(place)))
                if isinstance(trace, (Line, Band)):
                    place = np.column_stack(
                        [np.interp(at, np.arange(len(place)), column) for column in place.T]
                    )
                places.append(place)
    return np.concatenate(places)


def _legend_below(axes: Any) -> None:
    """In as many columns as its longest word leaves; the axes keep their height."""
    from matplotlib import rcParams

    canvas, (handles, labels) = axes.figure, axes.get_legend_handles_labels()
    if not handles:
        return
    width = canvas.get_figwidth()
    size = _points(rcParams["legend.fontsize"])
    labels = [_wrapped(label, width - 0.5, size) for label in labels]
    columns = max(1, min(4, int(width / (0.5 + 0.072 * max(map(len, labels))))))
    rows = sum(label.count("\n") for label in labels) + -(-len(labels) // columns)
    canvas.set_figheight(canvas.get_figheight() + 0.18 * (rows - 1))
    spacing = {"ncols": columns, "columnspacing": 1.2, "handlelength": 1.8}
    canvas.legend(handles, labels, loc="outside lower center", **spacing)


def _series(figure: Figure) -> dict[Any, dict[str, Any]]:
    """The style of the lines of each of several colours, for grey print: dashes, or markers where
    dashes have a meaning.
    """
    lines = [t for t in figure.traces if isinstance(t, Line) and isinstance(t.colour, int)]
    signs = [t for t in figure.traces if isinstance(t, Markers) and t.symbol == "diamond"]
    all_colours = [line.colour for line in lines] + [sign.colour for sign in signs]
    colours = sorted({colour for colour in all_colours if isinstance(colour, int)})
    solid = all(line.dash == "solid" for line in lines)
    if len(colours) < 2:
        return {}
    if solid and len(colours) <= len(SERIES_DASHES):
        return {c: {"linestyle": d} for c, d in zip(colours, SERIES_DASHES, strict=False)}
    return {
        colour: {
            "marker": SERIES[index % len(SERIES)],
            "markersize": 4,
            "markevery": (0.05 * (1 + index % 6), 0.35),
        }
        for index, colour in enumerate(colours)
    }


def _draw(axes: Any, trace: Trace, order: float, series: Mapping[Any, Any]) -> None:
    style: dict[str, Any] = {"zorder": order}
    if isinstance(trace, (Line, Markers)) and trace.label:
        label = sanitize(trace.label)  # matplotlib hides labels that begin with an underscore
        style["label"] = f" {label}" if label.startswith("_") else label
    match trace:
        case Line():
            style |= {"color": LIGHT.colour(trace.colour), "linestyle": DASHES[trace.dash]}
            style |= series.get(trace.colour, {})
            axes.plot(*np.asarray((trace.x, trace.y), float), linewidth=trace.width * 0.8, **style)
        case Markers():
            is_series = isinstance(trace.colour, int) and trace.symbol not in ("cross", "star")
            of_series = is_series and series.get(trace.colour)
            symbol = SERIES[list(series).index(trace.colour) % len(SERIES)] if of_series else None
            _markers(axes, trace, style, symbol)
        case Band():
            style |= {"color": LIGHT.colour(trace.colour), "alpha": 0.16, "linewidth": 0}
            axes.fill_between(trace.x, trace.lo, trace.hi, **style)
        case ReferenceLine():
            style |= {"color": LIGHT.muted, "linewidth": 0.9, "linestyle": DASHES["dot"]}
            if trace.x is not None:
                axes.axvline(trace.x, **style)
            else:
                axes.axhline(trace.y, **style)
        case Text():
            word = {"ha": trace.anchor, "va": "center", "color": LIGHT.colour(trace.colour)}
            axes.text(trace.x, trace.y, sanitize(trace.text), **word, **WORD)


def _label(axes: Any, line: ReferenceLine, row: int, side: str, size: float) -> None:
    """At the top of a vertical line, above the right end of a horizontal one."""
    word: dict[str, Any] = {"xy": (1, line.y), "xycoords": ("axes fraction", "data")}
    word |= {"xytext": (-2, 2), "va": "bottom", "ha": "right"}
    if line.x is not None:
        word |= {"xy": (line.x, 1), "xycoords": ("data", "axes fraction"), "va": "top"}
        word["xytext"] = (-3 if side == "left" else 3, -2 - 1.2 * row * size)
        word["ha"] = "right" if side == "left" else "left"
    word |= {"textcoords": "offset points", "color": LIGHT.muted}
    axes.annotate(sanitize(line.label), **word, **WORD | {"fontsize": size})


def _markers(axes: Any, trace: Markers, style: dict[str, Any], symbol: str | None) -> None:
    colour = LIGHT.colours(trace.colour)
    is_hollow = trace.symbol in ("open", "cross")
    if trace.errors:
        bars = {"ecolor": colour if isinstance(colour, str) else LIGHT.muted, "elinewidth": 1}
        bars |= {"fmt": "none", "capsize": 2, "zorder": style["zorder"]}
        axes.errorbar(trace.x, np.asarray(trace.y, float), trace.errors, **bars)
    style |= {"marker": symbol or SYMBOLS[trace.symbol], "s": (trace.size * 0.75) ** 2}
    style["linewidths"] = 1.2 if is_hollow else 0.5
    if trace.symbol == "cross":
        style["c"] = colour
    else:
        style["facecolors"] = "none" if is_hollow else colour
        style["edgecolors"] = colour if is_hollow else "white"
    axes.scatter(trace.x, trace.y, **style)


def _colour_bar(axes: Any, ramp: ColorScale, height: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    colours = ListedColormap(LIGHT.colours(np.linspace(0, 1, 64)))
    bar = axes.figure.colorbar(ScalarMappable(cmap=colours), ax=axes, pad=0.015, aspect=32)
    values, labels = ticks(ramp.lo, ramp.hi, True, ramp.unit)
    bar.set_ticks(ramp.at(values), labels=labels)
    _name(bar.ax.yaxis, ramp.label, height)
    bar.outline.set_visible(False)
