"""In-context regression as a section: squared error against the number of examples, beside least squares and the best predictor."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.render.figure import Axis, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.section import Section
from scaling.render.table import Column, Table
from scaling.studies import regression
from scaling.studies.findings import table
from scaling.studies.regression import Study

TITLE = "In-context linear regression"


def section(rows: pd.DataFrame) -> Section | None:
    """The section of regression runs; None where there are none."""
    found = regression.studies(rows)
    if not found:
        return None
    figures = [figure for index, one in enumerate(found, 1) for figure in _figures(one, index)]
    findings = [one for each in found for one in regression.findings(each)]
    tables = [
        table("regression", findings),
        *(_errors(one, index) for index, one in enumerate(found, 1)),
    ]
    return Section("regression", TITLE, figures, tables, _notes(found))


def _notes(found: list[Study]) -> list[str]:
    """Three sentences that say no more than these runs show."""
    shares = [float(one.excess(one.error())) for one in found]
    ordinary = [float(one.excess(one.predictors.least_squares)) for one in found]
    beats = sum(mine < theirs for mine, theirs in zip(shares, ordinary, strict=True))
    told = ", ".join(f"{100 * share:.2g} %" for share in shares)
    return [
        "Every window is a new linear function, so its weights can be learned only from the examples in the window, and not by training.",
        f"From as many examples as features on, the transformer's squared error lies {told} of the variance of y above that of the "
        "Bayes-optimal predictor, which knows how weights and noise are distributed.",
        f"Least squares knows neither and follows the noise while examples are few; the transformer's mean excess is smaller than that of least squares in {beats} of {len(found)} tasks.",
    ]


def _figures(found: Study, index: int) -> list[Figure]:
    suffix = "" if index == 1 else f"-{index}"
    return [_by_examples(found, suffix), _by_steps(found, suffix)]


def _by_examples(found: Study, suffix: str) -> Figure:
    """Squared error against the number of examples seen."""
    seen = np.arange(found.task.examples)
    traces: list[Trace] = [
        Line(seen, found.predictors.least_squares, "least squares", 1, "dash"),
        Line(seen, found.predictors.bayes, "Bayes-optimal (ridge)", "ink", "dash"),
        ReferenceLine(y=regression.noise_variance(found.task), label="noise"),
    ]
    ends = np.array([run.error[-1] for run in found.runs])
    spread = {"lo": ends.min(axis=0), "hi": ends.max(axis=0)} if len(ends) > 1 else {}
    traces += [
        Line(seen, found.error(), "", 0, "solid", 1.2),
        Markers(seen, found.error(), "transformer", 0, **spread),
    ]
    n = found.task.n_features
    caption = f"Mean squared error of the next y, {n} features, noise of standard deviation {found.task.noise:g}. "
    caption += f"Points: mean of {len(ends)} runs and their range. " if len(ends) > 1 else ""
    caption += "Least squares takes the solution of least norm."
    return Figure(
        f"regression{suffix}",
        "Error by number of examples",
        caption,
        Axis("examples seen k"),
        Axis("squared error", log=True),
        tuple(traces),
    )


def _by_steps(found: Study, suffix: str) -> Figure:
    """The excess over the best predictor along training."""
    traces: list[Trace] = [
        ReferenceLine(y=float(found.excess(found.predictors.least_squares)), label="least squares")
    ]
    for place, run in enumerate(found.runs):
        traces.append(
            Line(
                run.step,
                found.excess(run.error),
                "" if place else "transformer",
                0,
                note=f"seed {run.seed}",
            )
        )
    caption = "Squared error above the Bayes-optimal predictor's, mean over k >= n, as a share of the variance of y. One line a seed."
    return Figure(
        f"regression-training{suffix}",
        "How the predictor is learned",
        caption,
        Axis("step", log=True, unit="count"),
        Axis("excess / variance", log=True),
        tuple(traces),
    )


def _errors(found: Study, index: int) -> Table:
    """All errors by number of examples."""
    held = found.predictors
    rows = tuple(
        (seen, float(mine), float(ordinary), float(best))
        for seen, (mine, ordinary, best) in enumerate(
            zip(found.error(), held.least_squares, held.bayes, strict=True)
        )
    )
    columns = (
        Column("examples seen", "integer"),
        Column("transformer", "number"),
        Column("least squares", "number"),
        Column("Bayes-optimal", "number"),
    )
    name = "regression" if index == 1 else f"regression-{index}"
    return Table(name, f"Squared errors, {found.task.n_features} features", columns, rows)
