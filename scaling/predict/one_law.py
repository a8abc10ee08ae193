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
from scaling.predict import several_laws
from scaling.predict.iso_loss import equal_loss
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import ApproachPrediction, CombinedAnswer
from scaling.predict.question import complete, option_of

MOST = 1e40  # up to which an input is sought
GRID = 4001
REFINEMENTS = 3
HALVINGS = 150
SIZE_SPAN = np.log(1e4)
Answer = dict[str, Interval]
Parts = dict[str, CombinedAnswer]
Drawn = tuple[Any, np.ndarray | None]  # a value and that of every draw


def _interval(law: FittedLaw, value: Any, draws: np.ndarray | None) -> Interval:
    return Estimate.of(float(value), draws, law.ci).interval()


def _either(value: Drawn) -> Any:
    """The draws of a value, or where it has none the value."""
    return value[0] if value[1] is None else value[1]


def measures(law: FittedLaw, flops: Drawn, n: Drawn, d: Drawn, loss: Drawn) -> Answer:
    """The four measures and their ratio."""
    has_draws = n[1] is not None or d[1] is not None
    ratio = d[0] / n[0], _either(d) / _either(n) if has_draws else None
    pairs = {"flops": flops, "n_params": n, "tokens": d, "loss": loss, "tokens_per_param": ratio}
    answer = {name: _interval(law, *pair) for name, pair in pairs.items()}
    if law.accuracy is not None and np.isfinite(loss[0]):
        from scaling.fit.special.two_stage import predicted_accuracy

        answer["accuracy"] = predicted_accuracy(law.accuracy, float(loss[0]), loss[1], law.ci)
    return answer


def _along(optimum: Any, flops: Any) -> tuple[Any, Any, Any]:
    """N*, D* and L* of a frontier or its draws at C; None where there are no draws."""
    if optimum is None or flops is None:
        return None, None, None
    loss = optimum.loss(flops)
    return optimum.n_star(flops), optimum.d_star(flops), np.nan if loss is None else loss


def _optimum(law: FittedLaw, flops: float, drawn: Any) -> list[Drawn]:
    """N*, D* and L* at C, where each draw has a C of its own."""
    return list(zip(_along(law.optimum, flops), _along(law.optimum_draws, drawn), strict=True))


def at_flops(law: FittedLaw, flops: float) -> Answer:
    """N*, D* and L* at C."""
    return measures(law, (flops, None), *_optimum(law, flops, flops))


def by_approach(law: FittedLaw, name: str, flops: float) -> ApproachPrediction:
    """N*, D* and L* at C by one of the approaches that the fit holds."""
    optimum, draws = law.approaches[name]
    pairs = zip(_along(optimum, flops), _along(draws, flops), strict=True)
    n, d, loss = (_interval(law, *pair) for pair in pairs)
    return ApproachPrediction(n_params=n, tokens=d, loss=loss)


def at_loss(law: FittedLaw, loss: float) -> Answer:
    """The cheapest C that reaches the loss, and its N* and D*."""
    optimum, draws = law.optimum, law.optimum_draws
    assert optimum is not None
    flops = float(optimum.flops_for(loss))
    if not math.isfinite(flops):
        floor = math.nan if optimum.floor is None else float(optimum.floor)
        raise ScalingError(
            f"--loss {loss:g} cannot be reached: the law's floor E is {floor:.4g}",
            remedy=f"ask for more than {floor:.4g}",
        )
    drawn = None if draws is None else draws.flops_for(loss)
    n, d, _ = _optimum(law, flops, drawn)
    return measures(law, (flops, drawn), n, d, (loss, None))


def at_size(law: FittedLaw, letter: str, value: float) -> Answer:
    """The C for which N, or D, is compute-optimal, and what it comes with."""

    def flops_of(frontier: Any) -> Any:
        power, log_k = (
            (frontier.a, frontier.log_n) if letter == "N" else (frontier.b, frontier.log_d)
        )
        return np.exp((math.log(value) - log_k) / power)

    flops = float(flops_of(law.optimum))
    drawn = None if law.optimum_draws is None else flops_of(law.optimum_draws)
    n, d, loss = _optimum(law, flops, drawn)
    n, d = ((value, None), d) if letter == "N" else (n, (value, None))
    return measures(law, (flops, drawn), n, d, loss)


def served_size(law: FittedLaw, n: float, demand: float) -> tuple[Answer, Parts | None]:
    """The tokens at which N is the cheapest size to train and to serve, and the loss there."""
    d = float(_tokens_when_served(law, law.values, n, demand))
    answer, parts = at_inputs(law, {"N": n, "D": d})
    if law.draws:
        drawn = _tokens_when_served(law, law.draws, n, demand)
        flops = law.cost.flops(n, d), law.cost.flops(n, drawn)
        pairs = {"tokens": (d, drawn), "tokens_per_param": (d / n, drawn / n), "flops": flops}
        answer |= {name: _interval(law, *pair) for name, pair in pairs.items()}
    return answer, parts


def _tokens_when_served(
    law: FittedLaw, values: Mapping[str, Any], n: float, demand: float
) -> np.ndarray:
    """The D at which N is the size of least c0 N^p D + 2 N `demand` at its loss.

    Where the derivative along the curve of equal loss is zero (Sardana 2024, eq. 3):
    c0 N^p (p D / N + dD/dN) + 2 `demand` = 0, with dD/dN of a N^-alpha + b D^-beta = constant.
    """
    curve, cost = equal_loss(law.law, values, n, 1.0), law.cost
    slope = curve.a * curve.alpha / (curve.b * curve.beta) * n ** (-curve.alpha - 1)
    low, high = np.zeros(np.shape(slope)), np.full(np.shape(slope), np.log(MOST))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        d = np.exp(middle)
        rate = cost.p * d / n - slope * d ** (curve.beta + 1)
        is_short = cost.c0 * n**cost.p * rate + 2 * demand > 0
        low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
    return np.exp((low + high) / 2)


def input_for(law: FittedLaw, given: Mapping[str, float], loss: float) -> Answer:
    """The one input of the law that is left open, such that it reaches a loss."""
    assert law.formula is not None
    known = complete(given, law.law, law.formula.inputs, law.cost)
    several = len({"N", "D", "C"} & set(law.formula.inputs)) > 1  # then C follows from N and D
    left = [
        letter
        for letter in law.formula.inputs
        if letter not in known and not (several and letter in ("C", "U"))
    ]
    if len(left) != 1:
        options = ", ".join(map(option_of, left)) or "nothing"
        raise ScalingError(
            f"--loss leaves {options} open for the law {law.law}",
            where="--loss",
            remedy="leave exactly one input open"
            + (", or give --loss alone" if law.optimum is not None else ""),
        )
    (letter,) = left
    reached = _reaching(law, known, letter, loss)
    pairs: dict[str, Drawn] = {name: (known.get(name, math.nan), None) for name in "CND"}
    pairs[letter] = reached
    n, d = pairs["N"], pairs["D"]
    if math.isfinite(n[0]) and math.isfinite(d[0]):
        drawn = None if reached[1] is None else law.cost.flops(_either(n), _either(d))
        pairs["C"] = float(law.cost.flops(n[0], d[0])), drawn
    answer = measures(law, pairs["C"], n, d, (loss, None))
    return answer if letter in "CND" else {**answer, letter: _interval(law, *reached)}


def _columns(law: FittedLaw, columns: dict[str, np.ndarray | float]) -> dict[str, np.ndarray]:
    """The inputs of a law where some of them vary; C follows from N and D, unique tokens from D."""
    assert law.formula is not None
    if {"N", "D"} <= set(columns):
        columns = columns | {"C": law.cost.flops(columns["N"], columns["D"])}
        columns.setdefault("U", columns["D"])
    arrays = np.broadcast_arrays(*(columns[letter] for letter in law.formula.inputs))
    return dict(zip(law.formula.inputs, arrays, strict=True))


def _crossing(logs: np.ndarray, curves: np.ndarray, level: float) -> np.ndarray:
    """Where curves (R, K) over logs (K,) first come down to a level (R,); NaN where
    they never do.
    """
    below = curves <= level
    rows, index = np.arange(len(curves)), np.clip(np.argmax(below, axis=1), 1, None)
    left, right = np.log(curves[rows, index - 1]), np.log(curves[rows, index])
    share = np.clip((left - np.log(level)) / np.where(left > right, left - right, 1.0), 0, 1)
    where = logs[index - 1] + share * (logs[index] - logs[index - 1])
    return np.where(below.any(axis=1), where, np.nan)


def _reaching(law: FittedLaw, given: Mapping[str, float], letter: str, loss: float) -> Drawn:
    """The least value of an input at which the law reaches a loss. Raises ScalingError for none."""
    logs = np.linspace(0.0, np.log(MOST), GRID)
    curves = law.outcome_draws(_columns(law, {**given, letter: np.exp(logs)}))
    drawn = None if curves is None else np.exp(_crossing(logs, curves, loss))
    for _ in range(REFINEMENTS):
        curve = law.outcome(_columns(law, {**given, letter: np.exp(logs)}))
        value = float(_crossing(logs, curve[None], loss)[0])
        if not np.isfinite(value):
            least = float(np.nanmin(curve))
            raise ScalingError(
                f"--loss {loss:g} cannot be reached by any {option_of(letter)}: the law goes down "
                f"to {least:.4g}",
                where=law.source,
                remedy=f"ask for more than {least:.4g}",
            )
        logs = _about(value, logs)
    return float(np.exp(value)), drawn


def _about(value: float, logs: np.ndarray) -> np.ndarray:
    """A finer grid about the best value of one."""
    width = 2 * (logs[1] - logs[0])
    return np.linspace(value - width, value + width, GRID)


def at_limited_flops(law: FittedLaw, flops: float, unique: float) -> Answer:
    """N*, D* and L* at C where only `unique` tokens are there to be repeated."""
    assert law.optimum is not None

    def at(log_n: np.ndarray) -> dict[str, np.ndarray]:
        d = law.cost.tokens(np.exp(log_n), flops)
        return _columns(law, {"N": np.exp(log_n), "D": d, "U": np.minimum(d, unique)})

    logs = np.log(law.optimum.n_star(flops)) + np.linspace(-SIZE_SPAN, SIZE_SPAN, GRID)
    drawn, sizes, tokens, losses = law.outcome_draws(at(logs)), None, None, None
    if drawn is not None:
        sizes, losses = np.exp(logs[np.argmin(drawn, axis=1)]), drawn.min(axis=1)
        tokens = law.cost.tokens(sizes, flops)
    for _ in range(REFINEMENTS):
        best = logs[int(np.argmin(law.outcome(at(logs))))]
        logs = _about(best, logs)
    n, loss = float(np.exp(best)), float(law.outcome(at(np.array([best])))[0])
    d = law.cost.tokens(n, flops)
    return measures(law, (flops, None), (n, sizes), (d, tokens), (loss, losses))


def at_inputs(law: FittedLaw, given: Mapping[str, float]) -> tuple[Answer, Parts | None]:
    """The loss at given inputs, or what else the law gives."""
    letters = law.formula.inputs if law.formula else ()
    known = complete(given, law.law, letters, law.cost) if letters else {}
    lacking = [letter for letter in letters if letter not in known]
    if lacking:
        raise ScalingError(
            f"the law {law.law} needs {', '.join(letters)}; {', '.join(lacking)} is missing",
            remedy=f"give {', '.join(map(option_of, letters))}",
        )
    if law.combination is not None and set(letters) == {"N", "D"}:
        return several_laws.at_inputs(law, law.combination, known["N"], known["D"])
    at = {letter: np.array([value]) for letter, value in known.items()}
    value, draws = law.outcome(at)[0], law.outcome_draws(at)
    result = value, None if draws is None else draws[:, 0]
    c, n, d = ((known.get(letter, math.nan), None) for letter in "CND")
    if law.law == "optimum":
        tokens = None if result[1] is None else law.cost.tokens(result[1], c[0])
        return measures(
            law, c, result, (law.cost.tokens(value, c[0]), tokens), (math.nan, None)
        ), None
    if law.law == "sigmoid":
        answer = measures(law, c, n, d, (known["X"], None))
        return {**answer, "accuracy": _interval(law, *result)}, None
    return measures(law, c, n, d, result), None
