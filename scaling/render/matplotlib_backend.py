"""A Figure by matplotlib: on axes of yours, or as SVG, PDF or PNG with the same bytes every time.

The style `screen` is that of the files that a report links; `paper` is for a journal: letters stay
text (TrueType, SVG text), 9 points, 300 dots per inch, one width. paper.mplstyle holds the latter
for figures of your own: `plt.style.use("scaling.render.paper")`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import numpy as np

from scaling.render.escape import sanitize
from scaling.render.figure import (
    LIGHT,
    SERIES,
    Band,
    ColorScale,
    Drawn,
    Figure,
    Line,
    Markers,
    Text,
    ticks,
)

UNDATED: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
SIZES = {"half": (4.4, 3.3), "wide": (6.8, 4.4)}  # inches; letters stay readable in a column
DASHES: Any = {
    "solid": "-",
    "dash": (0, (5, 3)),
    "dot": (0, (1.2, 2)),
    "longdash": (0, (5, 1.5)),
    "dashdot": (0, (5, 1.5, 1, 1.5)),
    "longdashdot": (0, (1.5, 1)),
}
SYMBOLS = {
    "circle": "o",
    "open": "o",
    "diamond": "D",
    "cross": "x",
    "star": "*",
    "square": "s",
    "up": "^",
    "down": "v",
    "plus": "P",
    "x": "X",
    "left": "<",
}
CORNERS = ("upper left", "lower left", "upper right", "lower right")
GROWTH = 1.1  # of the y axis, until a legend covers nothing
LETTER = 0.6  # width of one, in font sizes
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
    for order, trace in enumerate(figure.drawn(letter)):
        _draw(axes, trace, 2 + 0.01 * order)
    if figure.ramp and figure.ramp.has_bar:
        _colour_bar(axes, figure.ramp, inches[1])
    if below:
        _legend_below(axes)
    else:
        _legend_inside(axes, figure, inches[0])
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


def _legend_inside(axes: Any, figure: Figure, width: float) -> None:
    """Small, in the first corner where it covers nothing; the y axis grows until there is one. The
    layout of the canvas does not make way for it.
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
    shown = {label.partition(" (")[0]: each for each, label in pairs if label not in explained}
    if not shown:
        return
    letters = LETTER * max(map(len, shown)) + 2.6
    size = min(_points(rcParams["legend.fontsize"]), max(5.0, 68 * width / letters))
    while True:
        for corner in CORNERS:
            style = {"loc": corner, "fontsize": size, "frameon": False, "handlelength": 1.6}
            legend = axes.legend(shown.values(), shown.keys(), **style)
            legend.set_in_layout(False)
            box = legend.get_window_extent()
            # the layout will shrink the axes by the labels, and not the legend
            if _is_free(axes, box.padded(0.2 * box.width, 0.2 * box.height)):
                return
        ends = axes.transScale.transform([(1.0, y) for y in axes.get_ylim()])[:, 1]
        ends[1] = ends[0] + GROWTH * (ends[1] - ends[0])
        axes.set_ylim(axes.transScale.inverted().transform([(0.0, y) for y in ends])[:, 1])


def _is_free(axes: Any, box: Any) -> bool:
    """Whether a box (pixels) covers no line, marker, band, bar or word."""
    from matplotlib.collections import PathCollection

    lines = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    for each in axes.collections:
        if isinstance(each, PathCollection):
            if box.count_contains(axes.transData.transform(each.get_offsets())):
                return False
        else:
            lines += map(axes.transData.transform_path, each.get_paths())
    return not (
        any(line.intersects_bbox(box, filled=False) for line in lines)
        or any(box.overlaps(text.get_window_extent()) for text in axes.texts)
    )


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


def _draw(axes: Any, trace: Drawn, order: float) -> None:
    style: dict[str, Any] = {"zorder": order}
    if isinstance(trace, (Line, Markers)) and trace.label:
        label = sanitize(trace.label)  # matplotlib hides labels that begin with an underscore
        style["label"] = f" {label}" if label.startswith("_") else label
    colour = LIGHT.colour(trace.colour)
    match trace:
        case Line():
            if trace.mark:
                every = (0.05 * (1 + SERIES.index(trace.mark) % 6), 0.35)
                style |= {"marker": SYMBOLS[trace.mark], "markersize": 4, "markevery": every}
            style |= {"color": colour, "linestyle": DASHES[trace.dash]}
            axes.plot(*np.asarray((trace.x, trace.y), float), linewidth=trace.width * 0.8, **style)
        case Markers():
            is_hollow = trace.symbol in ("open", "cross")
            if trace.errors:
                bars: dict[str, Any] = {
                    "ecolor": colour if isinstance(colour, str) else LIGHT.muted
                }
                bars |= {"fmt": "none", "capsize": 2, "zorder": order, "elinewidth": 1}
                axes.errorbar(trace.x, np.asarray(trace.y, float), trace.errors, **bars)
            face, edge = ("none", colour) if is_hollow else (colour, "white")
            looks = {"facecolors": face, "edgecolors": edge}
            style |= {"c": colour} if trace.symbol == "cross" else looks
            style |= {"marker": SYMBOLS[trace.mark or trace.symbol]}
            style |= {"s": (trace.size * 0.75) ** 2, "linewidths": 1.2 if is_hollow else 0.5}
            axes.scatter(trace.x, trace.y, **style)
        case Band():
            style |= {"color": colour, "alpha": 0.16, "linewidth": 0}
            axes.fill_between(trace.x, trace.lo, trace.hi, **style)
        case Text():
            word = {"ha": trace.anchor, "va": trace.edge, "color": colour, "fontsize": "small"}
            axes.text(trace.x, trace.y, sanitize(trace.text), zorder=5, in_layout=False, **word)


def _colour_bar(axes: Any, ramp: ColorScale, height: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    colours = ListedColormap(LIGHT.colour(np.linspace(0, 1, 64)))
    bar = axes.figure.colorbar(ScalarMappable(cmap=colours), ax=axes, pad=0.015, aspect=32)
    values, labels = ticks(ramp.lo, ramp.hi, True, ramp.unit)
    bar.set_ticks(ramp.at(values), labels=labels)
    _name(bar.ax.yaxis, ramp.label, height)
    bar.outline.set_visible(False)
