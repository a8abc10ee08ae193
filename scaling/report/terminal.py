"""What `scaling fit`, `predict`, `next` and `reconcile` print: documents as rich tables that stay
readable at 80 columns, without colour.

Foreign text enters only as rich `Text` of plain text, which knows no markup and no escape codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from scaling.fit.document import Estimate
from scaling.fit.result import FitResult
from scaling.formatting import format_flops
from scaling.predict.prediction import PredictionResult
from scaling.render.escape import sanitize
from scaling.render.table import Column, Table, estimate, format_cell, number, pairs, tabulate
from scaling.report import headline, summary
from scaling.report.parts import (
    candidate_laws,
    diagnostics,
    fit_tables,
    inference,
    repeated_data,
    special_tables,
)
from scaling.warning import ResultWarning

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scaling.predict.design.next_runs import Proposal
    from scaling.predict.named_models import NamedModels
    from scaling.predict.reconcile import Reconciliation


def fit_text(fit: FitResult, saved: str | None = None, command: str = "") -> RenderableType:
    """A fit: five lines, header, parameters, the three approaches, Kaplan, hold-out, warnings.

    `saved` is the file that it was written to, `command` what was typed.
    """
    parts: list[RenderableType] = [
        _headline(headline.fit_lines(fit, saved, command)),
        pairs("fit", "Fit", list(header(fit))).to_rich(heading=False),
        *_shown(
            None if fit.groups else fit_tables.parameters(fit),
            candidate_laws.weights(fit),
            diagnostics.known_entropy(fit),
            special_tables.groups(fit),
            special_tables.schedules(fit),
            special_tables.accuracy(fit),
            repeated_data.short(fit),
            _narrow_approaches(fit),
        ),
    ]
    agreement = fit.approaches_agree.message if fit.approaches_agree else ""
    for name, frontier in fit.approaches.items():
        if frontier.unavailable and frontier.unavailable not in agreement:
            parts += _sentences(f"{name}: {frontier.unavailable}.")
    parts += _sentences(agreement)
    parts += _shown(fit_tables.kaplan(fit))
    parts += _sentences(summary.holdout_sentence(fit))
    parts += _shown(
        diagnostics.noise(fit),
        diagnostics.above(fit),
        diagnostics.minima(fit),
        diagnostics.rollout(fit),
        diagnostics.flagged(fit),
    )
    return _group(*parts, *_warnings(fit.warnings))


def header(fit: FitResult) -> Iterator[tuple[str, str]]:
    """What was fitted to what, in pairs."""
    from scaling.fit.laws.laws import LAWS
    from scaling.fit.special.table_laws import SPECIAL

    objective, convention = fit.objective, fit.source.convention
    left_out = "; ".join(f"{item.count} {item.reason}" for item in fit.excluded)
    value = "" if objective.value is None else f" = {objective.value:.8g}"
    yield "law", f"{fit.law}, {fit.approach}"
    if fit.approach == "parametric":
        law = LAWS.get(fit.law) or SPECIAL.get(fit.law)
        yield "formula", law.formula if law else fit.law
    yield "source", ", ".join(fit.source.paths) or "–"
    yield "points", f"{fit.n_points} fitted" + (f"; left out: {left_out}" if left_out else "")
    counted = f"N = {convention.params or 'as given'}, C = {convention.flops or 'as given'}"
    yield "counted", counted
    yield "objective", f"{objective.name}{value}"
    goodness = fit.goodness
    if goodness is not None and goodness.rmse_percent is not None:
        criteria = {"AIC": goodness.aic, "BIC": goodness.bic}
        listed = [f"{name} {each:.1f}" for name, each in criteria.items() if each is not None]
        yield "errors", ", ".join([f"{goodness.rmse_percent:.3g} % root mean square", *listed])
    yield from (("note", note) for note in fit.source.notes)
    yield "status", fit.status_text


def _narrow_approaches(fit: FitResult) -> Table | None:
    """The three approaches in a table that fits 80 columns; reasons follow as sentences."""
    rows = []
    for name, frontier in fit.approaches.items():
        used = "" if frontier.n_points is None else f"{frontier.n_points} of {fit.n_points}"
        rows.append(
            {
                "name": name,
                "a": "unavailable" if frontier.unavailable else _exponent(frontier.a),
                "b": "" if frontier.unavailable else _exponent(frontier.b),
                "sum": frontier.a_plus_b,
                "runs": used,
            }
        )
    columns = {
        "name": Column("approach"),
        "a": Column("a, N* ~ C^a"),
        "b": Column("b, D* ~ C^b"),
        "sum": Column("a + b", "rough"),
        "runs": Column("runs"),
    }
    return tabulate("approaches", "Three approaches to the frontier", rows, columns)


def _exponent(entry: Estimate | None) -> str:
    return format_cell(estimate(entry), Column("", "number", True))


def prediction_text(
    prediction: PredictionResult, models: Table | None = None, command: str = ""
) -> RenderableType:
    """A prediction: five lines (`command` is the next one), the optimum with intervals, the model
    that can be built, how far beyond the data it lies; `models` are named models against the
    optimum.
    """
    accuracy = None
    if prediction.accuracy:
        text = format_cell(estimate(prediction.accuracy), Column("", "rough", True))
        accuracy = f"Accuracy at this loss: {text}."
    plain = (fit_tables.model(prediction), inference.demand(prediction))
    return _group(
        _headline(headline.prediction_lines(prediction, command)),
        asked(prediction).to_rich(heading=False),
        *_sentences(accuracy),
        *_shown(candidate_laws.breakdown(prediction), fit_tables.predicted_approaches(prediction)),
        *(table.to_rich(heading=False) for table in plain if table is not None),
        *_shown(
            inference.served(prediction),
            inference.decoding(prediction),
            inference.smaller(prediction.smaller),
            models,
        ),
        *_sentences(reach(prediction)),
        *_warnings(prediction.warnings),
    )


def predictions_text(predictions: Sequence[PredictionResult]) -> RenderableType:
    """Several predictions, one row for each budget."""
    first, names = predictions[0], ("flops", *(name for name, _, _ in fit_tables.OPTIMUM))
    columns = (
        Column("FLOPs", "flops", True),
        *(Column(label, kind, True) for _, label, kind in fit_tables.OPTIMUM),
    )
    rows = tuple(tuple(estimate(getattr(each, name)) for name in names) for each in predictions)
    warnings = {each.message: each for one in predictions for each in one.warnings}
    return _group(
        Table("predictions", headline.titles(first)[0], columns, rows).to_rich(),
        *_sentences(f"{first.law}, {first.source}; {first.basis}"),
        *_warnings(warnings.values()),
    )


def _headline(lines: headline.Lines) -> RenderableType:
    """Lines with their names in front, wrapped next to them, never cut."""
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in lines:
        grid.add_row(name, Text(sanitize(text)))
    grid.add_row("", "")
    return grid


def asked(prediction: PredictionResult) -> Table:
    """What a prediction is about, with intervals."""
    title, mark = headline.titles(prediction)
    rows = [("law", prediction.law), ("from", prediction.source or "–")]
    rows += [("counted", prediction.basis)] if prediction.basis else []
    for name, label, kind in (("flops", "training FLOPs", "flops"), *fit_tables.OPTIMUM):
        entry = estimate(getattr(prediction, name))
        if entry[0] is not None or name == "flops":
            rows.append((label.replace("*", mark), format_cell(entry, Column(name, kind, True))))
    for letter, value in (prediction.inputs or {}).items():
        rows.append((letter, format_cell(estimate(value), Column(letter, "count", True))))
    return pairs("prediction", title, rows)


reach = headline.reach


def models_text(models: NamedModels) -> RenderableType:
    """Named models against the optimum of a law, without a prediction."""
    return _group(*_shown(models.table()), *_sentences(models.basis), *_warnings(models.warnings))


def next_text(proposal: Proposal) -> RenderableType:
    """What `scaling next` proposes: the runs, what they cost, and how much they narrow N* and L* at
    the target.
    """
    runs = [{**run.to_dict(), "prefix": run.prefix or "alone"} for run in proposal.runs]
    columns = {
        "n_params": Column("parameters", "count"),
        "tokens": Column("tokens", "count"),
        "flops": Column("FLOPs", "flops"),
        "copies": Column("seeds", "integer"),
        "prefix": Column("shared prefix"),
    }
    size, loss = proposal.sd_log_n_star, proposal.sd_log_loss
    before, after = (f"a factor of {number(math.exp(sd), 3)}" for sd in (size.before, size.after))
    losses = " to ".join(f"{100 * sd:.2g} %" for sd in (loss.before, loss.after))
    sentence = (
        f"The standard error of N* at {format_flops(proposal.target)} FLOPs falls from {before} "
        f"to {after}, that of L* from {losses}, for {format_flops(proposal.spent)} of "
        f"{format_flops(proposal.budget)} FLOPs."
    )
    alone = format_flops(proposal.cost.alone)
    shared = f"Runs of one size share their prefix; separate runs would cost {alone}."
    return _group(
        *_shown(tabulate("next", "The most informative runs", runs, columns)),
        *_sentences(sentence, shared if proposal.shared else None),
        *_warnings(proposal.warnings),
    )


def reconcile_text(result: Reconciliation) -> RenderableType:
    """The result of `scaling reconcile`: exponents under each counting, and both studies on one
    law.
    """
    return _group(*_shown(*special_tables.reconciled(result)), *_sentences(*result.messages))


def _group(*parts: RenderableType) -> RenderableType:
    from rich.console import Group

    return Group(*parts)


def _shown(*tables: Table | None) -> Iterator[RenderableType]:
    """Tables with their captions; None is left out."""
    for table in tables:
        if table is not None:
            yield table.to_rich()
            yield from _sentences(table.caption)


def _sentences(*texts: str | None) -> Iterator[RenderableType]:
    from rich.text import Text

    for text in texts:
        if text:
            yield Text(sanitize(text) + "\n")


def _warnings(warnings: Iterable[ResultWarning]) -> Iterator[RenderableType]:
    from rich.text import Text

    for warning in warnings:
        yield Text.assemble(("warning: ", "bold yellow"), sanitize(warning.message))
