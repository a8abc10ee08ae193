"""What `fit`, `predict`, `next` and `reconcile` print, as tables, sentences and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scaling.fit.result import FitResult
from scaling.predict.prediction import PredictionResult
from scaling.render.table import Table, pairs, record_table
from scaling.report import headline
from scaling.report.parts import checks, fit_tables, prediction_tables, repeated_data
from scaling.warning import ResultWarning

Part = Table | ResultWarning | str | None

if TYPE_CHECKING:
    from scaling.predict.named_models import NamedModels
    from scaling.predict.reconcile import Reconciliation


def fit_parts(fit: FitResult, saved: str | None = None, command: str = "") -> list[Part]:
    """A fit: five lines, header, parameters, the three approaches, hold-out, warnings.

    `saved` is the file that it was written to, `command` what was typed.
    """
    tested = checks.checks(fit, None)
    verdicts = [(part.title, f"{part.verdict}: {part.notes[0]}") for part in tested]
    return [
        pairs("headline", "", headline.fit_lines(fit, saved, command)),
        pairs("fit", "Fit", list(fit_tables.facts(fit))),
        *fit_tables.law_tables(fit),
        repeated_data.explanation(fit) if fit.repeats else None,
        fit_tables.approaches(fit),
        pairs("checks", "Checks", verdicts),
        *(table for part in tested if part.id != "check-holdout" for table in part.tables),
        *fit.warnings,
    ]


def prediction_parts(
    prediction: PredictionResult, models: NamedModels | None = None, command: str = ""
) -> list[Part]:
    """A prediction: five lines (`command` is the next one), the optimum with intervals, the model
    that can be built, how far beyond the data it lies; `models` are named models against the
    optimum.
    """
    return [
        pairs("headline", "", headline.prediction_lines(prediction, command)),
        prediction_tables.error_parts(prediction),
        *prediction_tables.prediction_tables(prediction),
        *([models.table(), models.comparable] if models else []),
        headline.reach(prediction) if prediction.warnings else None,  # else it is the trust
        *prediction.warnings,
    ]


def predictions_parts(predictions: Sequence[PredictionResult]) -> list[Part]:
    """Several predictions, one row for each budget."""
    first, columns = predictions[0], {name: label for name, label, _ in fit_tables.OPTIMUM}
    warnings = {each.message: each for one in predictions for each in one.warnings}
    return [
        record_table(
            "predictions",
            headline.title(first),
            predictions,
            columns={"flops": "FLOPs", **columns},
        ),
        f"{first.law}, {first.source}; {first.basis}",
        *warnings.values(),
    ]


def models_parts(models: NamedModels) -> list[Part]:
    """Named models against the optimum of a law, without a prediction."""
    return [models.table(), models.comparable, models.basis, *models.warnings]


def reconcile_parts(result: Reconciliation) -> list[Part]:
    """The result of `scaling reconcile`: exponents under each counting, and both studies on one
    law.
    """
    missing = [
        f"{each.label}: {each.unavailable}." for each in result.countings if each.unavailable
    ]
    exponents = [each.a.value for each in result.countings if each.a and each.a.value is not None]
    if result.studies and not result.countings:
        exponents = [result.studies.total, result.studies.nonembedding]
    reason = None
    if len(exponents) == 2:
        reason = (
            f"Counting alone moves the exponent a from {exponents[0]:.3f} to {exponents[1]:.3f}; "
            "what it does not explain, tuning does (Porian et al. 2024)."
        )
    return [*fit_tables.reconciled(result), reason, *missing]
