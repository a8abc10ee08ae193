"""A fit or a published law, and one question: the model to train, with intervals.

The question is a budget of FLOPs, a size, its tokens, both, or a loss to reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from scaling.accounting import DeviceTime
from scaling.errors import ScalingError
from scaling.fit.document import Interval
from scaling.fit.result import FitResult
from scaling.formatting import format_count, format_flops
from scaling.predict import answers
from scaling.predict.answers import Answer
from scaling.predict.breakdown import OPTIMUM, breakdown, with_disagreement
from scaling.predict.iso_loss import prices, with_demand
from scaling.predict.law_source import FittedLaw, load_law
from scaling.predict.prediction import (
    COMBINATION,
    ApproachPrediction,
    PredictionResult,
    TrainingTime,
)
from scaling.predict.question import Question, QuestionKind, option_of
from scaling.warning import ResultWarning, WarningCode, warn

LAW_FORM_DECADES = 0.3  # of extrapolation: the backtest scores intervals of one law from 2 C on
TESTED_DECADES = 1.5  # of extrapolation, to which benchmarks/backtest.py scores the combination
MIN_DECADES = 0.05  # beyond the largest budget, to count as extrapolation
SLACK = {"tokens_per_param": 1.05}  # of what lies outside the runs, else 1.01
LABELS = {"n_params": "parameters", "tokens": "tokens", "tokens_per_param": "tokens per parameter"}
MEASURES = ("flops", "n_params", "tokens", "loss", "tokens_per_param", "accuracy")
UNITS = {
    "flops": ("compute", "FLOPs"),
    "n_params": ("parameters", "parameters"),
    "tokens": ("tokens", "tokens"),
}


@np.errstate(all="ignore")  # draws of what is not identified overflow: null in the document
def predict(
    source: str | FitResult | Mapping[str, Any],
    *,
    loss: object = None,
    inference_tokens: object = None,
    smaller: object = None,
    devices: DeviceTime | Mapping[str, Any] | None = None,
    with_model: bool = False,
    **inputs: object,
) -> PredictionResult:
    """The answer to one question; counts may be text such as 70B or "0.5 PF-days".

    `source` is the file of a fit, its result, or `published:NAME`. `inputs` are named as in
    `question.OPTIONS` (flops, n_params, tokens, unique_tokens, ...), or by their letter.
    `inference_tokens` adds the size that costs least FLOPs when it also serves them; with a size
    alone it asks for the tokens at which that size is the cheapest. `smaller` ("0.5,0.3", shares of
    N) adds what smaller models of the same loss cost, `devices` the time of training, `with_model`
    a model that can be built, which is there anyway where the fit knows its vocabulary.

    Raises ScalingError for a missing source, for text that is no quantity, and for more or fewer
    than one question.
    """
    question = Question.parse(inputs, loss, inference_tokens, smaller)
    demand = question.inference_tokens
    times = DeviceTime(**devices) if isinstance(devices, Mapping) else devices
    law = load_law(source)
    is_repeated = "U" in question.inputs
    if is_repeated and (demand is not None or question.smaller):
        raise ScalingError(
            "models of equal loss are known for fresh tokens only, and these are repeated",
            where=option_of("U"),
            remedy="leave it out, or --smaller and --inference-tokens",
        )
    kind, answer = answers.answer(law, question)
    parts = breakdown(law, kind, answer)
    flops = answer["flops"].value
    model, no_model = _model(law, answer, with_model or law.model.vocab_size is not None)
    inference, far_served, smaller_models, time = None, [], None, None
    if demand is not None and kind is not QuestionKind.SERVED_SIZE:
        size = _size(answer, "--inference-tokens")
        inference = with_demand(law, *size, demand, kind in OPTIMUM)
        served = _sizes(inference.n_params, inference.tokens)
        far_served = _outside(law, served, "the size that is cheapest to serve: ")
    decades, warnings = _extrapolation(law, kind, answer, question.inputs)
    approaches, interval = {}, answers.OneLaw(law).interval
    budget = question.inputs.get("C", math.nan)
    is_approached = kind is QuestionKind.BUDGET and not is_repeated
    for name, frontier in law.approaches.items() if is_approached else ():
        approaches[name] = ApproachPrediction(
            n_params=interval(frontier.n_star(budget)),
            tokens=interval(frontier.d_star(budget)),
            loss=interval(frontier.loss(budget)),
        )
    answer, disagreement = with_disagreement(law, answer, approaches)
    if question.smaller:  # of an optimum every draw has its own
        n, d = _size(answer, "--smaller")
        at = flops if kind in OPTIMUM else None
        smaller_models = prices(law, n, d, question.smaller, at)
    if times is not None and flops is not None:
        time = TrainingTime(**asdict(times), hours=times.hours_for(flops))
    others = {
        letter: Interval(value=value, lo=None, hi=None)
        for letter, value in question.inputs.items()
        if letter not in ("N", "D", "C")
    }
    others |= {name: each for name, each in answer.items() if name not in MEASURES}
    return PredictionResult(
        question=kind,
        **{name: answer[name] for name in MEASURES if name in answer},
        inputs=others or None,
        inference=inference,
        smaller=smaller_models,
        approaches=approaches or None,
        time=time,
        extrapolation_decades=decades,
        model=model,
        combination=parts,
        law=COMBINATION if parts else law.law,
        source=law.source,
        ci=law.ci,
        basis=law.basis,
        warnings=(
            *disagreement,
            *law.warnings,
            *warnings,
            *far_served,
            *no_model,
        ),
    )


def _size(answer: Answer, option: str) -> tuple[float, float]:
    """N and D of an answer. Raises ScalingError where one of them is open, or below 1."""
    n, d = answer["n_params"].value, answer["tokens"].value
    if n is None or d is None:
        raise ScalingError(
            "this law names no N and D to start from",
            where=option,
            remedy="use a fit of the law chinchilla",
        )
    if n < 1 or d < 1:
        raise ScalingError(
            f"N* = {n:.3g} and D* = {d:.3g} are outside the law's range",
            where=option,
            remedy="ask for more FLOPs, or for a lower loss",
        )
    return n, d


def _model(
    law: FittedLaw, answer: Answer, wants_model: bool
) -> tuple[dict[str, Any] | None, list[ResultWarning]]:
    """A buildable model for the predicted N and D by the sweep's recipe, or why there is none."""
    n, d = answer["n_params"].value, answer["tokens"].value
    if n is None or d is None:
        return None, []
    sizes: dict[str, Any] = {  # published laws are of large vocabularies
        "vocab_size": law.model.vocab_size or (32_000 if n >= 1e8 else 256),
        "seq_len": law.model.seq_len or 2048,
    }
    try:
        _size(answer, "--model")
        if not wants_model:
            return None, []
        from scaling.recipe import describe

        return describe(n, d, **sizes, sweep=law.sweep(), params=law.counting()[0]), []
    except ScalingError as error:
        return None, [warn(WarningCode.NO_MODEL, f"no model: {error.what}")]


def _extrapolation(
    law: FittedLaw, kind: QuestionKind, answer: Answer, inputs: Mapping[str, float]
) -> tuple[float | None, list[ResultWarning]]:
    """Decades beyond the data, of C where it is known, and a warning for each way in which the
    answer leaves them.
    """
    name = next((name for name in UNITS if name in law.range and answer[name].value), None)
    if name is None:
        is_known = any(letter in law.range for letter in inputs)
        return (0.0 if is_known else None), _outside(law, inputs)
    (label, unit), span, value = UNITS[name], law.range[name], answer[name].value or 0.0
    if value <= 0:
        return None, []
    decades = max(0.0, math.log10(value / span[1]))
    warnings = []
    if decades > MIN_DECADES:
        message = (
            f"{format_flops(10**decades)} times the {label} of the largest run "
            f"({format_flops(value)} against {format_flops(span[1])} {unit})"
        )
        warnings.append(warn(WarningCode.EXTRAPOLATION, message, decades=decades))
        if law.convention.flops == "exact" and law.cost.planned is None:
            message = (
                "FLOPs of models beyond the runs follow a power of N, which may be off by some per "
                "cent: a fit of the results folder with its sweep.toml counts them"
            )
            warnings.append(warn(WarningCode.UNPLANNED_COST, message, c0=law.cost.c0, p=law.cost.p))
    if value < span[0] * 0.99:
        below = math.log10(span[0] / value)
        message = (
            f"{format_flops(10**below)} times below the {label} of the smallest run "
            f"({format_flops(value)} against {format_flops(span[0])} {unit})"
        )
        warnings.append(warn(WarningCode.BELOW_DATA, message, decades=below))
    is_one_law = law.combination is None
    if decades > LAW_FORM_DECADES and law.draws is not None and is_one_law:
        message = (
            "the interval does not cover errors in the law's form: on other runs seven of ten such "
            "95 % intervals held"
        )
        warnings.append(warn(WarningCode.LAW_FORM, message))
    if not is_one_law and (message := _untested(law, decades)):
        warnings.append(warn(WarningCode.UNTESTED, message, decades=decades))
    sizes = _sizes(answer["n_params"].value, answer["tokens"].value)
    if decades > MIN_DECADES and kind is not QuestionKind.INPUTS:
        # beyond the budgets an optimum leaves the sizes and tokens too, which says nothing new
        sizes = {"tokens_per_param": sizes["tokens_per_param"]}
    return decades, [*warnings, *_outside(law, sizes)]


def _untested(law: FittedLaw, decades: float) -> str:
    """Why forecasts over so many decades are not known to hold; "" where these runs tested them."""
    if decades > TESTED_DECADES:
        return (
            f"forecasts were tested up to {TESTED_DECADES:g} decades beyond the data: "
            "farther out the interval is a guess"
        )
    tested = law.tested_decades
    if tested is None or decades <= tested + MIN_DECADES:
        return ""
    held = "on other runs nine of ten such 95 % intervals held"
    if tested < MIN_DECADES:
        return f"these runs have tested no forecast as far as this: {held}"
    return (
        f"these runs test forecasts over a factor of {format_flops(10**tested)} in compute, and "
        f"this one spans {format_flops(10**decades)}: {held}"
    )


def _sizes(n: float | None, d: float | None) -> dict[str, float | None]:
    """N, D and D/N by name."""
    return {"n_params": n, "tokens": d, "tokens_per_param": d / n if n and d else None}


def _outside(
    law: FittedLaw, values: Mapping[str, float | None], subject: str = ""
) -> list[ResultWarning]:
    """A warning for each value that lies outside those of the runs."""
    warnings = []
    for name, value in values.items():
        ends, slack = law.range.get(name), SLACK.get(name, 1.01)
        if not ends or not value or ends[0] / slack <= value <= ends[1] * slack:
            continue
        what = f"{name} = {format_count(value)} lies"
        if name in LABELS:
            what = f"{subject}{format_count(value)} {LABELS[name]} lie"
        message = f"{what} outside the data ({format_count(ends[0])} to {format_count(ends[1])})"
        warnings.append(warn(WarningCode.OUTSIDE_DATA, message, quantity=name))
    return warnings
