"""Kaplan's side as a section: each law as a line in logs, its exponent beside the published one, and the critical batch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.fit.special.critical_batch import ALPHA_B, B_STAR, critical_batch
from scaling.render.figure import Axis, Figure, Line, Markers
from scaling.render.section import Section
from scaling.render.table import Cell, Column, Table, number
from scaling.studies import kaplan
from scaling.studies.findings import table
from scaling.studies.kaplan import CI, CriticalBatch, Law, Study

TITLE = "Kaplan's laws"
UNITS = {"N": "count", "D": "count", "C": "flops"}


def section(rows: pd.DataFrame) -> Section | None:
    """The section of a folder that asks Kaplan's questions; None for others."""
    found = kaplan.study(rows)
    if found is None:
        return None
    figures = [_figure(law, index) for index, law in enumerate(found.laws)]
    figures += [_batch(found.batch)] if found.batch is not None else []
    return Section(
        "kaplan",
        TITLE,
        figures,
        [table("kaplan", kaplan.findings(found)), _exponents(found)],
        _notes(found),
    )


def _notes(found: Study) -> list[str]:
    """Three sentences that say no more than these runs show."""
    told = ", ".join(f"{law.alpha[0]:.2g} for {law.letter}" for law in _distinct(found))
    inside = [law for law in _distinct(found) if law.alpha[1] <= law.published <= law.alpha[2]]
    agree = (
        "none of the published exponents lies"
        if not inside
        else f"that of {', '.join(law.letter for law in inside)} lies"
    )
    notes = [
        f"Each line is a power law without a floor, as Kaplan et al. 2020 fit them: the exponents here are {told}, and {agree} in its interval.",
        "Equal exponents are not to be expected: the loss of other text in other units (bytes, a short window) is another quantity than that of web "
        "text in tokens with 1,024 of them in sight, and that study's sizes reach from 768 to 1.5e9 parameters.",
        "R2 and the largest residual say how straight each line is: a floor or a second limit (too few tokens for the largest sizes, too small "
        "a model for the most tokens) bends it, and its exponent then holds for these points alone.",
    ]
    still = f"Early stopping would not have stopped {found.improving:.0%} of the runs: their best loss is their last, and more passes might lower it."
    return [*notes, still] if found.improving else notes


def _distinct(found: Study) -> list[Law]:
    """One law a letter: N as Kaplan counts it comes first."""
    return list({law.letter: law for law in reversed(found.laws)}.values())[::-1]


def _figure(law: Law, index: int) -> Figure:
    x = np.geomspace(law.power.x.min(), law.power.x.max(), 60)
    notes = [f"{100 * rest:+.2g} % off the line" for rest in law.power.residuals]
    through = (
        law.power.y[0] / (law.power.x[0] / x) ** -law.published
    )  # Kaplan's slope from the first point
    traces = (
        Line(x, law.power.at(x), f"alpha = {law.alpha[0]:.3g}", "ink", "dash", 1.6),
        Line(x, through, f"Kaplan's slope, {law.published:g}", "muted", "dot", 1.4),
        Markers(law.power.x, law.power.y, "runs", 0, notes=notes),
    )
    caption = f"{law.letter}: {law.counted}. R2 {law.power.r2:.3f} in logs, largest residual {_worst(law):.2g} %. "
    caption += "Dotted: the published exponent, drawn from the first point on."
    axes = (
        Axis(f"{law.letter} ({law.counted})", True, UNITS[law.letter]),  # type: ignore[arg-type]
        Axis("loss (nats per byte or token)", True),
    )  # type: ignore[arg-type]
    return Figure(
        f"kaplan-{law.letter.lower()}-{index + 1}", f"L({law.letter})", caption, *axes, traces
    )


def _worst(law: Law) -> float:
    return 100 * float(np.abs(law.power.residuals).max())


def _batch(batch: CriticalBatch) -> Figure:
    """Noise scale against loss with both lines."""
    loss = np.geomspace(batch.power.x.min(), batch.power.x.max(), 60)
    traces = (
        Line(
            loss,
            batch.power.at(loss),
            f"{number(batch.star, 3)} / L^{batch.inverse_alpha[0]:.3g}",
            "ink",
            "dash",
            1.6,
        ),
        Line(
            loss,
            critical_batch(loss),
            f"Kaplan, {B_STAR:.3g} / L^{1 / ALPHA_B:.2g}",
            "muted",
            "dot",
            1.4,
        ),
        Markers(batch.power.x, batch.power.y, "ends of runs", 0),
        Markers(batch.loss_before, batch.noise_before, "before the end", 1, "open"),
    )
    caption = f"The line goes through the ends of runs alone, R2 {batch.power.r2:.3f} in logs: there the learning rate is cooled down, which lowers the "
    caption += "loss and raises the noise. Kaplan's line is of his tokens and nats a token."
    axes = Axis("loss (nats per byte or token)", True), Axis("noise scale (tokens)", True, "count")
    return Figure("kaplan-batch", "Critical batch by gradient noise", caption, *axes, traces)


def _exponents(found: Study) -> Table:
    """Exponents with intervals, the published ones, and how well each line fits."""
    rows: list[tuple[Cell, ...]] = [
        (
            f"L({law.letter}), {law.counted}",
            len(law.power.x),
            law.alpha,
            law.published,
            law.crossing,
            law.power.r2,
            f"{_worst(law):.2g} %",
        )
        for law in found.laws
    ]
    if found.batch is not None:
        held = found.batch
        worst = 100 * float(np.expm1(np.abs(held.power.residuals).max()))
        rows.append(
            (
                "B_crit(L), 1/alpha_B",
                len(held.power.x),
                held.inverse_alpha,
                1 / ALPHA_B,
                held.star,
                held.power.r2,
                f"{worst:.2g} %",
            )
        )
    columns = (
        Column("law"),
        Column("points", "integer"),
        Column("exponent", "number", True),
        Column("Kaplan", "number"),
        Column("X_c or B*", "rough"),
        Column("R2", "number"),
        Column("largest residual"),
    )
    told = f"Least squares in logs; intervals of {CI:.0%} by Student's t, of the line alone: they know nothing of curvature."
    return Table(
        "kaplan-exponents", "Exponents beside the published ones", columns, tuple(rows), told
    )
