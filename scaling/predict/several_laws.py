"""The answers of several laws together (scaling.fit.combination) to each question of `scaling
predict`; one_law.py has those of one.

A quantity with its interval is an array (3,): its value and the two ends, NaN where one is open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.combination import Combination, Mixture, Quantity
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
    size, loss = (combination.optima(flops, quantity) for quantity in ("n_star", "loss_star"))
    n, best = (np.concatenate(each.ends(known.ci)) for each in (size, loss))
    optimum, draws = known.optimum, known.optimum_draws
    sizes = None if optimum is None or draws is None else draws.n_star(flops)
    losses = None if optimum is None or draws is None else draws.loss(flops)
    return {**_measures(known.cost, flops, n), "loss": _interval(*best)}, {
        "n_params": _breakdown(combination, "n_star", size, sizes),
        "loss": _breakdown(combination, "loss_star", loss, losses),
    }


def at_inputs(
    known: FittedLaw, combination: Combination, n: float, d: float
) -> tuple[Answer, Parts]:
    """The loss of one run of N parameters on D tokens, and its breakdown."""
    loss, drawn = combination.losses(n, d), None
    if known.formula is not None and set(known.formula.inputs) == {"N", "D"}:
        drawn = known.outcomes({"N": np.array([n]), "D": np.array([d])})[1:]
    answer = {
        "flops": _interval(float(known.cost.flops(n, d))),
        "n_params": _interval(n),
        "tokens": _interval(d),
        "loss": _interval(*np.concatenate(loss.ends(known.ci))),
        "tokens_per_param": _interval(d / n),
    }
    return answer, {"loss": _breakdown(combination, "loss", loss, drawn)}


def at_loss(known: FittedLaw, combination: Combination, loss: float) -> tuple[Answer, Parts]:
    """The cheapest C that reaches a loss, and its N* and D*. Raises ScalingError for a loss that no
    C reaches.
    """
    flops = _crossing(lambda c: combination.optima(c, "loss_star").ends(known.ci), loss)
    if math.isnan(flops[0]):
        least = float(combination.optima(SEARCH_MAX, "loss_star").ends(known.ci)[0][0])
        raise ScalingError(
            f"--loss {loss:g} cannot be reached: the combined laws go down to {least:.4g}",
            remedy=f"ask for more than {least:.4g}",
        )
    answer, parts = at_flops(known, combination, float(flops[0]))
    answer |= {"flops": _interval(*flops), "loss": _interval(loss)}
    return answer, {"n_params": parts["n_params"]}


def at_size(
    known: FittedLaw, combination: Combination, letter: str, value: float
) -> tuple[Answer, Parts]:
    """The C for which N (or D) is compute-optimal. Raises ScalingError where no C is."""

    def reversed_optimum(n: Array, d: Array) -> tuple[Array, Array, Array]:
        """N* (or D*) at the cost of N and D the other way round, so that it falls as the other
        input grows, and the lower end first.
        """
        flops = known.cost.flops(n, d)
        size, low, high = combination.optima(flops, "n_star").ends(known.ci)
        if letter == "N":
            return -size, -high, -low
        size, low, high = (-known.cost.tokens(each, flops) for each in (size, low, high))
        return size, low, high

    measures = _with_other(known.cost, letter, value, reversed_optimum, -value)
    if measures is None:
        what = "size" if letter == "N" else "number of tokens"
        what = f"no budget has {value:.3g} as its optimal {what}"
        raise ScalingError(what, remedy="give --flops")
    answer, parts = at_flops(known, combination, measures["flops"].value or math.nan)
    return {**answer, **measures}, parts


def input_for(
    known: FittedLaw, combination: Combination, given: Mapping[str, float], loss: float
) -> tuple[Answer, Parts]:
    """The D with which N parameters (or the N with which D tokens) reach a loss. Raises
    ScalingError where none does.
    """
    ((letter, value),) = given.items()
    measures = _with_other(
        known.cost, letter, value, lambda n, d: combination.losses(n, d).ends(known.ci), loss
    )
    if measures is None:
        raise ScalingError(
            f"--loss {loss:g} cannot be reached with {letter} = {value:.3g}",
            remedy="ask for a higher loss, or give a larger one",
        )
    n, d = (measures[name].value or math.nan for name in ("n_params", "tokens"))
    answer, parts = at_inputs(known, combination, n, d)
    return {**answer, **measures, "loss": _interval(loss)}, parts


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
    if math.isnan(other[0]):
        return None
    n, d = pair(other)
    return {
        "n_params": _interval(value) if letter == "N" else _interval(*n),
        "tokens": _interval(value) if letter == "D" else _interval(*d),
        "flops": _interval(*cost.flops(n, d)),
        "tokens_per_param": _interval(*(d / n)),
    }


def _crossing(curve: Curve, level: float) -> Array:
    """The least inputs (3,) at which a curve and the ends of its interval have come down to a
    level, NaN where they never do; an end may rise again far out.
    """
    from scipy.optimize import brentq

    grid = np.geomspace(SEARCH_MIN, SEARCH_MAX, GRID)
    crossings = np.full(3, np.nan)
    for end, values in enumerate(curve(grid)):
        below = np.flatnonzero(values <= level)
        if not len(below) or below[0] == 0:
            continue

        def above(log: float, end: int = end) -> float:
            return float(curve(np.exp([log]))[end][0]) - level

        low, high = np.log(grid[below[0] - 1 : below[0] + 1])
        if above(low) > 0:
            crossings[end] = math.exp(brentq(above, low, high))
    return crossings


def _interval(value: float, *ends: float) -> Interval:
    """A value with the ends of its interval, in either order."""
    low, high = ends or (None, None)
    if low is not None and high is not None and (low > value or high < value):
        low, high = high, low
    return Interval(value=value, lo=low, hi=high)


def _measures(cost: Cost, flops: float, n: Array) -> Answer:
    """N, D and D/N at C for N and its ends (3,): D is what C pays for at N."""
    d = cost.tokens(n, flops)
    return {
        "flops": _interval(flops),
        "n_params": _interval(*n),
        "tokens": _interval(*d),
        "tokens_per_param": _interval(*(d / n)),
    }


def _breakdown(
    combination: Combination, quantity: Quantity, mixture: Mixture, draws: Array | None
) -> CombinedAnswer:
    """The standard error taken apart; the spread of the draws of the headline law counts as its
    parameters, up to the whole spread.
    """
    spread, noise, distance = (
        float(part[0]) for part in (mixture.spread, mixture.noise, mixture.distance)
    )
    logs = np.log(draws[np.isfinite(draws) & (draws > 0)]) if draws is not None else np.empty(0)
    parameters = min(float(np.std(logs)), spread) if len(logs) > 1 else None
    each = combination.each(mixture)
    weights = dict(zip(combination.names, combination.weights(quantity).tolist(), strict=True))
    return CombinedAnswer(
        each=each,
        weights={name: weights[name] for name in each},
        parts=ErrorParts(
            noise=noise,
            parameters=parameters,
            form=math.sqrt(max(spread**2 - (parameters or 0.0) ** 2, 0.0)),
            distance=distance,
            total=math.hypot(spread, noise, distance),
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
    n = np.array([size.value, min(ends), max(ends)], float)
    return {**answer, **_measures(known.cost, flops, n)}
