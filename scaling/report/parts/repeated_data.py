"""The value of repeated tokens, as a table and a picture: D'/U against epochs, read off the runs,
and the law.
"""

from __future__ import annotations

import numpy as np

from scaling.fit.document import FitStatus
from scaling.fit.result import FitResult
from scaling.formatting import format_count
from scaling.render.figure import SIZES, Axis, Figure, Line, Markers, Symbol, Trace
from scaling.render.table import Table, format_estimate, number, record_table

PUBLISHED = "muennighoff2023"
ROWS_LISTED = 20
TITLE = "The value of repeated tokens"
SYMBOLS: tuple[Symbol, ...] = ("circle", "diamond", "star", "cross")


def repeats(fit: FitResult) -> Table | None:
    """Each repeated size, corpus and number of epochs with the fresh tokens D' of the same loss."""
    rows = [
        {
            "N": row.n_params,
            "unique U": row.unique_tokens,
            "epochs": row.epochs,
            "D": row.tokens,
            "loss": row.loss,
            "fresh D'": row.effective_tokens,
            "D'/U": (row.ratio, row.lo, row.hi),
            "D'/U by the law": row.predicted_ratio,
            "note": "no fresh runs"
            if row.ratio is None
            else "beyond the fresh runs"
            if row.extrapolated
            else "",
        }
        for row in fit.repeats or ()
    ]
    n_rows = len(rows)
    listed = f" {ROWS_LISTED} of {n_rows} are shown." if n_rows > ROWS_LISTED else ""
    return record_table(
        "repeats",
        TITLE,
        rows,
        explanation(fit) + listed,
        ROWS_LISTED,
        count=("unique U", "fresh D'"),
        rough=("epochs", "D'/U", "D'/U by the law"),
    )


def explanation(fit: FitResult) -> str:
    """How D' is known, and what R_D the law has."""
    text = (
        "D' is the number of fresh tokens with the same loss, read off the fresh runs of the size. "
    )
    if "R_D" in fit.params:
        status = "" if fit.status is FitStatus.OK else f" ({fit.status})"
        value = format_estimate(fit.params["R_D"])
        text += f"The law {fit.law} has R_D = {value}{status}. "
    return f"{text}Muennighoff et al. 2023 have R_D = {number(_published(), 3)}."


def _published() -> float:
    from scaling.fit.laws.published import published

    return float(published(PUBLISHED).values["R_D"])


def figure(fit: FitResult) -> Figure | None:
    """D'/U against epochs: coloured by size, a symbol for each corpus unless they are many,
    rings beyond the fresh runs; the line on which repeats are as good as new, and the laws.
    """
    from scaling.fit.diagnostics.repeated_data import effective_epochs

    runs = [row for row in fit.repeats or [] if row.ratio]
    if not runs:
        return None
    epochs = np.geomspace(1.0, max(row.epochs for row in runs) * 1.15, 60)
    traces: list[Trace] = [Line(epochs, epochs, "as good as new", "muted", "dash", 1.6)]
    for value, label, *style in (
        (fit.params["R_D"].value if "R_D" in fit.params else None, f"law {fit.law}", 0),
        (_published(), "Muennighoff 2023", "ink", "dot", 1.6),
    ):
        if value:
            named = f"{label}, R_D = {number(value, 3)}"
            traces.append(Line(epochs, effective_epochs(epochs, value), named, *style))
    corpora = sorted({row.unique_tokens for row in runs})
    too_many = len(corpora) > len(SYMBOLS)  # to tell them apart
    for beyond, (index, unique) in ((b, corpus) for corpus in enumerate(corpora) for b in (0, 1)):
        series = [
            row
            for row in runs
            if row.unique_tokens == unique and bool(row.extrapolated) == bool(beyond)
        ]
        if not series:
            continue
        symbol: Symbol = "open" if beyond else SYMBOLS[0 if too_many else index]
        columns = [(row.n_params, row.epochs, row.ratio, row.lo, row.hi) for row in series]
        n, x, y, low, high = np.array(columns, float).T
        lo, hi = (low, high) if np.isfinite(low + high).all() else (None, None)
        name = f"U {format_count(unique)}"
        traces.append(Markers(x, y, "" if beyond or too_many else name, n, symbol, 8, lo, hi, name))
    caption = (
        "Fresh tokens that would have given the same loss, for each unique token, against how "
        "often these were read. On the dashed line a repeated token is worth a new one."
    )
    n_beyond = sum(bool(row.extrapolated) for row in runs)
    caption += f" Rings lie beyond the fresh runs ({n_beyond})." if n_beyond else ""
    axes = Axis("epochs D/U", log=True), Axis("effective epochs D'/U", log=True)
    return Figure("repeats", TITLE, caption, *axes, traces, SIZES)
