"""Answers of the combination of laws (scaling.fit.combination) to the three questions of `scaling
predict`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.combination import Combination, Forecast
from scaling.fit.document import Interval
from scaling.fit.frontier.frontier import Cost
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import ApproachPrediction, CombinedAnswer, ErrorParts
from scaling.warning import ResultWarning, WarningCode, warn

LEAST_FLOPS, MOST_FLOPS = 1e3, 1e40  # between which the compute of a loss is sought
GRID, HALVINGS = 186, 50  # five a decade, then to the last digit
NAME = "combination"


def at_flops(
    known: FittedLaw, combination: Combination, flops: float
) -> tuple[dict[str, Interval], dict[str, CombinedAnswer]]:
    """The measures of the optimum at C, and their breakdowns."""
    size = combination.optimum(flops, "n_star", known.ci)
    loss = combination.optimum(flops, "loss_star", known.ci)
    optimum, draws = known.optimum, known.optimum_draws
    sizes = None if optimum is None or draws is None else draws.n_star(flops)
    losses = None if optimum is None or draws is None else draws.loss(flops)
    answer = _measures(known.cost, flops, size, loss)
    return answer, {
        "n_params": _breakdown(combination, "n_star", size, sizes),
        "loss": _breakdown(combination, "loss_star", loss, losses),
    }


def at_inputs(
    known: FittedLaw, combination: Combination, n: float, d: float
) -> tuple[dict[str, Interval], dict[str, CombinedAnswer]]:
    """The loss of one run of N parameters on D tokens, and its breakdown."""
    forecast, drawn = combination.loss(n, d, known.ci), None
    if known.formula is not None and set(known.formula.inputs) == {"N", "D"}:
        drawn = known.outcomes({"N": np.array([n]), "D": np.array([d])})[1:]
    flops = float(known.cost.flops(n, d))
    answer = {
        "flops": _exactly(flops),
        "n_params": _exactly(n),
        "tokens": _exactly(d),
        "loss": _ends(forecast),
        "tokens_per_param": _exactly(d / n),
    }
    return answer, {"loss": _breakdown(combination, "loss", forecast, drawn)}


def at_loss(
    known: FittedLaw, combination: Combination, loss: float
) -> tuple[dict[str, Interval], dict[str, CombinedAnswer]]:
    """The cheapest C that reaches a loss, and its N* and D*. Raises ScalingError for a loss that no
    C reaches.
    """

    def needed(end: Callable[[Forecast], float]) -> float | None:
        return _crossing(lambda flops: end(combination.optimum(flops, "loss_star", known.ci)), loss)

    flops = needed(lambda forecast: forecast.value)
    if flops is None:
        least = combination.optimum(MOST_FLOPS, "loss_star", known.ci).value
        raise ScalingError(
            f"--loss {loss:g} cannot be reached: the combined laws go down to {least:.4g}",
            remedy=f"ask for more than {least:.4g}",
        )
    answer, parts = at_flops(known, combination, flops)
    compute = Interval(
        value=flops,
        lo=needed(lambda forecast: forecast.lo),
        hi=needed(lambda forecast: forecast.hi),
    )
    return {**answer, "flops": compute, "loss": _exactly(loss)}, {"n_params": parts["n_params"]}


def at_size(
    known: FittedLaw, combination: Combination, letter: str, value: float
) -> tuple[dict[str, Interval], dict[str, CombinedAnswer]]:
    """The C for which N (or D) is compute-optimal. Raises ScalingError where no C is."""

    def size_less_optimum(pair: tuple[float, float], end: str) -> float:
        flops = known.cost.flops(*pair)
        n = getattr(combination.optimum(flops, "n_star", known.ci), end)
        return -float(n if letter == "N" else known.cost.tokens(n, flops))

    measures = _with_other(known.cost, letter, value, size_less_optimum, -value)
    if measures is None:
        what = "size" if letter == "N" else "number of tokens"
        raise ScalingError(f"{value:.3g} is the best {what} of no budget", remedy="give --flops")
    flops = measures["flops"].value
    assert flops is not None
    answer, parts = at_flops(known, combination, flops)
    return {**answer, **measures}, parts


def input_for(
    known: FittedLaw, combination: Combination, given: Mapping[str, float], loss: float
) -> tuple[dict[str, Interval], dict[str, CombinedAnswer]]:
    """The D with which N parameters (or the N with which D tokens) reach a loss. Raises
    ScalingError where none does.
    """
    ((letter, value),) = given.items()

    def reached(pair: tuple[float, float], end: str) -> float:
        return float(getattr(combination.loss(*pair, known.ci), end))

    measures = _with_other(known.cost, letter, value, reached, loss)
    if measures is None:
        raise ScalingError(
            f"--loss {loss:g} cannot be reached with {letter} = {value:.3g}",
            remedy="ask for a higher loss, or give a larger one",
        )
    n, d = measures["n_params"].value, measures["tokens"].value
    assert n is not None
    assert d is not None
    answer, parts = at_inputs(known, combination, n, d)
    return {**answer, **measures, "loss": _exactly(loss)}, parts


def _with_other(
    cost: Cost,
    letter: str,
    value: float,
    curve: Callable[[tuple[float, float], str], float],
    level: float,
) -> dict[str, Interval] | None:
    """N, D, C and D/N where one of N and D is given and a curve of the pair, at each end of its
    interval, has come down to a level; None where it never does.
    """

    def pair(other: float) -> tuple[float, float]:
        return (value, other) if letter == "N" else (other, value)

    ends = [
        _crossing(lambda other, end=end: curve(pair(other), end), level)  # type: ignore[misc]
        for end in ("lo", "value", "hi")
    ]
    if ends[1] is None:
        return None

    def measured(measure: Callable[[tuple[float, float]], float]) -> Interval:
        low, value, high = (None if end is None else float(measure(pair(end))) for end in ends)
        assert value is not None
        if (low or value) > value or (high or value) < value:  # it falls where the other grows
            low, high = high, low
        return Interval(value=value, lo=low, hi=high)

    other = measured(lambda n_and_d: n_and_d[1 if letter == "N" else 0])
    n, d = (_exactly(value), other) if letter == "N" else (other, _exactly(value))
    return {
        "n_params": n,
        "tokens": d,
        "flops": measured(lambda n_and_d: cost.flops(*n_and_d)),
        "tokens_per_param": measured(lambda n_and_d: n_and_d[1] / n_and_d[0]),
    }


def _crossing(curve: Callable[[float], float], loss: float) -> float | None:
    """The least C at which a curve has come down to a loss, None where it never does; an interval's
    end may rise again far out.
    """
    grid = np.geomspace(LEAST_FLOPS, MOST_FLOPS, GRID)
    below = np.flatnonzero([curve(float(flops)) <= loss for flops in grid])
    if not len(below) or below[0] == 0:
        return None
    low, high = (math.log(grid[below[0] - 1]), math.log(grid[below[0]]))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if curve(math.exp(middle)) > loss else (low, middle)
    return math.exp(high)


def _exactly(value: float) -> Interval:
    return Interval(value=value, lo=None, hi=None)


def _ends(forecast: Forecast) -> Interval:
    return Interval(value=forecast.value, lo=forecast.lo, hi=forecast.hi)


def _measures(cost: Cost, flops: float, size: Forecast, loss: Forecast) -> dict[str, Interval]:
    """The five measures at C: D is what C pays for at N, so its ends are those of N the other way
    round.
    """

    def tokens(n: float) -> float:
        return float(cost.tokens(n, flops))

    low, middle, high = size.lo, size.value, size.hi
    return {
        "flops": _exactly(flops),
        "n_params": _ends(size),
        "tokens": Interval(value=tokens(middle), lo=tokens(high), hi=tokens(low)),
        "loss": _ends(loss),
        "tokens_per_param": Interval(
            value=tokens(middle) / middle, lo=tokens(high) / high, hi=tokens(low) / low
        ),
    }


def _breakdown(
    combination: Combination, quantity: Any, forecast: Forecast, draws: np.ndarray | None
) -> CombinedAnswer:
    """The standard error taken apart; the spread of the draws of the headline law counts as its
    parameters, up to the whole spread.
    """
    logs = np.log(draws[np.isfinite(draws) & (draws > 0)]) if draws is not None else np.empty(0)
    parameters = min(float(np.std(logs)), forecast.spread) if len(logs) > 1 else None
    form = math.sqrt(max(forecast.spread**2 - (parameters or 0.0) ** 2, 0.0))
    weights = {one.name: one.weights.get(quantity, 0.0) for one in combination.candidates}
    return CombinedAnswer(
        each=forecast.each,
        weights={name: weights[name] for name in forecast.each},
        parts=ErrorParts(
            noise=forecast.noise,
            parameters=parameters,
            form=form,
            factor=forecast.factor,
            total=forecast.factor * math.hypot(forecast.spread, forecast.noise),
        ),
    )


def disagreement(approaches: Mapping[str, ApproachPrediction]) -> ResultWarning | None:
    """The warning that the intervals of N* by the three approaches do not all overlap."""
    ends = {
        name: (each.n_params.lo, each.n_params.hi)
        for name, each in approaches.items()
        if each.n_params.lo is not None and each.n_params.hi is not None
    }
    if len(ends) < 2:
        return None
    largest, smallest = (
        max(ends, key=lambda name: ends[name][0]),
        min(ends, key=lambda name: ends[name][1]),
    )
    if ends[largest][0] <= ends[smallest][1]:
        return None
    sizes = {name: approaches[name].n_params.value for name in ends}
    message = (
        f"the approaches disagree beyond their intervals: N* is {sizes[smallest]:.3g} by "
        f"{smallest} "
        "and "
        f"{sizes[largest]:.3g} by {largest}"
    )
    return warn(WarningCode.APPROACHES_DISAGREE, message, **sizes)
