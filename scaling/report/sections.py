"""What a report contains, and in which order: the answer and its picture first, then frontier and
law, then what checks them. Inputs in, `Report` out.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec

import pandas as pd

import scaling
from scaling.errors import ScalingError
from scaling.fit.result import FitResult
from scaling.predict.named_models import compare_named_models
from scaling.predict.prediction import PredictionResult
from scaling.render.figure import Figure
from scaling.render.section import Section, section
from scaling.render.table import Table
from scaling.report import summary
from scaling.report.inputs import ReportInputs
from scaling.report.parts import (
    bootstrap_plots,
    candidate_laws,
    diagnostics,
    fit_tables,
    gradient_noise,
    inference,
    law_plots,
    repeated_data,
    run_plots,
    special_tables,
    tuning,
    wrong_size,
)
from scaling.report.parts.run_plots import AHEAD
from scaling.report.predictor import Predictor, predictor


@dataclass(frozen=True)
class Report:
    """All of a report before it is put into a format; `lead` are the figures of its first screen,
    `light` how far to trust the answer and why.
    """

    name: str
    question: str
    sections: tuple[Section, ...]
    lead: tuple[Figure, ...] = ()
    sentences: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    light: tuple[summary.Light, str] | None = None
    caveats: tuple[str, ...] = ()
    predictor: Predictor | None = None
    version: str = scaling.__version__

    @property
    def figures(self) -> list[Figure]:
        """All figures, in order."""
        return [*self.lead, *(figure for part in self.sections for figure in part.figures)]

    @property
    def tables(self) -> list[Table]:
        """All tables, in order."""
        return [table for part in self.sections for table in part.tables]


def build_report(
    inputs: ReportInputs,
    prediction: PredictionResult | None,
    command: str,
    studies: Sequence[Section] | None = None,
    models: bool = False,
    history: Figure | None = None,
) -> Report:
    """Everything the inputs allow; `prediction` replaces the forecast for ten times the largest
    budget, `studies` are the sections of studies, where they are made already; `models` adds
    published laws and models to the frontier; `history` shows how the forecast has moved.
    """
    fit = inputs.main
    forecasts, no_forecast = _forecasts(fit)
    answer = prediction or (forecasts[-1] if forecasts else None)
    checked = diagnostics.forecast_figure(inputs.checked)
    curves = run_plots.training_curves(inputs.curves)
    lead: list[Figure | None] = [checked]
    forecast = diagnostics.forecasts(inputs.checked)
    parts = [section("verified", "Prediction against measurement", [], [forecast])]
    if fit is not None:
        isoflop = run_plots.isoflop_curves(fit, inputs.law)
        frontier = law_plots.frontier_loss(fit, inputs.law)
        lead = [isoflop or frontier, checked, history]
        parts += [
            _frontier(fit, inputs, forecasts, answer, frontier if isoflop else None),
            _models(inputs) if models else section("models", "Open models"),
            _law(fit, inputs),
            section(
                "repeats",
                "Repeated data",
                [repeated_data.figure(fit)],
                [repeated_data.repeats(fit)],
            ),
        ]
    elif not inputs.checked:
        lead, curves = [curves], None
    parts += study_sections(inputs.rows) if studies is None else studies
    if fit is not None:
        parts.append(_checks(fit, inputs))
    parts += _background(inputs, curves, command)
    kept = tuple(part for part in parts if not part.is_empty)
    sentences = [
        *([summary.answer_sentence(answer)] if answer else []),
        *([summary.trained(fit, answer)] if fit else []),
        *summary.verified(inputs.checked),
        *(part.summary for part in kept if part.summary),
    ]
    no_law = inputs.no_law or ("There is no fit to report on.",)
    explained = fit is not None or bool(sentences)
    return Report(
        name=inputs.name,
        question=inputs.question,
        sections=kept,
        lead=tuple(figure for figure in lead if figure is not None),
        sentences=tuple(sentences),
        notices=(*inputs.notices, *(() if explained else no_law)),
        light=summary.light(fit, answer, inputs.checked) if fit else None,
        caveats=(*no_forecast, *_stale(inputs), *summary.caveats(fit, answer)) if fit else (),
        predictor=predictor(inputs.law, inputs.path, answer.flops.value) if answer else None,
    )


def study_sections(rows: pd.DataFrame | None) -> list[Section]:
    """The sections of all studies that the rows have runs for; none where the package is installed
    without studies.
    """
    if rows is None or find_spec("scaling.studies") is None:
        return []
    from scaling.studies import sections

    return sections(rows)


def _forecasts(fit: FitResult | None) -> tuple[list[PredictionResult], list[str]]:
    """Compute-optimal models at the smallest and largest budget trained and at ten times the
    largest, or why there are none.
    """
    from scaling.predict.predict import predict

    if fit is None or "flops" not in fit.range:
        return [], []
    low, high = fit.range["flops"]
    try:
        return [predict(fit, flops=budget) for budget in (low, high, AHEAD * high)], []
    except ScalingError as error:
        return [], [f"No forecast: {error.what}."]


def _stale(inputs: ReportInputs) -> list[str]:
    """A note when runs were added after the fit was made."""
    fit, curves = inputs.main, inputs.curves
    if fit is None or curves is None or curves.group is None:
        return []
    seen = fit.n_points + sum(item.count for item in fit.excluded)
    count = len(set(curves.group.tolist()))
    text = f"The fit saw {seen} runs, the folder holds {count} now: fit it again."
    return [text] if seen < count else []


def _frontier(
    fit: FitResult,
    inputs: ReportInputs,
    forecasts: Sequence[PredictionResult],
    answer: PredictionResult | None,
    loss: Figure | None,
) -> Section:
    flops = answer.flops.value if answer else None
    penalty = wrong_size.wrong_size(inputs.law, flops)
    figures = [law_plots.frontier_size(fit, inputs.law), loss, wrong_size.figure(penalty)]
    tables = [
        fit_tables.predictions(forecasts),
        fit_tables.model(answer) if answer else None,
        inference.price(inputs.law, flops),
        fit_tables.approaches(fit),
    ]
    notes = [summary.exponents(fit), wrong_size.sentence(penalty)]
    made = section("frontier", "Frontier", figures, tables)
    return replace(made, notes=[text for text in notes if text])


def _models(inputs: ReportInputs) -> Section:
    """The frontier of this fit with published laws and named models."""
    fit, law = inputs.main, inputs.law
    if fit is None or law is None or law.optimum is None:
        return section("models", "Open models")
    made = section(
        "models",
        "Open models",
        [law_plots.published_frontiers(fit, law)],
        [compare_named_models(law).table(f"this fit's law {law.law}")],
    )
    note = (
        "What compares: sizes and tokens for a budget, and the exponents, whose counting of N and "
        "C differs by source. What does not: losses, which are nats per token of each one's own "
        "tokeniser and text; no source gives the bytes per token that bits per byte would need."
    )
    return replace(made, notes=[note])


def _law(fit: FitResult, inputs: ReportInputs) -> Section:
    tables = [
        None if fit.groups else fit_tables.parameters(fit),
        candidate_laws.weights(fit),
        diagnostics.known_entropy(fit),
        special_tables.groups(fit),
        special_tables.schedules(fit),
        special_tables.accuracy(fit),
        fit_tables.laws(inputs.fits, published(fit)) if fit.approaches else None,
        fit_tables.kaplan(fit),
    ]
    return section("law", "The law", [law_plots.contours(fit, inputs.law)], tables)


def _checks(fit: FitResult, inputs: ReportInputs) -> Section:
    others = published(fit)
    figures = [
        law_plots.residuals(fit, inputs.law),
        run_plots.holdout(fit),
        bootstrap_plots.cloud(fit, others),
        bootstrap_plots.exponents(fit, inputs.law, others),
        diagnostics.collapse(fit),
    ]
    tables = [
        diagnostics.holdout(fit),
        diagnostics.noise(fit),
        diagnostics.over_frontier(fit),
        diagnostics.above(fit),
        diagnostics.minima(fit),
        diagnostics.rollout(fit),
        diagnostics.flagged(fit),
    ]
    return section("checks", "Checks", figures, tables, folded=True)


def _background(inputs: ReportInputs, curves: Figure | None, command: str) -> list[Section]:
    """How the runs were trained, the runs themselves, and how to make all of it again."""
    fit, tuned, noise = inputs.main, inputs.tuning, inputs.noise_scale
    figures = [curves, *tuning.ladders(tuned), gradient_noise.figure(noise)]
    tables = [*tuning.optima(tuned), gradient_noise.table(noise)]
    listed = [fit_tables.exclusions(fit), inputs.failures, inputs.runs]
    origin = [fit_tables.provenance(fit) if fit else None, inputs.origin]
    commands = [fit_command(fit), command] if fit else [command]
    return [
        section("training", "Training", figures, tables, folded=True),
        section("data", "Data", [], listed, folded=fit is not None),
        section("provenance", "Provenance", [], origin, commands, folded=True),
    ]


def published(fit: FitResult) -> dict[str, dict[str, float]]:
    """Published laws that have a frontier: its a and b, and the parameters where the law is the
    fit's own.
    """
    from scaling.fit.laws.published import PUBLISHED

    items: dict[str, dict[str, float]] = {}
    for name, entry in PUBLISHED.items():
        with suppress(ScalingError):  # a law of one input has no frontier
            frontier = entry.frontier()
            shared = dict(entry.values) if entry.law == fit.law else {}
            items[name] = shared | {"a": float(frontier.a), "b": float(frontier.b)}
    return items


def fit_command(fit: FitResult) -> str:
    """The `scaling fit` command that makes this fit again."""
    source, objective, drawn = fit.source, fit.objective, fit.bootstrap
    columns = ",".join(f"{letter}={name}" for letter, name in source.columns.items())
    law = "auto" if fit.combination else "two-stage" if fit.accuracy else fit.law
    options = {
        "--columns": columns or None,
        "--law": law,
        "--approach": fit.approach,
        "--objective": objective.name,
        "--delta": objective.delta,
        "--params": None if columns else source.convention.params,
        "--flops": None if columns else source.convention.flops,
        "--bootstrap": drawn.resamples if drawn else 0,
        "--ci": fit.ci,
        "--seed": drawn.seed if drawn else None,
        **{f"--{name.replace('_', '-')}": value for name, value in source.filters.items()},
    }
    given = [(option, str(value)) for option, value in options.items() if value is not None]
    words = (word for pair in given for word in pair)
    return shlex.join(["scaling", "fit", *source.paths, *words])
