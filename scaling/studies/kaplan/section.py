"""Kaplan's laws in a report: each law as a line in logs, its exponent and the published one, and
the critical batch.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from scaling.fit.special.critical_batch import ALPHA_B, B_STAR, critical_batch
from scaling.render.figure import Axis, Figure, Line, Markers
from scaling.render.section import Section
from scaling.render.table import Cell, Column, Table, number
from scaling.studies.claims import study_section
from scaling.studies.kaplan.analysis import (
    CI,
    CriticalBatch,
    KaplanLaw,
    KaplanStudy,
    analyze,
    claims,
)

UNITS: dict[str, Literal["count", "flops"]] = {"N": "count", "D": "count", "C": "flops"}
LOSS_AXIS = Axis("loss (nats per byte or token)", log=True)


def section(rows: pd.DataFrame) -> Section | None:
    """None for folders of another design than Kaplan's."""
    study = analyze(rows)
    if study is None:
        return None
    figures = [_figure(law, index) for index, law in enumerate(study.laws)]
    figures += [_batch(study.batch)] if study.batch is not None else []
    return study_section(
        "kaplan", "Kaplan's laws", claims(study), figures, [_exponents(study)], _notes(study)
    )


def _notes(study: KaplanStudy) -> list[str]:
    """Three sentences that say no more than these runs show; one law per letter, N as Kaplan counts
    it.
    """
    by_letter = {law.letter: law for law in reversed(study.laws)}
    laws = list(by_letter.values())[::-1]
    exponents = ", ".join(f"{law.power.exponent[0]:.2g} for {law.letter}" for law in laws)
    inside = [
        law.letter
        for law in laws
        if law.power.exponent[1] <= law.published <= law.power.exponent[2]
    ]
    agree = (
        f"that of {', '.join(inside)} lies" if inside else "none of the published exponents lies"
    )
    notes = [
        "Each line is a power law without a floor, as Kaplan et al. 2020 fit them: the exponents "
        f"here are {exponents}, and {agree} in its interval.",
        "Equal exponents are not to be expected: the loss of other text in other units (bytes, a "
        "short window) is another quantity than that of web text in tokens with a window of 1,024, "
        "and that study's sizes range from 768 to 1.5e9 parameters.",
        "R2 and the largest residual say how straight each line is: a floor or a second limit (too "
        "few tokens for the largest sizes, too small a model for the most tokens) bends it, "
        "and its "
        "exponent then holds for these points alone.",
    ]
    if study.share_improving:
        notes.append(
            f"Early stopping would not have stopped {study.share_improving:.0%} of the runs: their "
            "best loss is their last, and more passes might lower it."
        )
    return notes


def _figure(law: KaplanLaw, index: int) -> Figure:
    power, alpha = law.power, law.power.exponent[0]
    x = np.geomspace(power.x.min(), power.x.max(), 60)
    tooltips = [f"{100 * residual:+.2g} % off the line" for residual in power.residuals]
    published = power.y[0] / (power.x[0] / x) ** -law.published  # from the first point on
    traces = (
        Line(x, power.predict(x), f"alpha = {alpha:.3g}", "ink", "dash", 1.6),
        Line(x, published, f"Kaplan's slope, {law.published:g}", "muted", "dot", 1.4),
        Markers(power.x, power.y, "runs", 0, notes=tooltips),
    )
    caption = (
        f"{law.letter}: {law.counted}. R2 {power.r2:.3f} in logs, largest residual "
        f"{_largest_residual(law):.2g} %. Dotted: the published exponent, from the first point on."
    )
    x_axis = Axis(f"{law.letter} ({law.counted})", True, UNITS[law.letter])
    name = f"kaplan-{law.letter.lower()}-{index + 1}"
    return Figure(name, f"L({law.letter})", caption, x_axis, LOSS_AXIS, traces)


def _largest_residual(law: KaplanLaw) -> float:
    return 100 * float(np.abs(law.power.residuals).max())


def _batch(batch: CriticalBatch) -> Figure:
    """Noise scale against loss with both lines."""
    power, exponent = batch.power, batch.power.exponent[0]
    loss = np.geomspace(power.x.min(), power.x.max(), 60)
    ours = f"{number(batch.star, 3)} / L^{exponent:.3g}"
    theirs = f"Kaplan, {B_STAR:.3g} / L^{1 / ALPHA_B:.2g}"
    traces = (
        Line(loss, power.predict(loss), ours, "ink", "dash", 1.6),
        Line(loss, critical_batch(loss), theirs, "muted", "dot", 1.4),
        Markers(power.x, power.y, "ends of runs", 0),
        Markers(batch.loss_before, batch.noise_before, "before the end", 1, "open"),
    )
    caption = (
        f"The line is fitted to the ends of runs alone, R2 {power.r2:.3f} in logs: there the "
        "learning rate is cooled down, which lowers the loss and raises the noise. Kaplan's "
        "line is "
        "for tokens of that study and nats per token."
    )
    y = Axis("noise scale (tokens)", True, "count")
    title = "Critical batch by gradient noise"
    return Figure("kaplan-batch", title, caption, LOSS_AXIS, y, traces)


def _exponents(study: KaplanStudy) -> Table:
    """Exponents with intervals, the published ones, and how well each line fits."""
    rows: list[tuple[Cell, ...]] = [
        (
            f"L({law.letter}), {law.counted}",
            len(law.power.x),
            law.power.exponent,
            law.published,
            law.scale,
            law.power.r2,
            f"{_largest_residual(law):.2g} %",
        )
        for law in study.laws
    ]
    if study.batch is not None:
        batch, power = study.batch, study.batch.power
        largest = 100 * float(np.expm1(np.abs(power.residuals).max()))
        rows.append(
            (
                "B_crit(L), 1/alpha_B",
                len(power.x),
                power.exponent,
                1 / ALPHA_B,
                batch.star,
                power.r2,
                f"{largest:.2g} %",
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
    caption = (
        f"Least squares in logs; intervals of {CI:.0%} by Student's t, for the line alone: they do "
        "not account for curvature."
    )
    title = "Exponents and the published ones"
    return Table("kaplan-exponents", title, columns, tuple(rows), caption)
