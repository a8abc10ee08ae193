"""A fit or a published law, and one question: the model to train, with intervals.

The question is a budget of FLOPs, a size and its tokens, or a loss to reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling.errors import ScalingError, unknown_choice
from scaling.fit.document import Estimate, Interval
from scaling.fit.result import FitResult
from scaling.formatting import count_option, format_count, format_flops
from scaling.predict import combined
from scaling.predict.combined import disagreement
from scaling.predict.law_source import FittedLaw, load_law
from scaling.predict.prediction import (
    ApproachPrediction,
    CombinedAnswer,
    Inference,
    Prediction,
    ServingCost,
    SmallerModel,
)
from scaling.warning import ResultWarning, WarningCode, warn

if TYPE_CHECKING:
    from scaling.predict.serving import Serving

LAW_FORM_DECADES = 1.0  # of extrapolation, from which the law itself is in doubt
MIN_DECADES = 0.05  # beyond the largest budget, to count as extrapolation
Answer = dict[str, Interval]


@np.errstate(all="ignore")  # draws of what is not identified overflow: null in the document
def predict(
    source: str | FitResult | Mapping[str, Any],
    *,
    flops: object = None,
    n_params: object = None,
    tokens: object = None,
    loss: object = None,
    unique_tokens: object = None,
    inference_tokens: object = None,
    smaller: object = None,
    serving: Serving | None = None,
    inputs: object = None,
) -> Prediction:
    """The prediction for FLOPs, for N and D, or for a loss to reach; counts may be text such as
    70B.

    `source` is the file of a fit, its result, or `published:NAME`.

    `inference_tokens` adds the size that costs least when it also serves them, in FLOPs and, with
    `serving`, in device-seconds; `smaller` ("0.5,0.3", shares of N) what smaller models of the same
    loss cost; `inputs` ("experts=64,N=1e9") gives those of a formula by name. Raises ScalingError for a missing source, for text that is not a number, and for more
    or fewer than one question.
    """
    given = {
        "flops": flops,
        "n_params": n_params,
        "tokens": tokens,
        "loss": loss,
        "unique_tokens": unique_tokens,
    }
    question = {name: _number(name, value) for name, value in given.items() if value is not None}
    demand = None if inference_tokens is None else _demand(inference_tokens)
    law = load_law(source)
    by_name = _named_inputs("" if inputs is None else str(inputs))
    combined_answer = None if by_name else _combined_answer(law, question)
    answer, parts = combined_answer or (_answer(law, question, by_name), None)
    inference = None if demand is None else _inference(law, answer, demand, serving)
    is_optimum = {"n_params", "tokens"}.isdisjoint(question)
    model, no_model = _model(law, answer)
    decoding = None
    if serving is not None and model is not None:
        from scaling.predict.serving import decoding as decode

        decoding = decode(model, serving)
    decades, warnings = _extrapolation(law, answer, is_one_law=parts is None)
    approaches = (
        _by_approach(law, question["flops"]) if "flops" in question and law.approaches else None
    )
    apart = disagreement(approaches) if parts and approaches else None
    return Prediction(
        **answer,
        inference=inference,
        smaller=None if smaller is None else _smaller(law, answer, smaller, is_optimum),
        approaches=approaches,
        inputs=by_name or None,
        accuracy=_accuracy(law, answer, question.get("flops")),
        decoding=decoding,
        extrapolation_decades=decades,
        model=model,
        combination=parts,
        law=combined.NAME if parts else law.law,
        source=law.source,
        ci=law.ci,
        basis=law.basis,
        warnings=(*([apart] if apart else []), *law.warnings, *warnings, *no_model),
    )


def _number(name: str, value: object) -> float:
    return count_option(
        value,
        f"--{name.replace('_', '-')}",
        'give a positive number, such as 1e21, 5.76e23 or "70B"',
    )


def _named_inputs(text: str) -> dict[str, float]:
    """`"experts=64,N=1e9"` as numbers."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return {name.strip(): _number("inputs", value.strip()) for name, _, value in pairs}


def _demand(value: object) -> float:
    """Tokens to be served; none at all is an answer too."""
    return 0.0 if str(value).strip() in ("0", "0.0") else _number("inference_tokens", value)


def _size(answer: Answer, option: str) -> tuple[float, float]:
    """N and D of an answer.

    Raises ScalingError where a law in one variable leaves one of them open, or where they are below
    1.
    """
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


def _inference(law: FittedLaw, answer: Answer, demand: float, serving: Serving | None) -> Inference:
    """The size that costs least with its demand: in FLOPs, and in device-seconds with the model
    then served.
    """
    from scaling.predict.serving import with_demand

    n, d = _size(answer, "--inference-tokens")
    inference = with_demand(law.law, law.values, law.cost, n, d, demand)
    if serving is None:
        return inference
    from scaling.predict.serving import decoding, nearest_servable_model, with_serving

    vocab_size, seq_len = _task_of(law, n)
    forms = with_serving(law.law, law.values, law.cost, n, d, demand, serving, vocab_size)
    cheapest = forms["MHA"]
    model = nearest_servable_model(cheapest.n_params, cheapest.tokens, vocab_size, seq_len)
    cost = ServingCost(
        **asdict(serving),
        context=serving.context,
        requests=demand / serving.context,
        forms=forms,
        model=model,
        decoding=decoding(model, serving),
    )
    return inference.model_copy(update={"serving": cost})


def _smaller(law: FittedLaw, answer: Answer, given: object, is_optimum: bool) -> list[SmallerModel]:
    """Smaller models of the same loss; every draw of an optimum has its own."""
    from scaling.predict.iso_loss import check_reachable, fractions_of, prices

    n, d = _size(answer, "--smaller")
    flops = answer["flops"].value if is_optimum else None
    rows = prices(law, n, d, fractions_of(given), flops)
    check_reachable(rows, n)
    return rows


def _accuracy(law: FittedLaw, answer: Answer, flops: float | None) -> Interval | None:
    """The accuracy at the predicted loss, where the fit has a second stage."""
    loss = answer["loss"].value
    if law.accuracy is None or loss is None:
        return None
    from scaling.fit.special.two_stage import predicted_accuracy

    draws = law.optimum_draws
    drawn = draws.loss(flops) if draws is not None and flops is not None else None
    return predicted_accuracy(law.accuracy, loss, drawn, law.ci)


def _task_of(law: FittedLaw, n: float) -> tuple[int, int]:
    """The vocabulary and sequence length of the models of a law; published laws are of large
    vocabularies.
    """
    return law.model.vocab_size or (32_000 if n >= 1e8 else 256), law.model.seq_len or 2048


def _combined_answer(
    known: FittedLaw, asked: Mapping[str, float]
) -> tuple[Answer, dict[str, CombinedAnswer]] | None:
    """The answer of the combination of laws, and what stands behind it; None where the fit has
    none, or none to this question.
    """
    combination, question = known.combination, set(asked)
    if combination is None:
        return None
    if question == {"flops"}:
        return combined.at_flops(known, combination, asked["flops"])
    if question == {"n_params", "tokens"}:
        return combined.at_inputs(known, combination, asked["n_params"], asked["tokens"])
    if question == {"loss"}:
        return combined.at_loss(known, combination, asked["loss"])
    return None


def _answer(law: FittedLaw, asked: Mapping[str, float], by_name: Mapping[str, float]) -> Answer:
    question = set(asked) - {"unique_tokens"}
    if by_name:
        return _at_inputs(law, asked, by_name)
    if question == {"flops"} and law.optimum is not None:
        return _at_flops(law, asked["flops"])
    if question == {"loss"} and law.optimum is not None:
        return _at_loss(law, asked["loss"])
    if question == {"n_params", "tokens"} or (
        question and law.optimum is None and question <= {"flops", "n_params", "tokens"}
    ):
        return _at_inputs(law, asked, {})
    needed = (
        "one of --flops, --loss, or --n-params with --tokens"
        if law.optimum is not None
        else f"the inputs of the law {law.law}"
    )
    given = " with ".join(f"--{name.replace('_', '-')}" for name in sorted(question))
    what = (
        f"{given} alone is not a question that {law.source} answers"
        if given
        else f"no question is asked of {law.source}"
    )
    raise ScalingError(what, remedy=f"give {needed}")


def _interval(value: Any, draws: np.ndarray | None, ci: float) -> Interval:
    return Estimate.of(float(value), draws, ci).interval()


def _at_flops(law: FittedLaw, flops: float) -> Answer:
    optimum, spread = law.optimum, law.optimum_draws
    assert optimum is not None
    n, d, loss = optimum.n_star(flops), optimum.d_star(flops), optimum.loss(flops)
    drawn = (
        (None, None, None)
        if spread is None
        else (spread.n_star(flops), spread.d_star(flops), spread.loss(flops))
    )
    return _measures(
        law,
        (flops, None),
        (n, drawn[0]),
        (d, drawn[1]),
        (np.nan if loss is None else loss, drawn[2]),
    )


def _by_approach(law: FittedLaw, flops: float) -> dict[str, ApproachPrediction]:
    """N*, D* and L* at C by every approach that the fit holds."""
    predictions = {}
    for name, (optimum, spread) in law.approaches.items():
        values: tuple[Any, ...] = (
            optimum.n_star(flops),
            optimum.d_star(flops),
            np.nan if optimum.floor is None else optimum.loss(flops),
        )
        drawn = (
            (None, None, None)
            if spread is None
            else (spread.n_star(flops), spread.d_star(flops), spread.loss(flops))
        )
        n, d, loss = (
            _interval(value, draws, law.ci) for value, draws in zip(values, drawn, strict=True)
        )
        predictions[name] = ApproachPrediction(n_params=n, tokens=d, loss=loss)
    return predictions


def _at_loss(law: FittedLaw, loss: float) -> Answer:
    """The cheapest C that reaches the loss, and its N* and D*."""
    optimum, spread = law.optimum, law.optimum_draws
    assert optimum is not None
    flops = float(optimum.flops_for(loss))
    if not math.isfinite(flops):
        floor = float(optimum.floor)  # type: ignore[arg-type]
        raise ScalingError(
            f"--loss {loss:g} cannot be reached: the law's floor E is {floor:.4g}",
            remedy=f"ask for more than {floor:.4g}",
        )
    needed = None if spread is None else spread.flops_for(loss)
    n, d = (
        (None, None)
        if spread is None or needed is None
        else (spread.n_star(needed), spread.d_star(needed))
    )
    return _measures(
        law, (flops, needed), (optimum.n_star(flops), n), (optimum.d_star(flops), d), (loss, None)
    )


def _measures(law: FittedLaw, *pairs: tuple[Any, Any]) -> Answer:
    """The four measures and their ratio, each from (value, draws)."""
    answer = {
        name: _interval(*pair, law.ci)
        for name, pair in zip(("flops", "n_params", "tokens", "loss"), pairs, strict=True)
    }
    (n, n_draws), (d, d_draws) = pairs[1], pairs[2]
    ratio = None if n_draws is None or d_draws is None else d_draws / n_draws
    return {**answer, "tokens_per_param": _interval(d / n, ratio, law.ci)}


def _at_inputs(
    source: FittedLaw, asked: Mapping[str, float], by_name: Mapping[str, float]
) -> Answer:
    """The loss at given N and D, at the input of a law in one variable, or at inputs by name."""
    from scaling.fit.laws.laws import LAWS

    law = LAWS.get(source.law)
    if law is None:
        raise ScalingError(
            f"{source.source} holds a frontier and no law of the loss",
            remedy="give --flops, or fit with --approach parametric",
        )
    letters = {"n_params": "N", "tokens": "D", "flops": "C", "unique_tokens": "U"}
    asked = {**asked, **{name: by_name[of] for name, of in letters.items() if of in by_name}}
    given = {letters[name]: np.array([value]) for name, value in asked.items()}
    given |= {name: np.array([value]) for name, value in by_name.items()}
    if by_name and (unused := sorted(set(given) - {*law.inputs, "C"})):
        raise unknown_choice("input", unused[0], law.inputs, where="--inputs")
    if "U" in law.inputs and "D" in given:
        given.setdefault("U", given["D"])
    if "C" in law.inputs and {"N", "D"} <= set(given):
        given.setdefault("C", source.cost.flops(given["N"], given["D"]))
    lacking = [letter for letter in law.inputs if letter not in given]
    if lacking:
        raise ScalingError(
            f"the law {law.name} needs {', '.join(law.inputs)}; {', '.join(lacking)} is missing",
            remedy="give --n-params, --tokens or --flops"
            if set(lacking) <= set(letters.values())
            else f'give --inputs "{",".join(f"{name}=..." for name in law.inputs)}"',
        )
    inputs = {letter: given[letter] for letter in law.inputs}
    value = float(law.predict(law.theta(source.values), inputs)[0])
    drawn = law.predict(law.theta(source.draws), inputs)[:, 0] if source.draws else None
    n, d = asked.get("n_params", math.nan), asked.get("tokens", math.nan)
    flops = asked.get("flops", float(source.cost.flops(np.asarray(n), np.asarray(d))))
    return _measures(source, (flops, None), (n, None), (d, None), (value, drawn))


def _model(law: FittedLaw, answer: Answer) -> tuple[dict[str, Any] | None, list[ResultWarning]]:
    """A buildable model for the predicted N and D, or a warning that says why there is none."""
    from scaling.recipe import describe

    n, d = answer["n_params"].value, answer["tokens"].value
    if n is None or d is None:
        return None, []
    if n < 1 or d < 1:
        message = f"no model: N* = {n:.3g} and D* = {d:.3g} are outside the law's range"
        return None, [warn(WarningCode.NO_MODEL, message)]
    vocab_size, seq_len = _task_of(law, n)
    try:
        return describe(n, d, vocab_size=vocab_size, seq_len=seq_len), []
    except ScalingError as error:
        return None, [warn(WarningCode.NO_MODEL, f"no model: {error.what}")]


def _extrapolation(
    law: FittedLaw, answer: Answer, is_one_law: bool
) -> tuple[float | None, list[ResultWarning]]:
    """Decades of C beyond the data, and a warning for each way in which the answer leaves them."""
    span, flops = law.range.get("flops"), answer["flops"].value
    if span is None or flops is None or flops <= 0:
        return None, []
    decades = max(0.0, math.log10(flops / span[1]))
    warnings = []
    if decades > MIN_DECADES:
        message = (
            f"{decades:.1f} decades of compute beyond the data "
            f"({format_flops(flops)} against {format_flops(span[1])} FLOPs)"
        )
        warnings.append(warn(WarningCode.EXTRAPOLATION, message, decades=decades))
    if flops < span[0] * 0.99:
        below = math.log10(span[0] / flops)
        message = f"{below:.1f} decades of compute below the data"
        warnings.append(warn(WarningCode.BELOW_DATA, message, decades=below))
    if decades > LAW_FORM_DECADES and law.draws is not None and is_one_law:
        message = "the interval does not cover errors in the law's form"
        warnings.append(warn(WarningCode.LAW_FORM, message))
    if decades > MIN_DECADES:
        return decades, warnings
    for name, label in (("n_params", "parameters"), ("tokens", "tokens")):
        ends, value = law.range.get(name), answer[name].value
        if ends and value is not None and not ends[0] * 0.99 <= value <= ends[1] * 1.01:
            message = (
                f"{format_count(value)} {label} lie outside the data "
                f"({format_count(ends[0])} to {format_count(ends[1])})"
            )
            warnings.append(warn(WarningCode.OUTSIDE_DATA, message, quantity=name))
    return decades, warnings
