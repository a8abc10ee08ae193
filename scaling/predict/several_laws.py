"""The answers of several laws together (scaling.fit.combination) to each question of `scaling
predict`; one_law.py has those of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.combination import Combination, Forecast, Quantity
from scaling.fit.document import Interval
from scaling.fit.frontier.frontier import Cost
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import ApproachPrediction, CombinedAnswer, ErrorParts
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray
Answer = dict[str, Interval]
Parts = dict[str, CombinedAnswer]
Curve = Callable[[Array], tuple[Array, Array, Array]]  # values and the ends of their intervals
SEARCH_MIN, SEARCH_MAX = 1e3, 1e40  # FLOPs, parameters or tokens between which a crossing is sought
GRID = 186  # five a decade
NAME = "combination"
MIN_SIZE_DISAGREEMENT = 1.2  # of the largest N* over the smallest, for approaches to disagree


def at_flops(known: FittedLaw, combination: Combination, flops: float) -> tuple[Answer, Parts]:
    """The measures of the optimum at C, and their breakdowns."""
    size = combination.optimum(flops, "n_star", known.ci)
    loss = combination.optimum(flops, "loss_star", known.ci)
    optimum, draws = known.optimum, known.optimum_draws
    sizes = None if optimum is None or draws is None else draws.n_star(flops)
    losses = None if optimum is None or draws is None else draws.loss(flops)
    return {**_measures(known.cost, flops, _ends(size)), "loss": _ends(loss)}, {
        "n_params": _breakdown(combination, "n_star", size, sizes),
        "loss": _breakdown(combination, "loss_star", loss, losses),
    }


def at_inputs(
    known: FittedLaw, combination: Combination, n: float, d: float
) -> tuple[Answer, Parts]:
    """The loss of one run of N parameters on D tokens, and its breakdown."""
    forecast, drawn = combination.loss(n, d, known.ci), None
    if known.formula is not None and set(known.formula.inputs) == {"N", "D"}:
        drawn = known.outcomes({"N": np.array([n]), "D": np.array([d])})[1:]
    answer = {
        "flops": _exactly(float(known.cost.flops(n, d))),
        "n_params": _exactly(n),
        "tokens": _exactly(d),
        "loss": _ends(forecast),
        "tokens_per_param": _exactly(d / n),
    }
    return answer, {"loss": _breakdown(combination, "loss", forecast, drawn)}


def at_loss(known: FittedLaw, combination: Combination, loss: float) -> tuple[Answer, Parts]:
    """The cheapest C that reaches a loss, and its N* and D*. Raises ScalingError for a loss that no
    C reaches.
    """
    needed = _crossing(lambda flops: combination.optima(flops, "loss_star", known.ci), loss)
    if needed.value is None:
        least = combination.optimum(SEARCH_MAX, "loss_star", known.ci).value
        raise ScalingError(
            f"--loss {loss:g} cannot be reached: the combined laws go down to {least:.4g}",
            remedy=f"ask for more than {least:.4g}",
        )
    answer, parts = at_flops(known, combination, needed.value)
    return {**answer, "flops": needed, "loss": _exactly(loss)}, {"n_params": parts["n_params"]}


def at_size(
    known: FittedLaw, combination: Combination, letter: str, value: float
) -> tuple[Answer, Parts]:
    """The C for which N (or D) is compute-optimal. Raises ScalingError where no C is."""

    def optimum_reversed(n: Array, d: Array) -> tuple[Array, Array, Array]:
        """The other way round, so that it falls as the other input grows, and the lower end
        first.
        """
        flops = known.cost.flops(n, d)
        n_star, low, high = combination.optima(flops, "n_star", known.ci)
        if letter == "N":
            return -n_star, -high, -low
        return (
            -known.cost.tokens(n_star, flops),
            -known.cost.tokens(low, flops),
            -known.cost.tokens(high, flops),
        )

    measures = _with_other(known.cost, letter, value, optimum_reversed, -value)
    if measures is None:
        what = "size" if letter == "N" else "number of tokens"
        what = f"no budget has {value:.3g} as its optimal {what}"
        raise ScalingError(what, remedy="give --flops")
    flops = measures["flops"].value
    assert flops is not None
    answer, parts = at_flops(known, combination, flops)
    return {**answer, **measures}, parts


def input_for(
    known: FittedLaw, combination: Combination, given: Mapping[str, float], loss: float
) -> tuple[Answer, Parts]:
    """The D with which N parameters (or the N with which D tokens) reach a loss. Raises
    ScalingError where none does.
    """
    ((letter, value),) = given.items()
    measures = _with_other(
        known.cost, letter, value, lambda n, d: combination.losses(n, d, known.ci), loss
    )
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
    curve: Callable[[Array, Array], tuple[Array, Array, Array]],
    level: float,
) -> Answer | None:
    """N, D, C and D/N where one of N and D is given and a curve of both, at each end of its
    interval, has come down to a level; None where it never does.
    """

    def pair(other: Array) -> tuple[Array, Array]:
        given = np.full_like(other, value)
        return (given, other) if letter == "N" else (other, given)

    other = _crossing(lambda x: curve(*pair(x)), level)
    if other.value is None:
        return None

    def measured(measure: Callable[[Array, Array], Array]) -> Interval:
        ends = (other.lo, other.value, other.hi)
        at = [None if end is None else float(measure(*pair(np.array(end)))) for end in ends]
        low, middle, high = at
        assert middle is not None
        if (low or middle) > middle or (high or middle) < middle:  # it falls where the other grows
            low, high = high, low
        return Interval(value=middle, lo=low, hi=high)

    n, d = (_exactly(value), other) if letter == "N" else (other, _exactly(value))
    return {
        "n_params": n,
        "tokens": d,
        "flops": measured(cost.flops),
        "tokens_per_param": measured(lambda n, d: d / n),
    }


def _crossing(curve: Curve, level: float) -> Interval:
    """The least inputs at which a curve and the ends of its interval have come down to a level,
    None where they never do; an end may rise again far out.
    """
    from scipy.optimize import brentq

    grid = np.geomspace(SEARCH_MIN, SEARCH_MAX, GRID)
    crossings: list[float | None] = []
    for end, values in enumerate(curve(grid)):
        below = np.flatnonzero(values <= level)
        if not len(below) or below[0] == 0:
            crossings.append(None)
            continue

        def above(log: float, end: int = end) -> float:
            return float(curve(np.exp([log]))[end][0]) - level

        low, high = np.log(grid[below[0] - 1 : below[0] + 1])
        crossings.append(math.exp(brentq(above, low, high)) if above(low) > 0 else None)
    value, lo, hi = crossings
    return Interval(value=value, lo=lo, hi=hi)


def _exactly(value: float) -> Interval:
    return Interval(value=value, lo=None, hi=None)


def _ends(forecast: Forecast) -> Interval:
    return Interval(value=forecast.value, lo=forecast.lo, hi=forecast.hi)


def _measures(cost: Cost, flops: float, size: Interval) -> Answer:
    """N, D and D/N at C: D is what C pays for at N, so its ends are those of N the other way
    round.
    """
    low, middle, high = (float(end) for end in (size.lo, size.value, size.hi) if end is not None)
    tokens = {n: float(cost.tokens(n, flops)) for n in (low, middle, high)}
    return {
        "flops": _exactly(flops),
        "n_params": size,
        "tokens": Interval(value=tokens[middle], lo=tokens[high], hi=tokens[low]),
        "tokens_per_param": Interval(
            value=tokens[middle] / middle, lo=tokens[high] / high, hi=tokens[low] / low
        ),
    }


def _breakdown(
    combination: Combination, quantity: Quantity, forecast: Forecast, draws: Array | None
) -> CombinedAnswer:
    """The standard error taken apart; the spread of the draws of the headline law counts as its
    parameters, up to the whole spread.
    """
    logs = np.log(draws[np.isfinite(draws) & (draws > 0)]) if draws is not None else np.empty(0)
    parameters = min(float(np.std(logs)), forecast.spread) if len(logs) > 1 else None
    form = math.sqrt(max(forecast.spread**2 - (parameters or 0.0) ** 2, 0.0))
    weights = dict(zip(combination.names, combination.weights(quantity).tolist(), strict=True))
    return CombinedAnswer(
        each=forecast.each,
        weights={name: weights[name] for name in forecast.each},
        parts=ErrorParts(
            noise=forecast.noise,
            parameters=parameters,
            form=form,
            distance=forecast.distance,
            total=math.hypot(forecast.spread, forecast.noise, forecast.distance),
        ),
    )


def disagreement(
    known: FittedLaw, approaches: Mapping[str, ApproachPrediction]
) -> tuple[ResultWarning | None, dict[str, float]]:
    """The warning that the intervals of N* by the three approaches do not all overlap, where that
    matters, and the sizes that the answer's interval then holds: those of the approaches that the
    later budgets have not contradicted.
    """
    ends = {
        name: (each.n_params.lo, each.n_params.hi)
        for name, each in approaches.items()
        if each.n_params.lo is not None and each.n_params.hi is not None
    }
    sizes = {name: approaches[name].n_params.value or math.nan for name in ends}
    if len(ends) < 2 or max(lo for lo, _ in ends.values()) <= min(hi for _, hi in ends.values()):
        return None, {}
    combination = known.combination
    kept_sizes = {
        name: size
        for name, size in sizes.items()
        if combination is None
        or combination.is_not_contradicted(known.law if name == "parametric" else name)
    }
    smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    if sizes[largest] < MIN_SIZE_DISAGREEMENT * sizes[smallest]:
        return None, kept_sizes
    message = (
        f"the approaches disagree beyond their intervals: N* is {sizes[smallest]:.3g} by "
        f"{smallest} and {sizes[largest]:.3g} by {largest}"
    )
    if contradicted := " and ".join(name for name in (smallest, largest) if name not in kept_sizes):
        message += f"; later budgets contradict {contradicted}, so the interval may exclude it"
    return warn(WarningCode.APPROACHES_DISAGREE, message, **sizes), kept_sizes


def widen_to_include(known: FittedLaw, answer: Answer, sizes: Mapping[str, float]) -> Answer:
    """The answer for a budget, its interval of N* wide enough to hold all sizes."""
    size, flops = answer["n_params"], answer["flops"].value
    ends = [n for n in (*sizes.values(), size.lo, size.hi) if n is not None]
    assert flops is not None
    wider = size.model_copy(update={"lo": min(ends), "hi": max(ends)})
    return {**answer, **_measures(known.cost, flops, wider)}
