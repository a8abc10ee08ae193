"""The loss by position in the window, beside the law L(T) = E + A T^-g."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from scaling.formatting import format_count
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, Trace
from scaling.render.section import Section
from scaling.render.table import Column, Estimate, Table, number
from scaling.studies import context, findings
from scaling.studies.context import Curve, Interval


def section(table: pd.DataFrame) -> Section | None:
    """The loss at each position by size, with its law; None where the rows hold no loss by position on text."""
    found = context.curves(table)
    if not found:
        return None
    return Section(
        "context",
        "Loss by position",
        [_figure(found)],
        [_table(found), findings.table("context", context.findings(found))],
        _said(found),
    )


def _figure(found: Sequence[Curve]) -> Figure:
    sizes = [curve.n_params for curve in found]
    ramp = ColorScale("parameters", min(sizes), max(sizes))
    traces = tuple(trace for curve in found for trace in _traces(curve, ramp))
    caption = "Held-out loss of a token against how many stand before it in the window. Lines are E + A T^-g, fitted to each size by itself."
    axes = Axis("tokens before the predicted one, T", log=True), Axis("loss, nats")
    return Figure(
        "context",
        "Loss by position",
        caption,
        *axes,
        traces,
        ramp if ramp.lo < ramp.hi else None,
        "wide",
    )


def _traces(curve: Curve, ramp: ColorScale) -> Iterator[Trace]:
    colour = ramp.at(curve.n_params)
    notes = [
        f"{format_count(curve.n_params)}, T = {at:.0f}: {loss:.3f} nats"
        for at, loss in zip(curve.context, curve.loss, strict=True)
    ]
    yield Markers(curve.context, curve.loss, "", colour, "circle", 3, notes=notes)
    if curve.params:
        line = np.geomspace(curve.first, curve.context.max(), 80)
        label = f"{format_count(curve.n_params)}: {_law(curve)}"
        yield Line(line, curve.fitted(line), label, colour)


def _law(curve: Curve) -> str:
    e, a, g = (curve.params[name].value for name in context.LAW.names)
    return f"{e:.2f} + {a:.2f} T^−{g:.2f}"


def _table(found: Sequence[Curve]) -> Table:
    rows = tuple(
        (
            curve.n_params,
            curve.tokens,
            curve.seeds,
            float(curve.loss[0]),
            curve.late,
            *(_estimate(curve.params.get(name)) for name in context.LAW.names),
            None if np.isnan(curve.chi2) else curve.chi2,
            _by_seed(curve),
            curve.refused,
        )
        for curve in found
    )
    columns = (
        Column("N", "count"),
        Column("D", "count"),
        Column("seeds", "integer"),
        Column("loss after 1", "number"),
        Column("in the second half", "number"),
        Column("E", "number", True),
        Column("A", "number", True),
        Column("g", "number", True),
        Column("chi2 a position", "short"),
        Column("g by seed"),
        Column("note"),
    )
    caption = (
        "N counts all parameters. Positions weigh by their variance over windows. Intervals of 95 % are from a parametric bootstrap: errors as large "
        "as over windows (or as the residuals, if larger), alike at neighbouring positions as the residuals are. All seeds see the same windows; "
        "chi2 is the squared residual in standard errors; g by seed shows what another seed changes."
    )
    return Table("context", "Loss by position, L(T) = E + A T^-g", columns, rows, caption)


def _estimate(held: Interval | None) -> Estimate | None:
    return None if held is None else (held.value, held.lo, held.hi)


def _by_seed(curve: Curve) -> str:
    return ", ".join(number(value, 3) for value in curve.by_seed)


def _said(found: Sequence[Curve]) -> list[str]:
    """Three sentences: what is shown, the exponents, who gains from more context."""
    last, first = found[-1], found[0]
    shown = (
        f"The model of {format_count(last.n_params)} parameters has a loss of {last.loss[0]:.2f} nats after one token, "
        f"and of {last.late:.2f} in the second half of its window of {last.context[-1]:.0f}."
    )
    fitted = [curve for curve in found if curve.params]
    if fitted:
        told = ", ".join(
            f"{curve.params['g'].value:.2f} [{curve.params['g'].lo:.2f}, {curve.params['g'].hi:.2f}]"
            for curve in fitted
        )
        which = (
            f"the exponent g of {told}"
            if len(fitted) == 1
            else f"exponents g of {told} from the smallest size to the largest"
        )
        law = (
            f"The loss falls as a power of the context toward a floor, with {which}, "
            f"which comes within {context.NEAR:g} nats of its floor after about {max(1.0, fitted[-1].reach):.0f} tokens."
        )
    else:
        law = "No power law of the context could be fitted."
    if first is last:
        gained = f"Reading on after the first token is worth {last.gain:.2f} nats."
    else:
        more = "more" if last.gain > first.gain else "less"
        gained = f"Reading on after the first token is worth {last.gain:.2f} nats to the largest size and {first.gain:.2f} to the smallest, so the larger gains {more}."
    return [shown, law, gained]
