"""The value of repeated tokens, as a table and a picture: D'/U against epochs, read off the runs,
and the law.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling.fit.diagnostics.results import RepeatedDataLaw, RepeatedRuns
from scaling.fit.document import FitStatus
from scaling.fit.result import FitResult
from scaling.formatting import format_count
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, Symbol, Trace
from scaling.render.table import Column, Table, number, tabulate
from scaling.report.parts.fit_tables import LOSS, D, N

PUBLISHED = "muennighoff2023"
TITLE = "The value of repeated tokens"
SHOWN = 24  # rows in a terminal
SYMBOLS: tuple[Symbol, ...] = ("circle", "diamond", "star", "cross")
COLUMNS = {
    "row.n_params": N,
    "row.unique_tokens": Column("unique U", "count"),
    "row.epochs": Column("epochs", "rough"),
    "row.tokens": D,
    "row.loss": LOSS,
    "row.effective_tokens": Column("fresh D'", "count"),
    "ratio": Column("D'/U", "rough", True),
    "row.predicted_ratio": Column("D'/U by the law", "rough"),
    "note": Column("note"),
}


def repeats(fit: FitResult) -> Table | None:
    """Each repeated size, corpus and number of epochs with the fresh tokens D' of the same loss."""
    return tabulate("repeats", TITLE, _rows(fit.repeats or ()), COLUMNS, explanation(fit))


def short(fit: FitResult) -> Table | None:
    """The same in 80 columns: the cells whose D' is known, and no more of them than fit a
    screen.
    """
    runs = fit.repeats or ()
    with_ratio = [row for row in runs if row.ratio is not None]
    rows = _rows(with_ratio[:SHOWN])
    caption = explanation(fit)
    if len(rows) < len(runs):
        caption = (
            f"{len(rows)} of {len(runs)} cells; the document holds all, and "
            f"{len(runs) - len(with_ratio)} have no fresh runs of their size. {caption}"
        )
    hidden = {"row.tokens", "row.loss", "row.effective_tokens"}
    columns = {path: column for path, column in COLUMNS.items() if path not in hidden}
    return tabulate("repeats", TITLE, rows, columns, caption)


def _rows(runs: Sequence[RepeatedRuns]) -> list[dict[str, Any]]:
    return [
        {
            "row": row,
            "ratio": (row.ratio, row.lo, row.hi),
            "note": "no fresh runs"
            if row.ratio is None
            else "beyond the fresh runs"
            if row.extrapolated
            else "",
        }
        for row in runs
    ]


def explanation(fit: FitResult) -> str:
    """How D' is known, and what R_D the law and the table itself give."""
    law = fit.repeats_law
    text = (
        "D' is the number of fresh tokens with the same loss, read off the fresh runs of the size. "
    )
    if law is None:
        return text
    if law.R_D is None or law.R_D.value is None:
        text += f"The law {law.law} is not fitted: {law.unavailable}. "
    else:
        status = "" if law.status is FitStatus.OK else f" ({law.status})"
        lo, hi = law.R_D.lo, law.R_D.hi
        interval = "" if lo is None or hi is None else f" [{number(lo, 3)}, {number(hi, 3)}]"
        value = number(law.R_D.value, 3)
        text += f"The law {law.law} fitted to all runs has R_D = {value}{interval}{status}. "
    if law.R_D_from_runs:
        text += f"Fitted to this table alone, R_D = {number(law.R_D_from_runs, 3)}. "
    return f"{text}Muennighoff et al. 2023 have {number(_published(), 3)}."


def _published() -> float:
    from scaling.fit.laws.published import published

    return float(published(PUBLISHED).values["R_D"])


def figure(fit: FitResult) -> Figure | None:
    """D'/U against epochs: coloured by size, a symbol for each corpus, rings beyond the fresh runs;
    the line on which repeats are as good as new, and the laws.
    """
    runs = [row for row in fit.repeats or [] if row.ratio]
    if not runs:
        return None
    epochs = np.geomspace(1.0, max(row.epochs for row in runs) * 1.15, 60)
    traces: list[Trace] = [
        Line(epochs, epochs, "as good as new", "muted", "dash", 1.6),
        *_laws(fit.repeats_law, epochs),
    ]
    sizes = [row.n_params for row in runs]
    ramp = ColorScale("parameters N", min(sizes), max(sizes))
    for index, unique in enumerate(sorted({row.unique_tokens for row in runs})):
        for beyond in (False, True):
            series = [
                row
                for row in runs
                if row.unique_tokens == unique and bool(row.extrapolated) == beyond
            ]
            if series:
                label = "" if beyond else f"U {format_count(unique)}"
                symbol: Symbol = "open" if beyond else SYMBOLS[index % len(SYMBOLS)]
                traces.append(_markers(series, label, ramp, symbol))
    caption = (
        "Fresh tokens that would have given the same loss, for each unique token, against how "
        "often these were read. On the dashed line a repeated token is worth a new one."
    )
    beyond_runs = sum(bool(row.extrapolated) for row in runs)
    caption += f" Rings lie beyond the fresh runs ({beyond_runs})." if beyond_runs else ""
    axes = Axis("epochs D/U", log=True), Axis("effective epochs D'/U", log=True)
    scale = ramp if ramp.lo < ramp.hi else None
    return Figure("repeats", TITLE, caption, *axes, tuple(traces), scale, "wide")


def _laws(law: RepeatedDataLaw | None, epochs: np.ndarray) -> list[Line]:
    from scaling.fit.diagnostics.repeated_data import effective_epochs

    fitted = law.R_D.value if law and law.R_D else None
    own, published = law.R_D_from_runs if law else None, _published()
    return [
        Line(epochs, effective_epochs(epochs, r_d), f"{label}, R_D = {number(r_d, 3)}", *style)
        for r_d, label, *style in (
            (fitted, "law fitted to all runs", 0),
            (own, "fitted to these points", 1),
            (published, "Muennighoff 2023", "ink", "dot", 1.6),
        )
        if r_d
    ]


def _markers(rows: list[RepeatedRuns], label: str, ramp: ColorScale, symbol: Symbol) -> Markers:
    ends = np.array([(row.lo, row.hi) for row in rows], float).T
    notes = [
        f"{format_count(row.n_params)} parameters, {row.epochs:.3g} epochs, loss {row.loss:.4g}: "
        f"worth {row.ratio:.3g} x U"
        for row in rows
    ]
    x, y = [row.epochs for row in rows], [row.ratio or np.nan for row in rows]
    colours = np.array([ramp.at(row.n_params) for row in rows])
    lo, hi = ends if np.isfinite(ends).all() else (None, None)
    return Markers(x, y, label, colours, symbol, 8, lo, hi, notes)
