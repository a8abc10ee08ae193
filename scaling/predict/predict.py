"""The end of the line: a fit (or a published law) and one question become the model to train, with what it is worth.

The question is a budget of FLOPs, a size and its tokens, or a loss to reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.fit_document import interval, to_jsonable
from scaling.formatting import count_option, format_count, format_flops
from scaling.predict import combined
from scaling.predict.combined import disagreement
from scaling.predict.law_source import FittedLaw, load_law

if TYPE_CHECKING:
    from scaling.predict.serving import Serving

FAR_DECADES = 1.0
INSIDE = 0.05  # decades beyond the largest budget that do not count as extrapolation


@np.errstate(all="ignore")  # draws of what is not identified overflow: null in the document
def predict(
    source: str | Mapping[str, Any],
    *,
    flops: object = None,
    n_params: object = None,
    tokens: object = None,
    loss: object = None,
    unique_tokens: object = None,
    inference_tokens: object = None,
    smaller: object = None,
    serving: Serving | None = None,
) -> dict[str, Any]:
    """The prediction document (DESIGN 8) for FLOPs, for N and D, or for a loss to reach; counts may be text such as 70B.

    `source` is the file of a fit, its document, or `published:NAME`.

    `inference_tokens` adds the size that costs least when it also serves them, in FLOPs and, with `serving`, in device-seconds;
    `smaller` ("0.5,0.3", shares of N) what smaller models of the same loss cost.
    Raises ScalingError for a source that is not there, for a number that is none, and for more or fewer than one question.
    """
    asked = {
        "flops": flops,
        "n_params": n_params,
        "tokens": tokens,
        "loss": loss,
        "unique_tokens": unique_tokens,
    }
    numbers = {name: _number(name, value) for name, value in asked.items() if value is not None}
    demand = None if inference_tokens is None else _demand(inference_tokens)
    known = load_law(source)
    answer, breakdown = _combined_answer(known, numbers) or (_answer(known, numbers), None)
    if demand is not None:
        answer["inference"] = _inference(known, answer, demand, serving)
    if smaller is not None:
        answer["smaller"] = _smaller(
            known, answer, smaller, optimal={"n_params", "tokens"}.isdisjoint(numbers)
        )
    if "flops" in numbers and known.roads:
        answer["roads"] = _side_by_side(known, numbers["flops"])
    apart = disagreement(answer.get("roads") or {}) if breakdown else None
    if known.accuracy is not None and math.isfinite(answer["loss"]["value"]):
        from scaling.fit.special.two_stage import predicted_accuracy

        drawn = (
            known.optimum_draws.loss(numbers["flops"])
            if known.optimum_draws is not None and "flops" in numbers
            else None
        )
        answer["accuracy"] = predicted_accuracy(
            dict(known.accuracy), answer["loss"]["value"], drawn, known.ci
        )
    model, refusal = _model(known, answer)
    if serving is not None and model is not None:
        from scaling.predict.serving import decoding

        answer["decoding"] = decoding(model, serving)
    decades, warnings = _extrapolation(known, answer, form_is_known=breakdown is None)
    return to_jsonable(
        {
            **answer,
            "extrapolation_decades": decades,
            "model": model,
            "law": combined.NAME if breakdown else known.law,
            **({"combination": breakdown} if breakdown else {}),
            "source": known.source,
            "ci": known.ci,
            "basis": known.basis,
            "warnings": [*([str(apart)] if apart else []), *known.warnings, *warnings, *refusal],
        }
    )


def _number(name: str, value: object) -> float:
    return count_option(
        value,
        f"--{name.replace('_', '-')}",
        'give a positive number, such as 1e21, 5.76e23 or "70B"',
    )


def _demand(value: object) -> float:
    """Tokens to be served; none at all is an answer too."""
    return 0.0 if str(value).strip() in ("0", "0.0") else _number("inference_tokens", value)


def _size(answer: Mapping[str, Any], option: str) -> tuple[float, float]:
    """N and D of an answer. Raises ScalingError where a law in one variable leaves one of them open, or where there is no model of them."""
    n, d = answer["n_params"]["value"], answer["tokens"]["value"]
    if not (math.isfinite(n) and math.isfinite(d)):
        raise ScalingError(
            "this law names no N and D to start from",
            where=option,
            remedy="use a fit of the law chinchilla",
        )
    if n < 1 or d < 1:
        raise ScalingError(
            f"N* = {n:.3g} and D* = {d:.3g} are no sizes to start from",
            where=option,
            remedy="ask for more FLOPs, or for a lower loss",
        )
    return float(n), float(d)


def _inference(
    known: FittedLaw, answer: Mapping[str, Any], demand: float, serving: Serving | None
) -> dict[str, Any]:
    """The document's `inference`: in FLOPs, and in device-seconds with the model that is then served."""
    from scaling.predict.serving import with_demand

    n, d = _size(answer, "--inference-tokens")
    found: dict[str, Any] = dict(with_demand(known.law, known.values, known.cost, n, d, demand))
    if serving is None:
        return found
    from scaling.predict.serving import decoding, nearest_servable_model, with_serving

    vocab_size, seq_len = _task_of(known, n)
    held = with_serving(known.law, known.values, known.cost, n, d, demand, serving, vocab_size)
    least = held["forms"]["MHA"]
    model = nearest_servable_model(least["n_params"], least["tokens"], vocab_size, seq_len)
    return {**found, "serving": {**held, "model": model, "decoding": decoding(model, serving)}}


def _smaller(
    known: FittedLaw, answer: Mapping[str, Any], given: object, optimal: bool
) -> list[dict[str, Any]]:
    """The document's `smaller`; of an optimum, every draw has its own."""
    from scaling.predict.iso_loss import check_reachable, fractions_of, prices

    n, d = _size(answer, "--smaller")
    rows = prices(known, n, d, fractions_of(given), answer["flops"]["value"] if optimal else None)
    check_reachable(rows, n)
    return rows


def _task_of(known: FittedLaw, n: float) -> tuple[int, int]:
    """The vocabulary and window of the models that a law speaks of; published laws are of large vocabularies."""
    return known.model.get("vocab_size", 32_000 if n >= 1e8 else 256), known.model.get(
        "seq_len", 2048
    )


def _combined_answer(
    known: FittedLaw, asked: Mapping[str, float]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(answer, breakdown by quantity) where the fit holds a combination of laws and the question is one that it answers."""
    combination, question = known.combination, set(asked)
    if combination is None:
        return None
    if question == {"flops"}:
        answer, parts = combined.at_flops(known, combination, asked["flops"])
    elif question == {"n_params", "tokens"}:
        answer, parts = combined.at_inputs(known, combination, asked["n_params"], asked["tokens"])
    elif question == {"loss"}:
        answer, parts = combined.at_loss(known, combination, asked["loss"])
    else:
        return None
    return answer, {name: part.model_dump() for name, part in parts.items()}


def _answer(known: FittedLaw, asked: Mapping[str, float]) -> dict[str, Any]:
    question = set(asked) - {"unique_tokens"}
    if question == {"flops"} and known.optimum is not None:
        return _at_flops(known, asked["flops"])
    if question == {"loss"} and known.optimum is not None:
        return _at_loss(known, asked["loss"])
    if question == {"n_params", "tokens"} or (
        question and known.optimum is None and question <= {"flops", "n_params", "tokens"}
    ):
        return _at_inputs(known, asked)
    needed = (
        "one of --flops, --loss, or --n-params with --tokens"
        if known.optimum is not None
        else f"the inputs of the law {known.law}"
    )
    given = " with ".join(f"--{name.replace('_', '-')}" for name in sorted(question))
    what = (
        f"{given} alone is not a question that {known.source} answers"
        if given
        else f"no question is asked of {known.source}"
    )
    raise ScalingError(what, remedy=f"give {needed}")


def _estimate(value: Any, draws: np.ndarray | None, ci: float) -> dict[str, float | None]:
    found = interval(float(value), draws, ci)
    return {name: found[name] for name in ("value", "lo", "hi")}


def _at_flops(known: FittedLaw, flops: float) -> dict[str, Any]:
    optimum, spread = known.optimum, known.optimum_draws
    assert optimum is not None
    n, d, loss = optimum.n_star(flops), optimum.d_star(flops), optimum.loss(flops)
    drawn = (
        (None, None, None)
        if spread is None
        else (spread.n_star(flops), spread.d_star(flops), spread.loss(flops))
    )
    return _measures(
        known,
        (flops, None),
        (n, drawn[0]),
        (d, drawn[1]),
        (np.nan if loss is None else loss, drawn[2]),
    )


def _side_by_side(known: FittedLaw, flops: float) -> dict[str, Any]:
    """N*, D* and L* at C by every road that the fit found."""
    found = {}
    for name, (road, spread) in known.roads.items():
        here: tuple[Any, ...] = (
            road.n_star(flops),
            road.d_star(flops),
            np.nan if road.floor is None else road.loss(flops),
        )
        drawn = (
            (None, None, None)
            if spread is None
            else (spread.n_star(flops), spread.d_star(flops), spread.loss(flops))
        )
        parts = zip(("n_params", "tokens", "loss"), here, drawn, strict=True)
        found[name] = {each: _estimate(value, draws, known.ci) for each, value, draws in parts}
    return found


def _at_loss(known: FittedLaw, loss: float) -> dict[str, Any]:
    """The cheapest C that reaches the loss, and its N* and D*."""
    optimum, spread = known.optimum, known.optimum_draws
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
        known, (flops, needed), (optimum.n_star(flops), n), (optimum.d_star(flops), d), (loss, None)
    )


def _measures(known: FittedLaw, *pairs: tuple[Any, Any]) -> dict[str, Any]:
    """The four measures and their ratio, each from (value, draws)."""
    answer = {
        name: _estimate(*pair, known.ci)
        for name, pair in zip(("flops", "n_params", "tokens", "loss"), pairs, strict=True)
    }
    (n, n_draws), (d, d_draws) = pairs[1], pairs[2]
    ratio = None if n_draws is None or d_draws is None else d_draws / n_draws
    return {**answer, "tokens_per_param": _estimate(d / n, ratio, known.ci)}


def _at_inputs(known: FittedLaw, asked: Mapping[str, float]) -> dict[str, Any]:
    """The loss at given N and D (or whatever one-variable laws ask for)."""
    from scaling.fit.laws.laws import LAWS

    law = LAWS.get(known.law)
    if law is None:
        raise ScalingError(
            f"{known.source} holds a frontier and no law of the loss",
            remedy="give --flops, or fit with --approach parametric",
        )
    letters = {"n_params": "N", "tokens": "D", "flops": "C", "unique_tokens": "U"}
    given = {letters[name]: np.array([value]) for name, value in asked.items()}
    if "U" in law.inputs and "D" in given:
        given.setdefault("U", given["D"])
    if "C" in law.inputs and {"N", "D"} <= set(given):
        given.setdefault("C", known.cost.flops(given["N"], given["D"]))
    lacking = [letter for letter in law.inputs if letter not in given]
    if lacking:
        raise ScalingError(
            f"the law {law.name} needs {', '.join(law.inputs)}; {', '.join(lacking)} is missing",
            remedy="give --n-params, --tokens or --flops",
        )
    inputs = {letter: given[letter] for letter in law.inputs}
    value = float(
        np.exp(
            law.log_predict(
                law.theta({name: np.asarray(held) for name, held in known.values.items()}), inputs
            )
        )[0]
    )
    drawn = np.exp(law.log_predict(law.theta(known.draws), inputs))[:, 0] if known.draws else None
    n, d = asked.get("n_params", math.nan), asked.get("tokens", math.nan)
    flops = asked.get("flops", float(known.cost.flops(np.asarray(n), np.asarray(d))))
    return _measures(known, (flops, None), (n, None), (d, None), (value, drawn))


def _model(known: FittedLaw, answer: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """A buildable model for the predicted N and D, or the reason why there is none."""
    from scaling.recipe import describe

    n, d = answer["n_params"]["value"], answer["tokens"]["value"]
    if not (math.isfinite(n) and math.isfinite(d)):
        return None, []
    if n < 1 or d < 1:
        return None, [
            f"no model is named: N* = {n:.3g} and D* = {d:.3g} are no sizes; the law means nothing here"
        ]
    vocab_size, seq_len = _task_of(known, n)
    try:
        return describe(n, d, vocab_size=vocab_size, seq_len=seq_len), []
    except ScalingError as error:
        return None, [f"no model is named: {error.what}"]


def _extrapolation(
    known: FittedLaw, answer: Mapping[str, Any], form_is_known: bool
) -> tuple[float | None, list[str]]:
    """Decades of C beyond the data, and plain words for each way in which the answer leaves them."""
    reach, flops = known.range.get("flops"), answer["flops"]["value"]
    if reach is None or not math.isfinite(flops) or flops <= 0:
        return None, []
    decades = max(0.0, math.log10(flops / reach[1]))
    warnings = []
    if decades > INSIDE:
        warnings.append(
            f"{decades:.1f} decades of compute beyond the data ({format_flops(flops)} against {format_flops(reach[1])} FLOPs)"
        )
    if flops < reach[0] * 0.99:
        warnings.append(f"{math.log10(reach[0] / flops):.1f} decades of compute below the data")
    if decades > FAR_DECADES and known.draws is not None and form_is_known:
        warnings.append(
            "the interval holds if the law does: it does not know of errors in the law's form"
        )
    for name, label in (("n_params", "parameters"), ("tokens", "tokens")):
        ends, value = known.range.get(name), answer[name]["value"]
        if (
            ends
            and decades <= INSIDE
            and math.isfinite(value)
            and not ends[0] * 0.99 <= value <= ends[1] * 1.01
        ):
            warnings.append(
                f"{format_count(value)} {label} lie outside the data ({format_count(ends[0])} to {format_count(ends[1])})"
            )
    return decades, warnings
