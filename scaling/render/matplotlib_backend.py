"""A Figure by matplotlib: on axes of yours, or as SVG, PDF or PNG with the same bytes every time.

The style `screen` is that of the files that a report links; `paper` is for a journal: letters stay
text (TrueType, SVG text), 9 points, 300 dots per inch, one width. paper.mplstyle holds the latter
for figures of your own: `plt.style.use("scaling.render.paper")`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
PAPER_STYLE = Path(__file__).parent / "paper.mplstyle"
SETTINGS: Any = {
    "svg.hashsalt": "scaling",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LIGHT.muted,
    "axes.labelcolor": LIGHT.ink,
    "xtick.color": LIGHT.ink,
    "ytick.color": LIGHT.ink,
    "axes.grid": True,
    "grid.color": LIGHT.grid,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "savefig.dpi": 120,
    "path.simplify_threshold": 0.5,
}


@dataclass(frozen=True)
class Style:
    """How figures are written as files; `width` in inches replaces that of the style."""

    name: Literal["screen", "paper"] = "screen"
    width: float | None = None

    @property
    def settings(self) -> Any:
        """The settings of matplotlib."""
        from matplotlib import rc_params_from_file

        if self.name == "screen":
            return SETTINGS
        return {**SETTINGS, **rc_params_from_file(PAPER_STYLE, use_default_template=False)}

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
        _DRAW[type(trace)](axes, trace, 2 + 0.01 * order)
    lengths = (box.width, box.height)
    for axis, limits, name, length in zip(
        (figure.x, figure.y), figure.limits(), "xy", lengths, strict=True
    ):
        getattr(axes, f"set_{name}scale")("log" if axis.log else "linear")
        getattr(axes, f"set_{name}lim")(*limits)
        values, labels = ticks(*limits, axis.log, axis.unit, max(3, int(length / 0.45)))
        getattr(axes, f"set_{name}ticks")(values, labels)
        getattr(axes, f"set_{name}ticks")([], minor=True)
        getattr(axes, f"set_{name}label")(_wrapped(axis.label, length, axes))
    if below:
        _legend_below(axes)
    elif axes.get_legend_handles_labels()[0]:
        axes.legend()
    if figure.ramp is not None:
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


def _wrapped(text: str, inches: float, axes: Any) -> str:
    """Text in lines of so many inches; longer lines would be cut or squeeze the axes."""
    from matplotlib import rcParams

    return fill(sanitize(text), max(12, int(inches / (0.008 * rcParams["font.size"]))))


def _legend_below(axes: Any) -> None:
    """In as many columns as its longest word leaves; the axes keep their height."""
    canvas, (handles, labels) = axes.figure, axes.get_legend_handles_labels()
    if not handles:
        return
    width = canvas.get_figwidth()
    labels = [_wrapped(label, width - 0.5, axes) for label in labels]
    columns = max(1, min(4, int(width / (0.5 + 0.072 * max(map(len, labels))))))
    rows = sum(label.count("\n") for label in labels) + -(-len(labels) // columns)
    canvas.set_figheight(canvas.get_figheight() + 0.18 * (rows - 1))
    spacing = {"ncols": columns, "columnspacing": 1.2, "handlelength": 1.8}
    canvas.legend(handles, labels, loc="outside lower center", **spacing)


def _label(text: str) -> str | None:
    """Matplotlib hides labels that begin with an underscore, so they get a space before it."""
    cleaned = sanitize(text)
    return " " + cleaned if cleaned.startswith("_") else cleaned or None


def _line(axes: Any, trace: Line, order: float) -> None:
    style = {"color": LIGHT.colour(trace.colour), "linestyle": DASHES[trace.dash]}
    style |= {"linewidth": trace.width * 0.8, "zorder": order, "label": _label(trace.label)}
    axes.plot(np.asarray(trace.x, float), np.asarray(trace.y, float), **style)


def _markers(axes: Any, trace: Markers, order: float) -> None:
    colours = LIGHT.colours(trace.colour)
    colour: Any = colours[0] if len(colours) == 1 else colours
    hollow = trace.symbol in ("open", "cross")
    if trace.lo is not None and trace.hi is not None:
        y = np.asarray(trace.y, float)
        bars = {"fmt": "none", "elinewidth": 1, "capsize": 2, "zorder": order}
        bars["ecolor"] = colours[0] if len(colours) == 1 else LIGHT.muted
        ends = y - np.asarray(trace.lo, float), np.asarray(trace.hi, float) - y
        axes.errorbar(trace.x, y, ends, **bars)
    style: dict[str, Any] = {"marker": SYMBOLS[trace.symbol], "s": (trace.size * 0.75) ** 2}
    style |= {"linewidths": 1.2 if hollow else 0.5, "zorder": order, "label": _label(trace.label)}
    if trace.symbol == "cross":
        style["c"] = colour
    else:
        style["facecolors"] = "none" if hollow else colour
        style["edgecolors"] = colour if hollow else "white"
    axes.scatter(trace.x, trace.y, **style)


def _band(axes: Any, trace: Band, order: float) -> None:
    style = {"color": LIGHT.colour(trace.colour), "alpha": 0.16, "linewidth": 0, "zorder": order}
    axes.fill_between(trace.x, trace.lo, trace.hi, **style)


def _rule(axes: Any, trace: ReferenceLine, order: float) -> None:
    style = {"color": LIGHT.muted, "linewidth": 0.9, "linestyle": DASHES["dot"], "zorder": order}
    place = partial(axes.annotate, sanitize(trace.label), textcoords="offset points", ha="right")
    if trace.x is not None:
        axes.axvline(trace.x, **style)
        at = {"xy": (trace.x, 1), "xycoords": ("data", "axes fraction"), "xytext": (-3, -2)}
    else:
        axes.axhline(trace.y, **style)
        at = {"xy": (1, trace.y), "xycoords": ("axes fraction", "data"), "xytext": (-2, 2)}
    place(**at, va="bottom" if trace.x is None else "top", color=LIGHT.muted, **WORD)


def _text(axes: Any, trace: Text, order: float) -> None:
    at = {"ha": trace.anchor, "va": "center", "clip_on": True}
    colour = LIGHT.colour(trace.colour)
    axes.text(trace.x, trace.y, sanitize(trace.text), color=colour, **at, **WORD)


_DRAW: dict[type, Callable[[Any, Any, float], None]] = {
    Line: _line,
    Markers: _markers,
    Band: _band,
    ReferenceLine: _rule,
    Text: _text,
}


def _colour_bar(axes: Any, ramp: ColorScale, height: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    colours = ListedColormap([LIGHT.colour(step / 63) for step in range(64)])
    bar = axes.figure.colorbar(ScalarMappable(cmap=colours), ax=axes, pad=0.015, aspect=32)
    values, labels = ticks(ramp.lo, ramp.hi, ramp.log, ramp.unit)
    bar.set_ticks([ramp.at(value) for value in values], labels=labels)
    bar.set_label(_wrapped(ramp.label, height, axes))
    bar.outline.set_visible(False)
