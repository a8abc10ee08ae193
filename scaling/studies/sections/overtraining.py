"""The section on over-training: loss against compute at each number of tokens per parameter, predicted from the lower ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from scaling.formatting import format_count
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, Trace
from scaling.render.section import Section
from scaling.render.table import Cell, Column, Table
from scaling.studies import findings, overtraining
from scaling.studies.overtraining import Study
from scaling.studies.sections import named_models

ID, TITLE = "overtraining", "Over-training"
BESIDE = "published:besiroglu2024"


def section(rows: pd.DataFrame) -> Section | None:
    """What a ladder of tokens per parameter shows; None where the rows hold none."""
    found = overtraining.study(rows)
    if found is None:
        return None
    figures = [figure(found, law) for law in found.laws]
    tables = [findings.table(ID, overtraining.findings(found)), predicted(found), *named()]
    return Section(ID, TITLE, figures, tables, notes(found))


def notes(found: Study) -> list[str]:
    """What is seen, in three sentences."""
    ratios, fitted = found.ladder.ratios, found.ladder.fitted
    top, errors = f"{ratios[-1]:.0f}", {law: found.error(law)[found.at(-1)] for law in found.laws}
    first = (
        f"Each line is one number of tokens per parameter D/N: the laws saw the runs up to D/N = {ratios[fitted][-1]:.0f} (filled), "
        f"and the open marks, up to {top}, were kept from them."
    )
    if not errors:
        return [
            first,
            "Neither law could be fitted to so few runs.",
            "Nothing is said here of the loss of over-trained models.",
        ]
    missed = " and ".join(
        f"the law {law} by {np.abs(error).mean():.1%} on average" for law, error in errors.items()
    )
    second = f"The loss at D/N = {top} is missed by {missed}."
    held = [law for law, error in errors.items() if np.abs(error).max() <= overtraining.WITHIN]
    bound = f"{overtraining.WITHIN:.0%}"
    if held:
        return [
            first,
            second,
            f"What over-training gives is so known beforehand to {bound}, run by run, by the law {' and by the law '.join(held)}.",
        ]
    return [
        first,
        second,
        f"Single runs lie further than {bound} off: here over-training can be told beforehand only roughly.",
    ]


def figure(found: Study, law: str) -> Figure:
    """Loss against C: what was measured, and the law at each D/N."""
    ratios = found.ladder.ratios
    ramp = ColorScale("tokens per parameter", float(ratios[0]), float(ratios[-1]), "number")
    traces = tuple(trace for rung in range(len(ratios)) for trace in _rung(found, law, rung, ramp))
    caption = f"The law {law}, fitted to the filled runs, drawn solid where it was fitted and dashed where it predicts. Open marks were held out."
    axes = Axis("training FLOPs C", log=True, unit="flops"), Axis("loss, nats per token")
    return Figure(
        f"overtraining-{law}", f"Loss at each D/N by the law {law}", caption, *axes, traces, ramp
    )


def _rung(found: Study, law: str, rung: int, ramp: ColorScale) -> Iterator[Trace]:
    """The runs of one D/N, and the law's line through sizes and FLOPs between theirs."""
    points, inputs_of = found.ladder.points, found.ladder.points.inputs("NDC")
    n, d, c = inputs_of.values()
    runs = found.at(rung)
    runs = runs[np.argsort(n[runs], kind="stable")]
    held, colour = not found.ladder.fitted[rung], ramp.at(float(found.ladder.ratios[rung]))
    _, first = np.unique(n[runs], return_index=True)
    ends = runs[first]
    log_n = np.log(n[ends])
    between = np.linspace(log_n[0], log_n[-1], 40)
    inputs = {
        letter: np.exp(np.interp(between, log_n, np.log(values[ends])))
        for letter, values in inputs_of.items()
    }
    fitted = found.laws[law]
    loss = np.exp(
        fitted.law.log_predict(
            fitted.theta, {letter: inputs[letter] for letter in fitted.law.inputs}
        )
    )
    yield Line(inputs["C"], loss, "", colour, "dash" if held else "solid", 1.8)
    label = f"D/N = {found.ladder.ratios[rung]:.0f}" + (", held out" if held else "")
    told = [
        f"{format_count(n[run])} parameters, {format_count(d[run])} tokens: {points.loss[run]:.4f}"
        for run in runs
    ]
    yield Markers(
        c[runs], points.loss[runs], label, colour, "open" if held else "circle", 8, notes=told
    )


def predicted(found: Study) -> Table:
    """Every held-out run: measured, predicted by each law, relative error."""
    points, ladder = found.ladder.points, found.ladder
    n, d, c = points.inputs("NDC").values()
    runs = [int(run) for run in np.lexsort((n, ladder.rung)) if not ladder.fitted[ladder.rung[run]]]
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        by_law = (
            value
            for law in found.laws
            for value in (float(found.predicted[law][run]), float(found.error(law)[run]))
        )
        rows.append(
            (float(n[run]), float(d[run] / n[run]), float(c[run]), float(points.loss[run]), *by_law)
        )
    columns = [
        Column("N", "count"),
        Column("D/N", "rough"),
        Column("C", "flops"),
        Column("measured", "number"),
    ]
    for law in found.laws:
        columns += [Column(f"by {law}", "number"), Column("error", "percent")]
    return Table(
        "overtraining",
        "Held-out runs",
        tuple(columns),
        tuple(rows),
        "One row a run; the laws did not see these.",
    )


def named() -> list[Table]:
    """Named models against the optimum of a published law: how over-trained the world's models are."""
    from scaling.predict.law_source import load_law
    from scaling.studies.named_models import against

    table = named_models.models({"models": against(load_law(BESIDE)), "source": BESIDE})
    return [table] if table else []
