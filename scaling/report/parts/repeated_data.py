"""The value of repeated tokens, as a table and a picture: D'/U against epochs, read off the runs,
and the law.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from scaling.formatting import format_count
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, Trace
from scaling.render.table import Cell, Column, Document, Table, number

PUBLISHED = "muennighoff2023"
TITLE = "The value of repeated tokens"
SHOWN = 24  # rows in a terminal
SYMBOLS = ("circle", "diamond", "star", "cross")
Row = Mapping[str, Any]


def repeats(document: Document) -> Table | None:
    """Each repeated size, corpus and number of epochs with the fresh tokens D' of the same loss."""
    runs: Sequence[Row] = document.get("repeats") or []
    if not runs:
        return None
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            row["n_params"],
            row["unique_tokens"],
            row["epochs"],
            row["tokens"],
            row["loss"],
            row["effective_tokens"],
            _ratio(row),
            row["predicted_ratio"],
            _note(row),
        )
        for row in runs
    )
    columns = (
        Column("N", "count"),
        Column("unique U", "count"),
        Column("epochs", "rough"),
        Column("D", "count"),
        Column("loss", "number"),
        Column("fresh D'", "count"),
        Column("D'/U", "rough", True),
        Column("D'/U by the law", "rough"),
        Column("note"),
    )
    return Table("repeats", TITLE, columns, rows, told(document))


def short(document: Document) -> Table | None:
    """The same in 80 columns: the cells whose D' is known, and no more of them than fit a
    screen.
    """
    runs: Sequence[Row] = document.get("repeats") or []
    if not runs:
        return None
    with_ratio = [row for row in runs if row["ratio"] is not None]
    rows = tuple(
        (
            row["n_params"],
            row["unique_tokens"],
            row["epochs"],
            _ratio(row),
            row["predicted_ratio"],
            _note(row),
        )
        for row in with_ratio[:SHOWN]
    )
    columns = (
        Column("N", "count"),
        Column("U", "count"),
        Column("epochs", "rough"),
        Column("D'/U", "rough", True),
        Column("law", "rough"),
        Column("note"),
    )
    shown = (
        f"{len(rows)} of {len(runs)} cells; the document holds all, and "
        f"{len(runs) - len(with_ratio)} have no fresh runs of their size. "
    )
    return Table(
        "repeats", TITLE, columns, rows, (shown if len(rows) < len(runs) else "") + told(document)
    )


def _ratio(row: Row) -> tuple[float | None, float | None, float | None]:
    return row["ratio"], row["lo"], row["hi"]


def _note(row: Row) -> str:
    if row["ratio"] is None:
        return "no fresh runs"
    return "beyond the fresh runs" if row["extrapolated"] else ""


def told(document: Document) -> str:
    """How D' was found, and what R_D the law and the table itself give."""
    law = document["repeats_law"]
    text = (
        "D' is the number of fresh tokens with the same loss, read off the fresh runs of the size. "
    )
    if law["R_D"] is None:
        text += f"The law {law['law']} is not fitted: {law['unavailable']}. "
    else:
        status = "" if law["status"] == "ok" else f" ({law['status']})"
        ends = [law["R_D"][name] for name in ("lo", "hi")]
        interval = "" if None in ends else f" [{number(ends[0], 3)}, {number(ends[1], 3)}]"
        text += (
            f"The law {law['law']} fitted to all runs has R_D = "
            f"{number(law['R_D']['value'], 3)}{interval}{status}. "
        )
    if law.get("R_D_from_runs"):
        text += f"Fitted to this table alone, R_D = {number(law['R_D_from_runs'], 3)}. "
    return f"{text}Muennighoff et al. 2023 found {number(_published(), 3)}."


def _published() -> float:
    from scaling.fit.laws.published import published

    return float(published(PUBLISHED).values["R_D"])


def figure(document: Document) -> Figure | None:
    """D'/U against epochs: one series a size and corpus, the line on which repeats are as good as
    new, and the laws.
    """
    runs: list[Row] = [row for row in document.get("repeats") or [] if row["ratio"]]
    if not runs:
        return None
    epochs = np.geomspace(1.0, max(row["epochs"] for row in runs) * 1.15, 60)
    lines = [Line(epochs, epochs, "as good as new", "muted", "dash", 1.6), *_laws(document, epochs)]
    caption = (
        "Fresh tokens that would have given the same loss, for each unique token, against how "
        "often these were read. "
    )
    caption += "On the dashed line a repeated token is worth a new one."
    beyond = sum(bool(row["extrapolated"]) for row in runs)
    caption += f" Rings lie beyond the fresh runs ({beyond})." if beyond else ""
    axes = Axis("epochs D/U", log=True), Axis("effective epochs D'/U", log=True)
    sizes = [row["n_params"] for row in runs]
    ramp = ColorScale("parameters N", min(sizes), max(sizes))
    traces = (*lines, *_series(runs, ramp))
    return Figure(
        "repeats", TITLE, caption, *axes, traces, ramp if ramp.lo < ramp.hi else None, "wide"
    )


def _laws(document: Document, epochs: np.ndarray) -> Iterator[Line]:
    from scaling.fit.diagnostics.repeated_data import effective_epochs

    law = document["repeats_law"]
    for r_d, label, colour in (
        ((law["R_D"] or {}).get("value"), "law fitted to all runs", 0),
        (law.get("R_D_from_runs"), "fitted to these points", 1),
    ):
        if r_d:
            yield Line(
                epochs, effective_epochs(epochs, r_d), f"{label}, R_D = {number(r_d, 3)}", colour
            )
    yield Line(
        epochs,
        effective_epochs(epochs, _published()),
        f"Muennighoff 2023, R_D = {number(_published(), 3)}",
        "ink",
        "dot",
        1.6,
    )


def _series(runs: Sequence[Row], ramp: ColorScale) -> Iterator[Trace]:
    """A colour for each size, a symbol for each corpus (once in the legend), rings beyond
    the fresh runs.
    """
    corpora = sorted({row["unique_tokens"] for row in runs})
    labelled: set[float] = set()
    for n, unique, beyond in dict.fromkeys(
        (row["n_params"], row["unique_tokens"], bool(row["extrapolated"])) for row in runs
    ):
        series = [
            row
            for row in runs
            if (row["n_params"], row["unique_tokens"], bool(row["extrapolated"]))
            == (n, unique, beyond)
        ]
        label = "" if beyond or unique in labelled else f"U {format_count(unique)}"
        labelled |= set() if beyond else {unique}
        yield _markers(
            series,
            label,
            ramp.at(n),
            "open" if beyond else SYMBOLS[corpora.index(unique) % len(SYMBOLS)],
        )


def _markers(rows: Sequence[Row], label: str, colour: float, symbol: Any) -> Markers:
    ends: list[Any] = [[row[name] for row in rows] for name in ("lo", "hi")]
    has_interval = None not in ends[0] and None not in ends[1]
    notes = [
        f"{format_count(row['n_params'])} parameters, {row['epochs']:.3g} epochs, loss "
        f"{row['loss']:.4g}: worth {row['ratio']:.3g} x U"
        for row in rows
    ]
    x, y = [row["epochs"] for row in rows], [row["ratio"] for row in rows]
    return Markers(
        x,
        y,
        label,
        colour,
        symbol,
        8,
        ends[0] if has_interval else None,
        ends[1] if has_interval else None,
        notes,
    )
