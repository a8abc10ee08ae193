"""What `fit`, `predict`, `next` and `reconcile` print, as tables, sentences and warnings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scaling.fit.result import FitResult
from scaling.formatting import format_flops, format_percent
from scaling.predict.prediction import PredictionResult
from scaling.render.table import Table, number, pairs, record_table
from scaling.report import headline, summary
from scaling.report.parts import diagnostics, fit_tables, prediction_tables, repeated_data
from scaling.warning import ResultWarning

Part = Table | ResultWarning | str | None

if TYPE_CHECKING:
    from scaling.predict.design.next_runs import Proposal
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
        repeated_data.explanation(fit) if fit.repeats else None,
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


def next_parts(proposal: Proposal) -> list[Part]:
    """What `scaling next` proposes: the runs, what they cost, and how much they narrow N* and L* at
    the target.
    """
    runs = [{**run.to_dict(), "prefix": run.prefix or "alone"} for run in proposal.runs]
    columns = {
        "n_params": "parameters",
        "tokens": "tokens",
        "flops": "FLOPs",
        "copies": "seeds",
        "prefix": "shared prefix",
    }
    counts = ("parameters", "tokens")
    size, loss = proposal.sd_log_n_star, proposal.sd_log_loss
    before, after = (f"a factor of {number(math.exp(sd), 3)}" for sd in (size.before, size.after))
    losses = " to ".join(format_percent(sd) for sd in (loss.before, loss.after))
    sentence = (
        f"The standard error of N* at {format_flops(proposal.target)} FLOPs falls from {before} "
        f"to {after}, that of L* from {losses}, for {format_flops(proposal.spent)} of "
        f"{format_flops(proposal.budget)} FLOPs."
    )
    alone = format_flops(proposal.cost.alone)
    shared = f"Runs of one size share their prefix; separate runs would cost {alone}."
    return [
        record_table("next", "The most informative runs", runs, columns=columns, count=counts),
        sentence,
        shared if proposal.shared else None,
        *proposal.warnings,
    ]


def reconcile_parts(result: Reconciliation) -> list[Part]:
    """The result of `scaling reconcile`: exponents under each counting, and both studies on one
    law.
    """
    return [*fit_tables.reconciled(result), *result.messages]
