"""A Figure as a file for papers and READMEs: SVG, PDF or PNG, the same bytes every time. Light
colours on white.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from textwrap import fill
from typing import Any

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
SIZES = {"small": (3.4, 2.9), "half": (4.4, 3.3), "wide": (6.8, 4.4)}
# inches; small as it is and half at three quarters fill a column of two (3.3), wide a page: letters
# stay at 7 points or more
DASHES = {"solid": "-", "dash": (0, (5, 3)), "dot": (0, (1.2, 2))}
SYMBOLS = {"circle": "o", "open": "o", "diamond": "D", "cross": "x", "star": "*"}
PAPER: Any = {
    "facecolor": "white",
    "alpha": 0.75,
    "edgecolor": "none",
    "pad": 0.8,
}  # behind a word, so that it is read over lines
STYLE: Any = {
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
}


def draw(figure: Figure) -> Any:
    """The picture on a canvas of its own: no display, no global state."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE):
        width, height = SIZES[figure.size]
        canvas = Canvas(figsize=(width, height))
        axes = canvas.add_subplot()
        for order, trace in enumerate(figure.traces):
            _DRAW[type(trace)](axes, trace, 2 + 0.01 * order)
        _axes(axes, figure, width - 0.8, height - 0.8)
        _legend(canvas, axes, width)
        if figure.ramp is not None:
            _colour_bar(canvas, axes, figure.ramp, height - 0.8)
    return canvas


def save(canvas: Any, kind: str, path: Path) -> None:
    """Write a canvas as `svg`, `pdf` or `png`, without a date."""
    import matplotlib

    with matplotlib.rc_context(STYLE), _outlined(canvas) if kind == "pdf" else nullcontext():
        canvas.savefig(path, format=kind, dpi=120, metadata=UNDATED[kind])


@contextmanager
def _outlined(canvas: Any) -> Iterator[None]:
    """Letters as outlines, as SVG has them: journals refuse Type 3 fonts, and subsetting TrueType
    takes longer than all the rest.
    """
    from matplotlib.patheffects import Normal
    from matplotlib.text import Text as Letters

    letters = canvas.findobj(Letters)
    for text in letters:
        text.set_path_effects([Normal()])
    try:
        yield
    finally:
        for text in letters:
            text.set_path_effects(None)


def _wrapped(text: str, inches: float) -> str:
    """Text in lines of so many inches; longer lines would be cut or squeeze the axes."""
    return fill(sanitize(text), max(12, int(inches / 0.075)))


def _axes(axes: Any, figure: Figure, width: float, height: float) -> None:
    for axis, limits, name, room in zip(
        (figure.x, figure.y), figure.limits(), ("x", "y"), (width, height), strict=True
    ):
        getattr(axes, f"set_{name}scale")("log" if axis.log else "linear")
        getattr(axes, f"set_{name}lim")(*limits)
        values, labels = ticks(*limits, axis.log, axis.unit)
        getattr(axes, f"set_{name}ticks")(values, labels)
        getattr(axes, f"set_{name}ticks")([], minor=True)
        getattr(axes, f"set_{name}label")(_wrapped(axis.label, room))


def _legend(canvas: Any, axes: Any, width: float) -> None:
    """Below the axes, in as many columns as its longest word leaves; the canvas grows by its rows,
    and the axes keep their height.
    """
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        labels = [_wrapped(label, width - 0.5) for label in labels]
        columns = max(1, min(4, int(width / (0.5 + 0.072 * max(map(len, labels))))))
        rows = sum(label.count("\n") for label in labels) + -(-len(labels) // columns)
        canvas.set_figheight(canvas.get_figheight() + 0.18 * (rows - 1))
        canvas.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            columnspacing=1.2,
            handlelength=1.8,
        )


def _label(text: str) -> str | None:
    """Matplotlib hides labels that begin with an underscore, so they get a space before it."""
    cleaned = sanitize(text)
    return " " + cleaned if cleaned.startswith("_") else cleaned or None


def _line(axes: Any, trace: Line, order: float) -> None:
    style = {
        "color": LIGHT.colour(trace.colour),
        "linewidth": trace.width * 0.8,
        "linestyle": DASHES[trace.dash],
    }
    axes.plot(trace.x, trace.y, label=_label(trace.label), zorder=order, **style)


def _markers(axes: Any, trace: Markers, order: float) -> None:
    colour = LIGHT.colour(trace.colour)
    hollow = trace.symbol in ("open", "cross")
    if trace.lo is not None and trace.hi is not None:
        y = np.asarray(trace.y, float)
        axes.errorbar(
            trace.x,
            y,
            [y - trace.lo, trace.hi - y],
            fmt="none",
            ecolor=colour,
            elinewidth=1,
            capsize=2,
            zorder=order,
        )
    edge = {
        "markeredgecolor": colour if hollow else "white",
        "markeredgewidth": 1.2 if hollow else 0.5,
    }
    axes.plot(
        trace.x,
        trace.y,
        SYMBOLS[trace.symbol],
        color=colour,
        markersize=trace.size * 0.75,
        markerfacecolor="none" if trace.symbol == "open" else colour,
        label=_label(trace.label),
        zorder=order,
        **edge,
    )


def _band(axes: Any, trace: Band, order: float) -> None:
    axes.fill_between(
        trace.x,
        trace.lo,
        trace.hi,
        color=LIGHT.colour(trace.colour),
        alpha=0.16,
        linewidth=0,
        zorder=order,
    )


def _rule(axes: Any, trace: ReferenceLine, order: float) -> None:
    style = {"color": LIGHT.muted, "linewidth": 0.9, "linestyle": DASHES["dot"], "zorder": order}
    word = {"color": LIGHT.muted, "fontsize": 8, "bbox": PAPER, "zorder": 5, "in_layout": False}
    if trace.x is not None:
        axes.axvline(trace.x, **style)
        axes.annotate(
            sanitize(trace.label),
            (trace.x, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3, -2),
            textcoords="offset points",
            ha="right",
            va="top",
            **word,
        )
    else:
        axes.axhline(trace.y, **style)
        axes.annotate(
            sanitize(trace.label),
            (1, trace.y),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            **word,
        )


def _text(axes: Any, trace: Text, order: float) -> None:
    axes.text(
        trace.x,
        trace.y,
        sanitize(trace.text),
        ha=trace.anchor,
        va="center",
        color=LIGHT.colour(trace.colour),
        fontsize=8,
        bbox=PAPER,
        in_layout=False,
        zorder=5,
        clip_on=True,
    )


_DRAW: dict[type, Callable[[Any, Any, float], None]] = {
    Line: _line,
    Markers: _markers,
    Band: _band,
    ReferenceLine: _rule,
    Text: _text,
}


def _colour_bar(canvas: Any, axes: Any, ramp: ColorScale, height: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    colours = ListedColormap([LIGHT.colour(step / 63) for step in range(64)])
    bar = canvas.colorbar(ScalarMappable(cmap=colours), ax=axes, pad=0.015, aspect=32)
    values, labels = ticks(ramp.lo, ramp.hi, ramp.log, ramp.unit)
    bar.set_ticks([ramp.at(value) for value in values], labels=labels)
    bar.set_label(_wrapped(ramp.label, height))
    bar.outline.set_visible(False)
