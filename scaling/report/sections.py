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
from scaling.predict.named_models import COMPARABLE, compare_named_models
from scaling.predict.prediction import PredictionResult
from scaling.render.figure import Figure
from scaling.render.section import Section, section
from scaling.render.table import Table
from scaling.report import headline, summary
from scaling.report.inputs import ReportInputs, options_used
from scaling.report.parts import (
    checks,
    fit_tables,
    forecasts,
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
    caveats, sentences, tested = list[str](), list[str](), list[Section]()
    curves = training.training_curves(inputs.curves, fit.source if fit else None)
    measured = forecasts.forecast_figure(checked)
    lead: list[Figure | None] = [measured]
    parts = [forecasts.forecasts(checked)]
    answer, next_step, predicts = prediction, None, None
    if fit is not None:
        answers: list[PredictionResult] = []
        try:
            answers = _forecasts(fit)
        except ScalingError as error:
            caveats.append(f"No forecast: {error.what}.")
        answer = prediction or (answers[-1] if answers else None)
        if answer:
            unit = loss_unit(fit.source)
            sentences = [summary.answer_sentence(answer, unit)]
            trust = summary.light(fit, None, checked)
            predicts = predictor(law, inputs.path, answer.flops.value, trust, unit)
            next_step = None if checked else summary.next_step(fit, answer, law, inputs.path)
        elif text := headline.fit_answer(fit, None):
            sentences = [f"The law {fit.law}: {text}"]
        sentences.append(summary.trained(fit, answer))
        caveats += [*_stale(inputs, fit), *summary.caveats(fit, answer)]
        isoflop = isoflop_figure.isoflop_curves(fit, law)
        loss = law_plots.frontier_loss(fit, law)
        lead = [isoflop or loss, measured, history]
        parts += _fitted(inputs, fit, answers, answer, loss if isoflop else None, models)
        tested = checks.checks(fit, law)
    elif not checked:
        lead, curves = [curves], None
    if inputs.rows is not None and find_spec("scaling.studies"):  # it can be left out
        from scaling.studies import sections as studies

        parts += studies(inputs.rows)
    parts += [Section("checks", "Checks", parts=tested), *_background(inputs, curves, command)]
    kept = tuple(part for part in parts if not part.is_empty)
    sentences += [part.summary for part in kept if part.summary]
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


def _forecasts(fit: FitResult) -> list[PredictionResult]:
    """Compute-optimal models at the smallest and largest budget trained and at ten times the
    largest; none of a fit without budgets.
    """
    from scaling.predict.predict import predict

    budgets = (*fit.range["flops"], answer_budget(fit)) if "flops" in fit.range else ()
    return [predict(fit, flops=budget) for budget in budgets]


def _stale(inputs: ReportInputs, fit: FitResult) -> list[str]:
    """A note when runs were added after the fit was made."""
    if inputs.curves is None or inputs.curves.group is None:
        return []
    seen = fit.n_points + sum(item.count for item in fit.excluded)
    count = len(set(inputs.curves.group.tolist()))
    text = f"The fit saw {seen} runs, the folder holds {count} now: fit it again."
    return [text] if seen < count else []


def _fitted(
    inputs: ReportInputs,
    fit: FitResult,
    answers: Sequence[PredictionResult],
    answer: PredictionResult | None,
    loss: Figure | None,
    models: bool,
) -> list[Section]:
    """The frontier (with published ones where `models` asks for them), the law, repeated data."""
    law = inputs.law
    waste, wasted = wrong_size.wrong_size(law, answer.flops.value if answer else None)
    frontiers = [
        prediction_tables.predictions(answers[:2]),
        prediction_tables.model(answer) if answer else None,
        fit_tables.approaches(fit),
    ]
    figures, notes = [law_plots.frontier_size(fit, law), loss, waste], [wasted]
    parts = [
        section("frontier", "Frontier", figures, frontiers, [summary.growth(fit, answers), *notes])
    ]
    if models and law and law.optimum:
        published = [law_plots.published_frontiers(fit, law)]
        named = [compare_named_models(law).table(f"this fit's law {law.law}")]
        parts.append(section("models", "Open models", published, named, [COMPARABLE]))
    several = [fit_tables.laws(inputs.fits), fit_tables.compared(inputs.fits)]
    contours, tables = [law_plots.contours(fit, law)], [*fit_tables.law_tables(fit), *several]
    repeats = [repeated_data.figure(fit)], [repeated_data.repeats(fit)]
    return [
        *parts,
        section("law", "The law", contours, tables),
        section("repeats", "Repeated data", *repeats),
    ]


def _background(inputs: ReportInputs, curves: Figure | None, command: str) -> list[Section]:
    """How the runs were trained, the runs themselves, and how to make all of it again."""
    fit, rows = inputs.main, inputs.rows
    runs = origin = None
    if rows is not None and inputs.curves is not None:
        origin = run_list.training_origin(rows)
        runs = run_list.runs_table(rows, inputs.curves)
    elif fit is not None:
        runs = run_list.points_table(fit, inputs.law)
    failures = run_list.failures_table(inputs.folder) if inputs.folder else None
    listed = [fit_tables.exclusions(fit), failures, runs]
    origins = [fit_tables.provenance(fit) if fit else None, origin]
    commands = [fit_command(fit), command] if fit else [command]
    tuned = training.optima(inputs.tuning)
    return [
        section("training", "Training", [curves], tuned, folded=True),
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
