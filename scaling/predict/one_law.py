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
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import ApproachPrediction, CombinedAnswer
from scaling.predict.question import complete, option_of

MOST = 1e40  # up to which an input is sought
GRID = 4001
REFINEMENTS = 3
SIZE_SPAN = np.log(1e4)
Answer = dict[str, Interval]
Parts = dict[str, CombinedAnswer]
# A number, or an array of the reported value and, after it, that of every draw (1 + R,).
Values = Any


def _interval(law: FittedLaw, values: Values) -> Interval:
    first, *draws = np.atleast_1d(np.nan if values is None else values)
    return Estimate.of(float(first), np.array(draws, float), law.ci).interval()


def measures(law: FittedLaw, flops: Values, n: Values, d: Values, loss: Values) -> Answer:
    """The four measures and their ratio."""
    values = {"flops": flops, "n_params": n, "tokens": d, "loss": loss, "tokens_per_param": d / n}
    answer = {name: _interval(law, each) for name, each in values.items()}
    if law.accuracy is not None and answer["loss"].value is not None:
        from scaling.fit.special.two_stage import predicted_accuracy

        first, *draws = np.atleast_1d(loss)
        drawn = np.array(draws) if draws else None
        answer["accuracy"] = predicted_accuracy(law.accuracy, float(first), drawn, law.ci)
    return answer


def at_flops(law: FittedLaw, flops: float) -> Answer:
    """N*, D* and L* at C."""
    optimum = law.with_draws(law.optimum, law.optimum_draws)
    n, d, loss = optimum.n_star(flops), optimum.d_star(flops), optimum.loss(flops)
    return measures(law, flops, n, d, loss)


def by_approach(law: FittedLaw, name: str, flops: float) -> ApproachPrediction:
    """N*, D* and L* at C by one of the approaches that the fit holds."""
    optimum = law.with_draws(*law.approaches[name])
    return ApproachPrediction(
        n_params=_interval(law, optimum.n_star(flops)),
        tokens=_interval(law, optimum.d_star(flops)),
        loss=_interval(law, optimum.loss(flops)),
    )


def at_loss(law: FittedLaw, loss: float) -> Answer:
    """The cheapest C that reaches the loss, and its N* and D*."""
    optimum = law.with_draws(law.optimum, law.optimum_draws)
    flops = optimum.flops_of("L", loss)
    if not math.isfinite(flops[0]):
        floor = math.nan if optimum.floor is None else optimum.floor[0]
        raise ScalingError(
            f"--loss {loss:g} cannot be reached: the law's floor E is {floor:.4g}",
            remedy=f"ask for more than {floor:.4g}",
        )
    return measures(law, flops, optimum.n_star(flops), optimum.d_star(flops), loss)


def at_size(law: FittedLaw, letter: str, value: float) -> Answer:
    """The C for which N, or D, is compute-optimal, and what it comes with."""
    optimum = law.with_draws(law.optimum, law.optimum_draws)
    flops = optimum.flops_of(letter, value)
    n: Values = value if letter == "N" else optimum.n_star(flops)
    d: Values = value if letter == "D" else optimum.d_star(flops)
    return measures(law, flops, n, d, optimum.loss(flops))


def served_size(law: FittedLaw, n: float, demand: float) -> tuple[Answer, Parts | None]:
    """The tokens at which N is the cheapest size to train and to serve, and the loss there.

    N is the size of least c0 N^p D + 2 N `demand` at its loss where the derivative along the curve
    of equal loss is zero (Sardana 2024, eq. 3): c0 N^p (p D / N + dD/dN) + 2 `demand` = 0, with
    dD/dN of a N^-alpha + b D^-beta = constant.
    """
    from scipy.optimize.elementwise import find_root

    from scaling.predict.iso_loss import equal_loss

    curve, (c0, p) = equal_loss(law.law, law.parameters, n, 1.0), law.cost.at(n)
    slope = curve.a * curve.alpha / (curve.b * curve.beta) * n ** (-curve.alpha - 1)

    def derivative(log_d: np.ndarray, slope: np.ndarray, beta: np.ndarray) -> np.ndarray:
        d = np.exp(log_d)
        return c0 * n**p * (p * d / n - slope * d ** (beta + 1)) + 2 * demand

    d = np.exp(find_root(derivative, (0.0, np.log(MOST)), args=(slope, curve.beta)).x)
    answer, parts = at_inputs(law, {"N": n, "D": float(d[0])})
    values = {"tokens": d, "tokens_per_param": d / n, "flops": law.cost.flops(n, d)}
    return answer | {name: _interval(law, each) for name, each in values.items()}, parts


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
    c, n, d = (reached if name == letter else known.get(name, math.nan) for name in "CND")
    if np.isfinite(np.ravel(n)[0] * np.ravel(d)[0]):
        c = law.cost.flops(n, d)
    answer = measures(law, c, n, d, loss)
    return answer if letter in "CND" else {**answer, letter: _interval(law, reached)}


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


def _reaching(law: FittedLaw, given: Mapping[str, float], letter: str, loss: float) -> np.ndarray:
    """The least value of an input (1 + R,) at which the law reaches a loss. Raises ScalingError for
    none.
    """
    logs = np.linspace(0.0, np.log(MOST), GRID)
    curves = law.outcomes(_columns(law, {**given, letter: np.exp(logs)}))
    drawn = _crossing(logs, curves[1:], loss)
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
        logs = _refined_grid(value, logs)
    return np.exp(np.r_[value, drawn])


def _refined_grid(value: float, logs: np.ndarray) -> np.ndarray:
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
    curves = law.outcomes(at(logs))
    log_n, loss = logs[np.argmin(curves, axis=1)], curves.min(axis=1)
    for _ in range(REFINEMENTS):
        log_n[0] = logs[int(np.argmin(law.outcome(at(logs))))]
        logs = _refined_grid(log_n[0], logs)
    loss[0] = law.outcome(at(log_n[:1]))[0]
    n = np.exp(log_n)
    return measures(law, flops, n, law.cost.tokens(n, flops), loss)


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
    result = law.outcomes(at)[:, 0]
    c, n, d = (known.get(letter, math.nan) for letter in "CND")
    if law.law == "optimum":
        return measures(law, c, result, law.cost.tokens(result, c), math.nan), None
    if law.law == "sigmoid":
        answer = measures(law, c, n, d, known["X"])
        return {**answer, "accuracy": _interval(law, result)}, None
    return measures(law, c, n, d, result), None
