"""What a report contains, and in which order: the answer and its picture first, then frontier and
law, then what checks them. Inputs in, `Report` out.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import scaling
from scaling.errors import ScalingError
from scaling.fit.result import FitResult
from scaling.predict.law_source import FittedLaw
from scaling.predict.named_models import COMPARABLE, compare_named_models
from scaling.predict.prediction import PredictionResult
from scaling.render.figure import Figure
from scaling.render.section import Section, section
from scaling.render.table import Table
from scaling.report import summary
from scaling.report.inputs import ReportInputs, options_used
from scaling.report.parts import (
    checks,
    diagnostics,
    fit_tables,
    isoflop_figure,
    law_plots,
    prediction_tables,
    repeated_data,
    run_list,
    training,
    wrong_size,
)
from scaling.report.parts.drawing import answer_budget, loss_unit
from scaling.report.predictor import Predictor, predictor

NO_FIT = ("There is no fit to report on.",)


@dataclass(frozen=True)
class Report:
    """All of a report before it is put into a format; `lead` are the figures of its first screen,
    `light` how far to trust the answer and why, `next_step` what to do about it and the command,
    `checked` how the checks went and the id of the worst.
    """

    name: str
    question: str
    sections: tuple[Section, ...]
    lead: tuple[Figure, ...] = ()
    sentences: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    light: tuple[summary.Light, str] | None = None
    next_step: tuple[str, str] | None = None
    checked: tuple[str, str] = ("", "")
    caveats: tuple[str, ...] = ()
    predictor: Predictor | None = None
    version: str = scaling.__version__

    @property
    def figures(self) -> list[Figure]:
        """All figures, in order."""
        return [*self.lead, *(figure for part in self._parts for figure in part.figures)]

    @property
    def tables(self) -> list[Table]:
        """All tables, in order."""
        return [table for part in self._parts for table in part.tables]

    @property
    def _parts(self) -> list[Section]:
        return [part for whole in self.sections for part in (whole, *whole.parts)]


def build_report(
    inputs: ReportInputs,
    prediction: PredictionResult | None,
    command: str,
    models: bool = False,
    history: Figure | None = None,
) -> Report:
    """Everything the inputs allow; `prediction` replaces the forecast for ten times the largest
    budget, `models` adds published laws and models, `history` shows how the forecast has moved.
    """
    fit, law, checked = inputs.main, inputs.law, inputs.checked
    source = fit.source if fit else None
    unit, caveats, sentences = loss_unit(source), list[str](), list[str]()
    figure, measured = diagnostics.forecast_figure(checked), [diagnostics.forecasts(checked)]
    curves = training.training_curves(inputs.curves, source)
    lead: list[Figure | None] = [figure]
    parts = [section("verified", "Prediction against measurement", [], measured)]
    answer, tested, next_step, predicts = prediction, list[Section](), None, None
    if fit is not None:
        forecasts, caveats = _forecasts(fit)
        answer = prediction or (forecasts[-1] if forecasts else None)
        if answer:
            sentences = [summary.answer_sentence(answer, unit)]
            trust = summary.light(fit, None, checked)
            predicts = predictor(law, inputs.path, answer.flops.value, trust, unit)
            next_step = None if checked else summary.next_step(fit, answer, law, inputs.path)
        sentences.append(summary.trained(fit, answer))
        caveats += [*_stale(inputs, fit), *summary.caveats(fit, answer)]
        isoflop = isoflop_figure.isoflop_curves(fit, law)
        loss = law_plots.frontier_loss(fit, law)
        lead = [isoflop or loss, figure, history]
        parts += [
            _frontier(fit, inputs, forecasts, answer, loss if isoflop else None),
            *([_models(fit, law)] if models and law and law.optimum else []),
            *_law(fit, inputs),
        ]
        tested = checks.checks(fit, law)
    elif not checked:
        lead, curves = [curves], None
    if inputs.rows is not None and find_spec("scaling.studies"):  # it can be left out
        from scaling.studies import sections as studies

        parts += studies(inputs.rows)
    parts += [Section("checks", "Checks", parts=tested), *_background(inputs, curves, command)]
    kept = tuple(part for part in parts if not part.is_empty)
    sentences += [*summary.verified(checked), *(part.summary for part in kept if part.summary)]
    light = summary.light(fit, answer, checked) if fit else summary.tested(checked)
    return Report(
        name=inputs.name,
        question=inputs.question,
        sections=kept,
        lead=tuple(figure for figure in lead if figure is not None),
        sentences=tuple(sentences),
        notices=(*inputs.notices, *(() if sentences else inputs.no_law or NO_FIT)),
        light=light,
        next_step=next_step,
        checked=checks.worst(tested),
        caveats=tuple(text for text in caveats if light is None or text != light[1]),
        predictor=predicts,
    )


def _forecasts(fit: FitResult) -> tuple[list[PredictionResult], list[str]]:
    """Compute-optimal models at the smallest and largest budget trained and at ten times the
    largest, or why there are none.
    """
    from scaling.predict.predict import predict

    if "flops" not in fit.range:
        return [], []
    try:
        budgets = (*fit.range["flops"], answer_budget(fit))
        return [predict(fit, flops=budget) for budget in budgets], []
    except ScalingError as error:
        return [], [f"No forecast: {error.what}."]


def _stale(inputs: ReportInputs, fit: FitResult) -> list[str]:
    """A note when runs were added after the fit was made."""
    if inputs.curves is None or inputs.curves.group is None:
        return []
    seen = fit.n_points + sum(item.count for item in fit.excluded)
    count = len(set(inputs.curves.group.tolist()))
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
    waste, wasted = wrong_size.wrong_size(inputs.law, flops) or (None, None)
    figures = [law_plots.frontier_size(fit, inputs.law), loss, waste]
    tables = [
        prediction_tables.predictions(forecasts[:2]),
        prediction_tables.model(answer) if answer else None,
        fit_tables.approaches(fit),
    ]
    notes = [summary.growth(fit, forecasts), wasted]
    return section("frontier", "Frontier", figures, tables, notes)


def _models(fit: FitResult, law: FittedLaw) -> Section:
    """The frontier of this fit with published laws and named models."""
    figures = [law_plots.published_frontiers(fit, law)]
    tables = [compare_named_models(law).table(f"this fit's law {law.law}")]
    return section("models", "Open models", figures, tables, [COMPARABLE])


def _law(fit: FitResult, inputs: ReportInputs) -> list[Section]:
    tables = [
        *fit_tables.law_tables(fit),
        fit_tables.laws(inputs.fits),
        fit_tables.compared(inputs.fits),
    ]
    repeats = [repeated_data.figure(fit)], [repeated_data.repeats(fit)]
    return [
        section("law", "The law", [law_plots.contours(fit, inputs.law)], tables),
        section("repeats", "Repeated data", *repeats),
    ]


def _background(inputs: ReportInputs, curves: Figure | None, command: str) -> list[Section]:
    """How the runs were trained, the runs themselves, and how to make all of it again."""
    fit, tuned, rows = inputs.main, inputs.tuning, inputs.rows
    noise = runs = origin = None
    if rows is not None and inputs.curves is not None:
        noise, origin = training.noise_scales(rows), run_list.training_origin(rows)
        runs = run_list.runs_table(rows, inputs.curves)
    elif fit is not None:
        runs = run_list.points_table(fit, inputs.law)
    figures = [curves, training.noise_figure(noise)]
    failures = run_list.failures_table(inputs.folder) if inputs.folder else None
    listed = [fit_tables.exclusions(fit), failures, runs]
    origins = [fit_tables.provenance(fit) if fit else None, origin]
    commands = [fit_command(fit), command] if fit else [command]
    return [
        section("training", "Training", figures, training.optima(tuned), folded=True),
        section("data", "Data", [], listed, folded=fit is not None),
        section("provenance", "Provenance", [], origins, commands=commands, folded=True),
    ]


def fit_command(fit: FitResult) -> str:
    """The `scaling fit` command that makes this fit again."""
    columns = ",".join(f"{letter}={name}" for letter, name in fit.source.columns.items())
    options = options_used(fit)
    options.setdefault("bootstrap", 0)
    if columns:  # say how N and C are counted
        options = {"columns": columns, **options}
        for name in ("params", "flops"):
            options.pop(name, None)
    words = ["scaling", "fit", *fit.source.paths]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
