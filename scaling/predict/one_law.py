"""The answers of one law to each question, with intervals from its draws; several_laws.py has
those of several laws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import Estimate, Interval
from scaling.predict import inverse, several_laws
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import ApproachPrediction, CombinedAnswer
from scaling.predict.question import complete, option_of

Answer = dict[str, Interval]
Parts = dict[str, CombinedAnswer]
Draws = np.ndarray | None


def _interval(value: Any, draws: Draws, ci: float) -> Interval:
    return Estimate.of(float(value), draws, ci).interval()


def measures(law: FittedLaw, *pairs: tuple[Any, Any]) -> Answer:
    """The four measures and their ratio, each from (value, draws)."""
    answer = {
        name: _interval(*pair, law.ci)
        for name, pair in zip(("flops", "n_params", "tokens", "loss"), pairs, strict=True)
    }
    (n, n_draws), (d, d_draws) = pairs[1], pairs[2]
    drawn = None if n_draws is None and d_draws is None else np.asarray(1.0)
    if drawn is not None:
        drawn = (d if d_draws is None else d_draws) / (n if n_draws is None else n_draws)
    answer["tokens_per_param"] = _interval(d / n, drawn, law.ci)
    loss, loss_draws = pairs[3]
    if law.accuracy is not None and np.isfinite(loss):
        from scaling.fit.special.two_stage import predicted_accuracy

        answer["accuracy"] = predicted_accuracy(law.accuracy, float(loss), loss_draws, law.ci)
    return answer


def _along(optimum: Any, flops: Any) -> tuple[Any, Any, Any]:
    """N*, D* and L* of a frontier or its draws at C; None where there are no draws."""
    if optimum is None or flops is None:
        return None, None, None
    loss = optimum.loss(flops)
    return optimum.n_star(flops), optimum.d_star(flops), np.nan if loss is None else loss


def at_flops(law: FittedLaw, flops: float) -> Answer:
    """N*, D* and L* at C."""
    values, drawn = _along(law.optimum, flops), _along(law.optimum_draws, flops)
    return measures(law, (flops, None), *zip(values, drawn, strict=True))


def by_approach(law: FittedLaw, name: str, flops: float) -> ApproachPrediction:
    """N*, D* and L* at C by one of the approaches that the fit holds."""
    optimum, spread = law.approaches[name]
    pairs = zip(_along(optimum, flops), _along(spread, flops), strict=True)
    n, d, loss = (_interval(*pair, law.ci) for pair in pairs)
    return ApproachPrediction(n_params=n, tokens=d, loss=loss)


def at_loss(law: FittedLaw, loss: float) -> Answer:
    """The cheapest C that reaches the loss, and its N* and D*."""
    optimum, spread = law.optimum, law.optimum_draws
    assert optimum is not None
    flops = float(optimum.flops_for(loss))
    if not math.isfinite(flops):
        floor = math.nan if optimum.floor is None else float(optimum.floor)
        raise ScalingError(
            f"--loss {loss:g} cannot be reached: the law's floor E is {floor:.4g}",
            remedy=f"ask for more than {floor:.4g}",
        )
    needed = None if spread is None else spread.flops_for(loss)
    pairs = list(zip(_along(optimum, flops), _along(spread, needed), strict=True))
    return measures(law, (flops, needed), *pairs[:2], (loss, None))


def at_size(law: FittedLaw, letter: str, value: float) -> Answer:
    """The C for which N, or D, is compute-optimal, and what it comes with."""

    def flops_of(frontier: Any) -> Any:
        power, log_k = (
            (frontier.a, frontier.log_n) if letter == "N" else (frontier.b, frontier.log_d)
        )
        return np.exp((math.log(value) - log_k) / power)

    flops = float(flops_of(law.optimum))
    drawn = None if law.optimum_draws is None else flops_of(law.optimum_draws)
    pairs = list(zip(_along(law.optimum, flops), _along(law.optimum_draws, drawn), strict=True))
    pairs[0 if letter == "N" else 1] = (value, None)
    return measures(law, (flops, drawn), *pairs)


def served_size(law: FittedLaw, n: float, demand: float) -> tuple[Answer, Parts | None]:
    """The tokens at which N is the cheapest size to train and to serve, and the loss there."""
    from scaling.predict.iso_loss import equal_loss

    d = float(
        inverse.tokens_when_served(equal_loss(law.law, law.values, n, 1.0), law.cost, n, demand)
    )
    answer, parts = at_inputs(law, {"N": n, "D": d})
    if law.draws:
        curves = equal_loss(law.law, law.draws, n, 1.0)
        drawn = inverse.tokens_when_served(curves, law.cost, n, demand)
        answer["tokens"] = _interval(d, drawn, law.ci)
        answer["tokens_per_param"] = _interval(d / n, drawn / n, law.ci)
        answer["flops"] = _interval(law.cost.flops(n, d), law.cost.flops(n, drawn), law.ci)
    return answer, parts


def input_for(law: FittedLaw, given: Mapping[str, float], loss: float) -> Answer:
    """The one input of the law that is left open, such that it reaches a loss."""
    assert law.formula is not None
    known = complete(given, law.law, law.formula.inputs, law.cost)
    counts = {"N", "D", "C"} & set(law.formula.inputs)
    left = [letter for letter in law.formula.inputs if letter not in known]
    if len(counts) > 1:  # C follows from N and D
        left = [letter for letter in left if letter not in ("C", "U")]
    if len(left) != 1:
        options = ", ".join(map(option_of, left)) or "nothing"
        raise ScalingError(
            f"--loss leaves {options} open for the law {law.law}",
            where="--loss",
            remedy="leave exactly one input open"
            + (", or give --loss alone" if law.optimum is not None else ""),
        )
    value, drawn = inverse.input_for(law, known, left[0], loss)
    pairs: dict[str, tuple[float, Draws]] = {
        letter: (known.get(letter, math.nan), None) for letter in "CND"
    }
    pairs[left[0]] = (value, drawn)
    (n, n_drawn), (d, d_drawn) = pairs["N"], pairs["D"]
    if math.isfinite(n) and math.isfinite(d):
        pairs["C"] = (
            float(law.cost.flops(n, d)),
            None
            if drawn is None
            else law.cost.flops(n if n_drawn is None else n_drawn, d if d_drawn is None else drawn),
        )
    answer = measures(law, pairs["C"], pairs["N"], pairs["D"], (loss, None))
    if left[0] not in "CND":
        answer[left[0]] = _interval(value, drawn, law.ci)
    return answer


def at_inputs(law: FittedLaw, given: Mapping[str, float]) -> tuple[Answer, Parts | None]:
    """The loss at given inputs, or what else the law gives."""
    formula = law.formula
    if formula is None:
        law.outcome({})  # raises
    assert formula is not None
    known = complete(given, law.law, formula.inputs, law.cost)
    lacking = [letter for letter in formula.inputs if letter not in known]
    if lacking:
        raise ScalingError(
            f"the law {law.law} needs {', '.join(formula.inputs)}; {', '.join(lacking)} is missing",
            remedy=f"give {', '.join(map(option_of, formula.inputs))}",
        )
    if law.combination is not None and set(formula.inputs) == {"N", "D"}:
        return several_laws.at_inputs(law, law.combination, known["N"], known["D"])
    at = {letter: np.array([value]) for letter, value in known.items()}
    value, draws = float(law.outcome(at)[0]), law.outcome_draws(at)
    result = (value, None if draws is None else draws[:, 0])
    c, n, d = ((known.get(letter, math.nan), None) for letter in "CND")
    if law.law == "optimum":
        tokens = law.cost.tokens(result[0], c[0])
        drawn = None if draws is None else law.cost.tokens(draws[:, 0], c[0])
        return measures(law, c, result, (float(tokens), drawn), (math.nan, None)), None
    if law.law == "sigmoid":
        loss = (known["X"], None)
        return {**measures(law, c, n, d, loss), "accuracy": _interval(*result, law.ci)}, None
    return measures(law, c, n, d, result), None
