"""What `scaling fit`, `predict`, `next` and `reconcile` print: documents as rich tables that stay
readable at 80 columns, without colour.

Foreign text enters only as rich `Text` of plain text, which knows no markup and no escape codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scaling.fit.result import FitResult
from scaling.predict.prediction import PredictionResult
from scaling.render.escape import sanitize
from scaling.render.table import Table, format_estimate, pairs, record_table
from scaling.report import headline, summary
from scaling.report.parts import diagnostics, fit_tables, prediction_tables, repeated_data
from scaling.warning import ResultWarning

Part = Table | ResultWarning | str | None

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scaling.predict.named_models import NamedModels
    from scaling.predict.reconcile import Reconciliation


def fit_parts(fit: FitResult, saved: str | None = None, command: str = "") -> list[Part]:
    """A fit: five lines, header, parameters, the three approaches, hold-out, warnings.

    `saved` is the file that it was written to, `command` what was typed.
    """
    agreement = fit.approaches_agree.message if fit.approaches_agree else ""
    return [
        pairs("headline", "", headline.fit_lines(fit, saved, command)),
        pairs("fit", "Fit", list(fit_tables.facts(fit))),
        *fit_tables.law_tables(fit),
        repeated_data.short(fit),
        fit_tables.approaches(fit, short=True),
        *(
            f"{name}: {frontier.unavailable}."
            for name, frontier in fit.approaches.items()
            if frontier.unavailable and frontier.unavailable not in agreement
        ),
        summary.holdout_sentence(fit),
        *diagnostics.check_tables(fit),
        *fit.warnings,
    ]


def fit_text(fit: FitResult, saved: str | None = None, command: str = "") -> RenderableType:
    """A fit in a terminal."""
    return page(*fit_parts(fit, saved, command))


def prediction_parts(
    prediction: PredictionResult, models: NamedModels | None = None, command: str = ""
) -> list[Part]:
    """A prediction: five lines (`command` is the next one), the optimum with intervals, the model
    that can be built, how far beyond the data it lies; `models` are named models against the
    optimum.
    """
    accuracy = prediction.accuracy
    return [
        pairs("headline", "", headline.prediction_lines(prediction, command)),
        asked(prediction),
        None if accuracy is None else f"Accuracy at this loss: {format_estimate(accuracy)}.",
        prediction_tables.error_parts(prediction),
        *prediction_tables.prediction_tables(prediction),
        *([models.table(), models.comparable] if models else []),
        headline.reach(prediction),
        *prediction.warnings,
    ]


def prediction_text(
    prediction: PredictionResult, models: NamedModels | None = None, command: str = ""
) -> RenderableType:
    """A prediction in a terminal."""
    return page(*prediction_parts(prediction, models, command))


def predictions_text(predictions: Sequence[PredictionResult]) -> RenderableType:
    """Several predictions, one row for each budget."""
    first, columns = predictions[0], {name: label for name, label, _ in fit_tables.OPTIMUM}
    warnings = {each.message: each for one in predictions for each in one.warnings}
    return page(
        record_table(
            "predictions",
            headline.titles(first)[0],
            predictions,
            columns={"flops": "FLOPs", **columns},
        ),
        f"{first.law}, {first.source}; {first.basis}",
        *warnings.values(),
    )


def asked(prediction: PredictionResult) -> Table:
    """What a prediction is about, with intervals."""
    title, mark = headline.titles(prediction)
    rows = [("law", prediction.law), ("from", prediction.source or "–")]
    rows += [("counted", prediction.basis)] if prediction.basis else []
    for name, label, kind in (("flops", "training FLOPs", "flops"), *fit_tables.OPTIMUM):
        entry = getattr(prediction, name)
        if entry.value is not None or name == "flops":
            rows.append((label.replace("*", mark), format_estimate(entry, kind)))
    for letter, value in (prediction.inputs or {}).items():
        rows.append((letter, format_estimate(value, "count")))
    return pairs("prediction", title, rows)


def models_text(models: NamedModels) -> RenderableType:
    """Named models against the optimum of a law, without a prediction."""
    return page(models.table(), models.comparable, models.basis, *models.warnings)


def reconcile_text(result: Reconciliation) -> RenderableType:
    """The result of `scaling reconcile`: exponents under each counting, and both studies on one
    law.
    """
    return page(*fit_tables.reconciled(result), *result.messages)


def page(*parts: Part) -> RenderableType:
    """Parts below each other: tables with their captions, sentences, warnings; None is left out."""
    from rich.console import Group
    from rich.text import Text

    shown: list[RenderableType] = []
    for part in parts:
        if isinstance(part, ResultWarning):
            shown.append(Text.assemble(("warning: ", "bold yellow"), sanitize(part.message)))
        elif isinstance(part, Table):
            shown.append(part.to_rich())
        text = part.caption if isinstance(part, Table) else part
        if text and isinstance(text, str):
            shown.append(Text(sanitize(text) + "\n"))
    return Group(*shown)
