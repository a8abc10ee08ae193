"""What stands in a report, and in which order. Material in, `Report` out; a new section of the fit
is one more entry in `OF_FIT`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pandas as pd

import scaling
from scaling.errors import ScalingError
from scaling.formatting import format_flops
from scaling.render.figure import Figure
from scaling.render.section import Section
from scaling.render.table import Document, Table
from scaling.report import summary
from scaling.report.inputs import ReportInputs
from scaling.report.parts import (
    bootstrap_plots,
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
from scaling.report.predictor import Predictor, predictor

AHEAD = 10.0
Forecasts = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Report:
    """All of a report before it is put into a format."""

    name: str
    question: str
    sections: tuple[Section, ...]
    sentences: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    headline: str = ""
    tiles: tuple[summary.Tile, ...] = ()
    trust: tuple[str, ...] = ()
    verdict: tuple[str, str] | None = None
    predictor: Predictor | None = None
    version: str = scaling.__version__

    @property
    def figures(self) -> list[Figure]:
        """All figures, in order."""
        return [figure for section in self.sections for figure in section.figures]

    @property
    def tables(self) -> list[Table]:
        """All tables, in order."""
        return [table for section in self.sections for table in section.tables]


def build_report(
    material: ReportInputs,
    prediction: Mapping[str, Any] | None,
    command: str,
    studies: Sequence[Section] | None = None,
) -> Report:
    """Everything the material allows; `prediction` replaces the forecast for ten times the largest
    budget, `studies` are the sections of studies, where they are made already.
    """
    document = material.main
    forecasts, silence = _forecasts(material)
    ahead = prediction or (forecasts[-1] if forecasts else None)
    of_fit = [build(document, material, forecasts) for build in OF_FIT] if document else []
    sections = [
        _verified(material),
        _training(material),
        _tuning(material),
        *of_fit,
        *(study_sections(material.rows) if studies is None else studies),
        _batch(material),
        _data(material),
        _provenance(material, command),
    ]
    kept = tuple(section for section in sections if not section.is_empty)
    verified = summary.verified(material.verdicts)
    summaries = [section.summary for section in kept if section.summary]
    if document is None:
        studied = any(section.summary for section in kept)
        no_law = (
            () if verified or studied else material.no_law or ("There is no fit to report on.",)
        )
        return Report(
            material.name,
            material.question,
            kept,
            (*verified, *summaries),
            (*material.notices, *no_law),
        )
    sentences = [
        *verified,
        *summaries,
        *([summary.forecast_sentence(ahead)] if ahead else []),
        *([text] if (text := wrong_size.sentence(_wrong_size(material, forecasts))) else []),
        summary.exponents(document),
        summary.trained(document),
    ]
    headline = (
        f"Compute-optimal at {format_flops(fit_tables.budget(ahead) or 0)} FLOPs" if ahead else ""
    )
    return Report(
        material.name,
        material.question,
        kept,
        tuple(sentences),
        material.notices,
        headline,
        tuple(summary.tiles(document, ahead)),
        (*silence, *_stale(material), *summary.caveats(document, ahead)),
        summary.verdict(document),
        predictor(material.path, fit_tables.budget(ahead) if ahead else None),
    )


def study_sections(rows: pd.DataFrame | None) -> list[Section]:
    """The sections of all studies that the rows have runs for; none where the package is installed
    without studies.
    """
    if rows is None or find_spec("scaling.studies") is None:
        return []
    from scaling.studies import sections

    return sections(rows)


def _forecasts(material: ReportInputs) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Compute-optimal models at the smallest and largest budget trained and at ten times the
    largest, or why there are none.
    """
    from scaling.predict.predict import predict

    span = ((material.main or {}).get("range") or {}).get("flops")
    if not span or material.path is None:
        return [], []
    try:
        return [
            predict(str(material.path), flops=budget).to_dict()
            for budget in (span[0], span[1], AHEAD * span[1])
        ], []
    except ScalingError as error:
        return [], [f"No forecast: {error.what}."]


def _stale(material: ReportInputs) -> list[str]:
    """A note when runs were added after the fit was made."""
    if material.main is None or material.runs is None:
        return []
    seen = material.main["n_points"] + sum(item["count"] for item in material.main["excluded"])
    return (
        [f"The fit saw {seen} runs, the folder holds {material.count} now: fit it again."]
        if seen < material.count
        else []
    )


def _not_none(*items: Figure | Table | None) -> list[Any]:
    return [item for item in items if item is not None]


def _verified(material: ReportInputs) -> Section:
    return Section(
        "verified",
        "Prediction against measurement",
        _not_none(diagnostics.forecast_figure(material.verdicts)),
        _not_none(diagnostics.forecasts(material.verdicts)),
    )


def _training(material: ReportInputs) -> Section:
    return Section(
        "training",
        "Training",
        _not_none(run_plots.training_curves(material.curves) if material.curves else None),
    )


def _tuning(material: ReportInputs) -> Section:
    return Section(
        "tuning", "Tuning", tuning.ladders(material.tuning), tuning.optima(material.tuning)
    )


def _batch(material: ReportInputs) -> Section:
    return Section(
        "batch",
        "Gradient noise and batch",
        _not_none(gradient_noise.figure(material.noise_scale)),
        _not_none(gradient_noise.table(material.noise_scale)),
    )


def _isoflop(document: Document, material: ReportInputs, forecasts: Forecasts) -> Section:
    return Section("isoflop", "IsoFLOP curves", _not_none(run_plots.isoflop_curves(document)))


def _frontier(document: Document, material: ReportInputs, forecasts: Forecasts) -> Section:
    figures = _not_none(
        law_plots.frontier_size(document),
        law_plots.frontier_tokens(document),
        law_plots.frontier_loss(document),
    )
    figures += wrong_size.figures(_wrong_size(material, forecasts))
    listed = (
        _not_none(fit_tables.predictions(forecasts), fit_tables.model(forecasts[-1]))
        if forecasts
        else []
    )
    listed += _not_none(inference.price(document, material.path))
    return Section(
        "frontier",
        "Frontier",
        figures,
        [*listed, *([fit_tables.approaches(document)] if document["approaches"] else [])],
    )


def _wrong_size(material: ReportInputs, forecasts: Forecasts) -> wrong_size.SizePenalty | None:
    """At the budget that the report forecasts."""
    return (
        wrong_size.wrong_size(material.path, fit_tables.budget(forecasts[-1]))
        if forecasts
        else None
    )


def _law(document: Document, material: ReportInputs, forecasts: Forecasts) -> Section:
    compared = (
        fit_tables.laws(material.documents, published(document)) if document["approaches"] else None
    )
    stages = _not_none(
        special_tables.groups(document),
        special_tables.schedules(document),
        special_tables.accuracy(document),
    )
    fitted = (
        []
        if document.get("groups")
        else [fit_tables.parameters(document), *_not_none(diagnostics.truth(document))]
    )
    return Section(
        "law",
        "The law",
        _not_none(law_plots.contours(document)),
        [*fitted, *stages, *_not_none(compared, fit_tables.kaplan(document))],
    )


def _repeats(document: Document, material: ReportInputs, forecasts: Forecasts) -> Section:
    return Section(
        "repeats",
        "Repeated data",
        _not_none(repeated_data.figure(document)),
        _not_none(repeated_data.repeats(document)),
    )


def _checks(document: Document, material: ReportInputs, forecasts: Forecasts) -> Section:
    figures = [
        *law_plots.residuals(document),
        *_not_none(
            run_plots.holdout(document),
            bootstrap_plots.cloud(document, published(document)),
            bootstrap_plots.exponents(document, published(document)),
            diagnostics.collapse(document),
        ),
    ]
    return Section(
        "checks",
        "Checks",
        figures,
        _not_none(
            diagnostics.holdout(document),
            diagnostics.noise(document),
            diagnostics.over_frontier(document),
            diagnostics.above(document),
            diagnostics.minima(document),
            diagnostics.rollout(document),
            diagnostics.flagged(document),
        ),
    )


def _data(material: ReportInputs) -> Section:
    left_out = (
        fit_tables.exclusions(material.main)
        if material.main and material.main["excluded"]
        else None
    )
    return Section("data", "Data", tables=_not_none(left_out, material.failures, material.runs))


def _provenance(material: ReportInputs, command: str) -> Section:
    origin = (
        fit_tables.pairs("training-origin", "Where the runs were trained", material.origin)
        if material.origin
        else None
    )
    commands = [fit_command(material.main), command] if material.main else [command]
    return Section(
        "provenance",
        "Provenance",
        tables=_not_none(fit_tables.provenance(material.main) if material.main else None, origin),
        commands=commands,
    )


OF_FIT: tuple[Callable[[Document, ReportInputs, Forecasts], Section], ...] = (
    _isoflop,
    _frontier,
    _law,
    _repeats,
    _checks,
)


def published(document: Document) -> dict[str, dict[str, float]]:
    """Published laws that have a frontier: its a and b, and the parameters where the law is the
    document's own.
    """
    from scaling.fit.laws.published import PUBLISHED

    items: dict[str, dict[str, float]] = {}
    for name, entry in PUBLISHED.items():
        with suppress(ScalingError):  # a law of one input has no frontier
            frontier = entry.frontier()
            shared = dict(entry.values) if entry.law == document.get("law") else {}
            items[name] = shared | {"a": float(frontier.a), "b": float(frontier.b)}
    return items


def fit_command(document: Document) -> str:
    """The `scaling fit` command that makes this document again."""
    source, objective, drawn = (
        document.get("source") or {},
        document.get("objective") or {},
        document.get("bootstrap") or {},
    )
    columns, filters = source.get("columns") or {}, source.get("filters") or {}
    convention = {} if columns else source.get("convention") or {}
    options = {
        "--columns": ",".join(f"{letter}={name}" for letter, name in columns.items()) or None,
        "--law": "two-stage" if document.get("accuracy") else document.get("law"),
        "--approach": document.get("approach"),
        "--objective": objective.get("name"),
        "--delta": objective.get("delta"),
        "--params": convention.get("params"),
        "--flops": convention.get("flops"),
        "--bootstrap": drawn.get("resamples", 0),
        "--ci": document.get("ci"),
        "--seed": drawn.get("seed"),
        **{f"--{name.replace('_', '-')}": value for name, value in filters.items()},
    }
    words = ["scaling", "fit", *(str(path) for path in source.get("paths") or [])]
    return shlex.join(
        words
        + [
            str(part)
            for option, value in options.items()
            if value is not None
            for part in (option, value)
        ]
    )
