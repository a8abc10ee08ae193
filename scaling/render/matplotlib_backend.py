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
WORD: Any = {
    "fontsize": "small",
    "zorder": 5,
    "in_layout": False,
    "bbox": {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
}
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
    for order, trace in enumerate(figure.traces):
        _draw(axes, trace, 2 + 0.01 * order)
    drawn = zip("xy", (figure.x, figure.y), figure.limits(), (box.width, box.height), strict=True)
    for name, axis, limits, length in drawn:
        axes.set(**{f"{name}scale": "log" if axis.log else "linear", f"{name}lim": limits})
        lines = getattr(axes, f"{name}axis")
        lines.set_ticks(*ticks(*limits, axis.log, axis.unit, max(3, int(length / 0.45))))
        lines.set_ticks([], minor=True)
        lines.set_label_text(_wrapped(axis.label, length))
    if below:
        _legend_below(axes)
    elif axes.get_legend_handles_labels()[0]:
        axes.legend()
    if figure.ramp and not figure.ramp.is_one_value:
        _colour_bar(axes, figure.ramp, box.height)
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


def _wrapped(text: str, inches: float) -> str:
    """Text in lines of so many inches; longer lines would be cut or squeeze the axes."""
    from matplotlib import rcParams

    return fill(sanitize(text), max(12, int(inches / (0.008 * rcParams["font.size"]))))


def _legend_below(axes: Any) -> None:
    """In as many columns as its longest word leaves; the axes keep their height."""
    canvas, (handles, labels) = axes.figure, axes.get_legend_handles_labels()
    if not handles:
        return
    width = canvas.get_figwidth()
    labels = [_wrapped(label, width - 0.5) for label in labels]
    columns = max(1, min(4, int(width / (0.5 + 0.072 * max(map(len, labels))))))
    rows = sum(label.count("\n") for label in labels) + -(-len(labels) // columns)
    canvas.set_figheight(canvas.get_figheight() + 0.18 * (rows - 1))
    spacing = {"ncols": columns, "columnspacing": 1.2, "handlelength": 1.8}
    canvas.legend(handles, labels, loc="outside lower center", **spacing)


def _draw(axes: Any, trace: Trace, order: float) -> None:
    style: dict[str, Any] = {"zorder": order}
    if isinstance(trace, (Line, Markers)) and trace.label:
        label = sanitize(trace.label)  # matplotlib hides labels that begin with an underscore
        style["label"] = f" {label}" if label.startswith("_") else label
    match trace:
        case Line():
            style |= {"color": LIGHT.colour(trace.colour), "linestyle": DASHES[trace.dash]}
            axes.plot(*np.asarray((trace.x, trace.y), float), linewidth=trace.width * 0.8, **style)
        case Markers():
            _markers(axes, trace, style)
        case Band():
            style |= {"color": LIGHT.colour(trace.colour), "alpha": 0.16, "linewidth": 0}
            axes.fill_between(trace.x, trace.lo, trace.hi, **style)
        case ReferenceLine():
            style |= {"color": LIGHT.muted, "linewidth": 0.9, "linestyle": DASHES["dot"]}
            word: dict[str, Any] = {"xytext": (-3, -2), "va": "top"}
            if trace.x is not None:
                axes.axvline(trace.x, **style)
                word |= {"xy": (trace.x, 1), "xycoords": ("data", "axes fraction")}
            else:
                axes.axhline(trace.y, **style)
                word |= {"xy": (1, trace.y), "xycoords": ("axes fraction", "data")}
                word |= {"xytext": (-2, 2), "va": "bottom"}
            word |= {"textcoords": "offset points", "ha": "right", "color": LIGHT.muted}
            axes.annotate(sanitize(trace.label), **word, **WORD)
        case Text():
            word = {"ha": trace.anchor, "va": "center", "color": LIGHT.colour(trace.colour)}
            axes.text(trace.x, trace.y, sanitize(trace.text), clip_on=True, **word, **WORD)


def _markers(axes: Any, trace: Markers, style: dict[str, Any]) -> None:
    colour = LIGHT.colours(trace.colour)
    is_hollow = trace.symbol in ("open", "cross")
    if trace.errors:
        bars = {"ecolor": colour if isinstance(colour, str) else LIGHT.muted, "elinewidth": 1}
        bars |= {"fmt": "none", "capsize": 2, "zorder": style["zorder"]}
        axes.errorbar(trace.x, np.asarray(trace.y, float), trace.errors, **bars)
    style |= {"marker": SYMBOLS[trace.symbol], "s": (trace.size * 0.75) ** 2}
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
    bar.set_label(_wrapped(ramp.label, height))
    bar.outline.set_visible(False)
