"""What a report says in words: the answer, what it rests on, and how far to trust it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaling.fit.document import FitStatus
from scaling.fit.result import Agreement, FitResult
from scaling.formatting import format_count, format_flops, format_percent
from scaling.predict.prediction import PredictionResult
from scaling.render.table import format_estimate, number
from scaling.report.parts.fit_tables import OPTIMUM, unidentified
from scaling.warning import ResultWarning, WarningCode

if TYPE_CHECKING:
    from scaling.predict.law_source import FittedLaw
    from scaling.predict.verification import CheckedForecast

SEVERE = (  # what makes an answer wrong, before what makes it wide
    WarningCode.FAR_OFF_LAW,
    WarningCode.MIXED_DATA,
    WarningCode.UNLIKELY_UNIT,
    WarningCode.FLOPS_DISAGREE,
    WarningCode.HYPERPARAMETERS_VARY,
    WarningCode.REPEATED_ROWS,
    WarningCode.RUN_STATE,
    WarningCode.REPEATED_DATA,
    WarningCode.FLAGGED_POINTS_DECIDE,
    WarningCode.APPROACHES_DISAGREE,
    WarningCode.HOLDOUT_COVERAGE,
    WarningCode.HOLDOUT_ONE_SIDED,
    WarningCode.MISSED_BY_ALL,
    WarningCode.UNTESTED,
    WarningCode.LAW_FORM,
    WarningCode.UNPLANNED_COST,
)
COUNTED = {
    "with_head": "blocks and output matrix",
    "total": "all parameters",
    "nonembedding": "without embeddings",
}
MAX_SIZE_FACTOR = 4.0  # between the ends of the interval of N*, to be of use
MAX_HOLDOUT_ERROR = 0.05
NO_TEST = {WarningCode.UNTESTED, WarningCode.LAW_FORM}  # of intervals over such a distance
NEAR = 0.05  # relative difference of budgets that count as the same
ONE_RATIO = "all runs have one ratio of tokens to parameters"


class Light(StrEnum):
    """How far to trust the answer."""

    TRUST = "trust it"
    CARE = "with care"
    NOT_YET = "not yet"


def answer_sentence(answer: PredictionResult, unit: str = "") -> str:
    """The answer in ordinary words: what to train, which loss to expect, and how sure that is."""
    n, d, ratio, loss = (
        format_estimate((getattr(answer, name).value, None, None), kind)
        for name, _, kind in OPTIMUM
    )
    each = "" if answer.tokens_per_param.value is None else f", {ratio} for each parameter"
    text = f"With {format_flops(answer.flops.value or 0)} FLOPs, train a model of {n} parameters "
    text += f"on {d} tokens{each}"
    if answer.loss.value is not None:
        text += f"; expect a loss of {loss}{unit and ' '}{unit}"
    text += "."
    ends = [
        words.format(form(entry.lo), form(entry.hi))
        for entry, form, words in (
            (answer.n_params, format_count, "{} to {} parameters"),
            (answer.loss, partial(number, digits=3), "loss {} to {}"),
        )
        if entry.lo is not None and entry.hi is not None
    ]
    return f"{text} {100 * answer.ci:g} % intervals: {', '.join(ends)}." if ends else text


def trained(fit: FitResult, answer: PredictionResult | None) -> str:
    """What the fit rests on, and why the answer is for another budget."""
    left_out = sum(item.count for item in fit.excluded)
    text = f"It rests on {fit.n_points:,} {'losses of curves' if fit.schedules else 'runs'}"
    if "n_params" in fit.range and "flops" in fit.range:
        n, c = (
            " to ".join(form(end) for end in fit.range[name])
            for name, form in (("n_params", format_count), ("flops", format_flops))
        )
        counted = COUNTED.get(fit.source.convention.params or "")
        text += f" of {n} parameters{f' ({counted})' if counted else ''} and {c} FLOPs"
    text += f"; {left_out:,} were left out, with reasons below." if left_out else "."
    if answer and answer.extrapolation_decades:
        times = 10**answer.extrapolation_decades
        text += (
            f" The answer is for {times:.3g} times the largest budget trained: small runs are made "
            "to plan a larger one."
        )
    return text


def next_step(
    fit: FitResult, answer: PredictionResult, law: FittedLaw | None, path: Path | None
) -> tuple[str, str]:
    """Whether a run has tested the answer, and the command that tests it, or ""."""
    flops, command = answer.flops.value or 0.0, ""
    budgets, losses = (np.array(fit.data.get(name) or (), float) for name in ("flops", "loss"))
    near = abs(budgets / flops - 1) < NEAR
    if near.any():
        best, count = number(float(losses[near].min())), int(near.sum())
        return f"Measured there: loss {best}, the best of {count} runs.", ""
    if path is not None and law is not None and law.sweep() is not None:
        words = ("scaling", "predict", str(path), "--flops", format_flops(flops))
        command = shlex.join([*words, "--emit", "test.toml"])
    return f"Not yet tested at {format_flops(flops)} FLOPs.", command


def has_one_ratio(fit: FitResult) -> bool:
    """Whether the runs cannot tell size from tokens."""
    return any(warning.code is WarningCode.ONE_RATIO for warning in fit.warnings)


def growth(fit: FitResult, forecasts: Sequence[PredictionResult]) -> str:
    """How N* and D* grow with compute, by the last two forecasts."""
    if "a" not in fit.derived:
        return f"The law {fit.law} says nothing of the best size for a budget."
    if has_one_ratio(fit):
        return f"How the best size grows does not follow: {ONE_RATIO}."
    if len(forecasts) < 2:
        return ""
    times = [
        (getattr(forecasts[-1], name).value or np.nan) / (getattr(forecasts[-2], name).value or 1)
        for name in ("flops", "n_params", "tokens")
    ]
    c, n, d = (f"{each:.2g}" for each in times)
    return f"{c} times the compute: {n} times the parameters on {d} times the tokens."


def caveats(fit: FitResult, answer: PredictionResult | None) -> list[str]:
    """Everything that limits the answer, the heaviest first."""
    texts: list[str | None] = []
    if fit.status is not FitStatus.OK and answer is None:  # else it begins the answer's warnings
        texts.append(f"Status: {fit.status_text}. See the notes in the parameter table.")
    of_answer = answer.warnings if answer else ()  # `trained` says how far it extrapolates
    texts += [one.message for one in of_answer if one.code is not WarningCode.EXTRAPOLATION]
    texts += [warning.message for warning in fit.warnings]
    return list(dict.fromkeys(text for text in texts if text))


def tested(checked: Sequence[CheckedForecast]) -> tuple[Light, str] | None:
    """The light of a law by the runs whose losses it forecast; None where it forecast none."""
    judged = [item.inside for item in checked if item.inside is not None]
    if 0 in judged:
        return Light.CARE, "measured losses lie outside the interval that was forecast"
    if judged:
        return Light.TRUST, "it forecast the losses of runs that were trained afterwards"
    return None


def severe(warnings: Sequence[ResultWarning]) -> list[ResultWarning]:
    """Those that make an answer wrong or wide."""
    return [warning for warning in warnings if warning.code in SEVERE]


def heaviest(warnings: Sequence[ResultWarning]) -> ResultWarning:
    """The one that decides how far to trust an answer."""
    order = {code: index for index, code in enumerate(SEVERE)}
    return min(warnings, key=lambda each: order.get(each.code, len(order)))


def width_reason(answer: PredictionResult) -> str:
    """Why the interval of N* is too wide to be of use; "" where it is not, or there is none."""
    lo, hi = answer.n_params.lo, answer.n_params.hi
    if lo is None and hi is None:
        return ""
    if not (lo and hi):
        return f"the interval of the best size has no {'upper' if lo else 'lower'} end"
    if hi / lo > MAX_SIZE_FACTOR:
        return f"the best size is known within a factor of {hi / lo:.2g} only"
    return ""


def light(
    fit: FitResult, answer: PredictionResult | None, checked: Sequence[CheckedForecast] = ()
) -> tuple[Light, str]:
    """How far to trust the answer, and the one reason that decides."""
    if fit.status is FitStatus.NOT_CONVERGED:
        return Light.NOT_YET, "the fit did not converge"
    if has_one_ratio(fit):
        return Light.NOT_YET, f"the best size does not follow: {ONE_RATIO}"
    if fit.status is FitStatus.NOT_IDENTIFIED and fit.combination is None:
        names = ", ".join(unidentified(fit))
        by_runs = f"not identified by these runs: {names}"
        return Light.NOT_YET, by_runs if names else fit.status_text
    holdout, agreement = fit.holdout, fit.approaches_agree
    if answer and (too_wide := width_reason(answer)):
        return Light.NOT_YET, too_wide
    forecast = tested(checked)
    if forecast and forecast[0] is not Light.TRUST:
        return forecast
    if heavy := severe(fit.warnings):
        return Light.CARE, heaviest(heavy).message
    error = holdout.mean_abs_rel_error if holdout else None
    if error is not None and error > MAX_HOLDOUT_ERROR:
        return Light.CARE, f"it misses the budget that was held out by {format_percent(error)}"
    if agreement and agreement.verdict is Agreement.DISAGREE:
        return Light.CARE, "the three approaches disagree about the best size"
    if fit.status is FitStatus.NOT_IDENTIFIED:
        names = ", ".join(unidentified(fit))
        return Light.CARE, f"not identified by these runs: {names} of the law"
    if fit.warnings:
        return Light.CARE, fit.warnings[0].message
    if error is None and not forecast:
        what = "only curves were held out to test it, no budget"
        return Light.CARE, what if fit.test else "no budget was held out to test it"
    for warning in answer.warnings if answer else ():
        if warning.code in NO_TEST:
            return Light.CARE, warning.message
    within = format_percent(max(error or 0.0, 1e-4))
    held_out = f"it predicts the budget that was held out within {within}"
    return forecast or (Light.TRUST, held_out)
