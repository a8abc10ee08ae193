"""Induction as a section: the loss on symbols that can be copied, against steps, for one layer and for two."""

from __future__ import annotations

import pandas as pd

from scaling.render.figure import Axis, Figure, Line, ReferenceLine, Trace
from scaling.render.section import Section
from scaling.render.table import Column, Table
from scaling.studies import induction
from scaling.studies.findings import table
from scaling.studies.induction import Run, Study

TITLE = "Induction: copying what stood before"


def section(rows: pd.DataFrame) -> Section | None:
    """The section of induction runs; None where there are none."""
    found = induction.study(rows)
    if found is None:
        return None
    return Section(
        "induction",
        TITLE,
        [_losses(found)],
        [table("induction", induction.findings(found)), _drops(found)],
        _notes(found),
    )


def _notes(found: Study) -> list[str]:
    """Three sentences that say no more than these runs show."""
    notes = [
        "Each window repeats a random segment of random length, so what comes next can be known only by copying what followed the same symbol before."
    ]
    copying = sum(run.final < run.guess / 2 for run in found.deep)
    if found.deep:
        notes.append(
            f"Of the runs with two layers or more, {copying} of {len(found.deep)} learn it: a plateau, then a short fall, when a head that "
            "marks each place with the symbol before it and a head that looks for that mark are both there (the induction head of Olsson 2022)."
        )
    copying = sum(run.final < run.guess / 2 for run in found.shallow)
    if found.shallow:
        notes.append(
            f"Of the runs with one layer, {copying} of {len(found.shallow)} get that far: a layer's heads read the embeddings and not each "
            "other's output, so the loss sinks only by what the symbols seen so far tell of those to come."
        )
    return notes


def _losses(found: Study) -> Figure:
    """Copied loss of all runs, and the loss on the symbols of the segment itself."""
    traces: list[Trace] = [
        ReferenceLine(y=found.runs[0].guess, label="ln V, a guess"),
        ReferenceLine(y=found.runs[0].guess / 2, label="half of ln V"),
    ]
    told: set[str] = set()
    for run in found.runs:
        label = "1 layer" if run.n_layers == 1 else f"{run.n_layers} layers"
        for values, what, dash, width in (
            (run.copied, "copied", "solid", 2.2),
            (run.fresh, "fresh", "dot", 1.2),
        ):
            name = f"{label}, {what}"
            traces.append(
                Line(
                    run.step,
                    values,
                    "" if name in told else name,
                    _colour(run),
                    dash,  # type: ignore[arg-type]
                    width,
                    f"seed {run.seed}",
                )
            )  # type: ignore[arg-type]
            told.add(name)
    caption = "Loss on the symbols that can be copied (solid) and on those of the segment's first appearance, which cannot be known (dotted). "
    caption += "One line a seed."
    axes = Axis("step", log=True, unit="count"), Axis("loss (nats per symbol)")
    return Figure(
        "induction", "Copied and fresh symbols", caption, *axes, tuple(traces), size="wide"
    )


def _colour(run: Run) -> int:
    return 1 if run.n_layers == 1 else 0


def _drops(found: Study) -> Table:
    """Each run at its end, and its largest drop."""
    rows = tuple(
        (
            run.n_layers,
            run.seed,
            run.final,
            float(run.fresh[-1]),
            run.drop.nats,
            run.drop.start,
            run.drop.end,
        )
        for run in found.runs
    )
    columns = (
        Column("layers", "integer"),
        Column("seed", "integer"),
        Column("copied loss", "number"),
        Column("fresh loss", "number"),
        Column("largest drop, nats", "number"),
        Column("from step", "integer"),
        Column("to step", "integer"),
    )
    told = "Losses at the end in nats; the drop is the largest of the copied loss within a third of the steps so far."
    return Table("induction", "Losses and drops by run", columns, rows, told)
