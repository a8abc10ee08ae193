"""The answers to each question, with intervals: of one law from its draws, or of several laws
together (scaling.fit.combination).

The rows of a quantity are its value and what its interval follows from: of one law its draws
(1 + R,), of several laws the two ends (3,), NaN where one is open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.combination import Combination
from scaling.fit.document import Estimate, Interval
from scaling.fit.frontier.frontier import Frontier
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import Inference
from scaling.predict.question import Question, QuestionKind, complete, option_of

Array = np.ndarray
Answer = dict[str, Interval]
Rows = Any  # a number, or an array of rows
MOST = 1e40  # up to which an input is sought
GRID, NARROW_GRID, REFINEMENTS = 4001, 41, 6
SIZE_SPAN = np.log(1e4)
SERVED_SPAN = np.log(1e50)  # of C, within which N becomes too small for its loss
OUTCOMES = ("optimum", "sigmoid")  # laws that give another thing than a loss


@dataclass(frozen=True)
class OneLaw:
    """What one law says of an optimum and of a run; of its rows `n_exact` are sought to all
    digits.
    """

    law: FittedLaw
    n_exact: ClassVar = 1

    def interval(self, rows: Rows) -> Interval:
        """A value with the central interval of its draws."""
        first, *draws = np.atleast_1d(np.nan if rows is None else rows)
        return Estimate.of(float(first), np.array(draws, float), self.law.ci).interval()

    def optimum(self, flops: Rows) -> tuple[Rows, Rows, Rows]:
        """N*, D* and L* at C."""
        frontier = self._frontier
        return frontier.n_star(flops), frontier.d_star(flops), frontier.loss(flops)

    def flops_for(self, loss: float) -> tuple[Rows, float]:
        """The least C that reaches a loss, and the loss that no C reaches."""
        frontier = self._frontier
        floor = math.nan if frontier.floor is None else np.ravel(frontier.floor)[0]
        return frontier.flops_of("L", loss), floor

    def of_size(self, letter: str, value: float) -> tuple[Rows, Rows, Rows, Rows]:
        """The C at which N, or D, is optimal, with N*, D* and L* there."""
        flops = self._frontier.flops_of(letter, value)
        n, d, loss = self.optimum(flops)
        return flops, value if letter == "N" else n, value if letter == "D" else d, loss

    def losses(self, inputs: Mapping[str, Array]) -> Array:
        """The losses (1 + R, K) at inputs (K,) by letter."""
        return self.law.outcomes(inputs)

    @property
    def _frontier(self) -> Frontier:
        assert self.law.frontier is not None
        return self.law.frontier


@dataclass(frozen=True)
class SeveralLaws:
    """The same of a combination of laws."""

    law: FittedLaw
    combination: Combination
    n_exact: ClassVar = 3

    def interval(self, rows: Rows) -> Interval:
        """A value with the ends of its interval, which stand in either order."""
        value, *ends = np.atleast_1d(rows)
        low, high = ends or (None, None)
        if ends and (low > value or high < value):
            low, high = high, low
        return Interval(value=value, lo=low, hi=high)

    def optimum(self, flops: Rows) -> tuple[Rows, Rows, Rows]:
        """N*, D* and L* at the first C, of which D* is what C pays for at N*."""
        flops = np.ravel(flops)[0]
        n, loss = (self._optima(flops, quantity)[:, 0] for quantity in ("n_star", "loss_star"))
        return n, self.law.cost.tokens(n, flops), loss

    def flops_for(self, loss: float) -> tuple[Rows, float]:
        flops = crossing(lambda c: self._optima(c, "loss_star"), loss, self.n_exact)
        return flops, float(self._optima(MOST, "loss_star")[0, 0])

    def of_size(self, letter: str, value: float) -> tuple[Rows, Rows, Rows, Rows]:
        def inverse(flops: Array) -> Array:
            n = self._optima(flops, "n_star")
            return 1 / (n if letter == "N" else self.law.cost.tokens(n, flops))

        flops = crossing(inverse, 1 / value, self.n_exact)
        n = np.diagonal(self._optima(flops, "n_star"))
        d = self.law.cost.tokens(value if letter == "N" else n, flops)
        *_, loss = self.optimum(flops)
        return flops, value if letter == "N" else n, value if letter == "D" else d, loss

    def losses(self, inputs: Mapping[str, Array]) -> Array:
        return np.array(self.combination.losses(inputs["N"], inputs["D"]).ends(self.law.ci))

    def _optima(self, flops: Rows, quantity: Any) -> Array:
        return np.array(self.combination.optima(flops, quantity).ends(self.law.ci))


def laws_of(law: FittedLaw) -> OneLaw | SeveralLaws:
    """The combination of a fit for which no law was named, else its law."""
    return OneLaw(law) if law.combination is None else SeveralLaws(law, law.combination)


def answer(law: FittedLaw, question: Question) -> tuple[QuestionKind, Answer]:
    """What is asked, and the answer."""
    laws, given, letters = laws_of(law), question.inputs, set(question.inputs)
    loss, has_optimum = question.loss, law.optimum is not None
    if loss is not None:
        if not letters and has_optimum:
            flops, floor = laws.flops_for(loss)
            if not math.isfinite(np.ravel(flops)[0]):
                reason = (
                    "the law's floor E is"
                    if law.combination is None
                    else "the combined laws go down to"
                )
                raise ScalingError(
                    f"--loss {loss:g} cannot be reached: {reason} {floor:.4g}",
                    remedy=f"ask for more than {floor:.4g}",
                )
            n, d, _ = laws.optimum(flops)
            return QuestionKind.LOSS, measures(laws, flops, n, d, loss)
        if law.formula is not None and law.law not in OUTCOMES:
            return QuestionKind.INPUT, input_for(laws, given, loss)
    elif has_optimum and letters == {"C"}:
        return QuestionKind.BUDGET, measures(laws, given["C"], *laws.optimum(given["C"]))
    elif has_optimum and letters == {"C", "U"} and law.formula and "U" in law.formula.inputs:
        return QuestionKind.BUDGET, at_limited_flops(law, given["C"], given["U"])
    elif has_optimum and letters in ({"N"}, {"D"}):
        ((letter, value),) = given.items()
        size = measures(laws, *laws.of_size(letter, value))
        if size["flops"].value is None:
            what = "size" if letter == "N" else "number of tokens"
            what = f"no budget has {value:.3g} as its optimal {what}"
            raise ScalingError(what, remedy="give --flops")
        if letter == "N" and question.inference_tokens:
            served = served_size(laws, value, size["flops"].value, question.inference_tokens)
            return QuestionKind.SERVED_SIZE, served
        return QuestionKind.SIZE if letter == "N" else QuestionKind.TOKENS, size
    elif letters:
        return QuestionKind.INPUTS, at_inputs(laws, given)
    asked = [*map(option_of, sorted(letters)), *(["--loss"] if loss is not None else [])]
    inputs = ", ".join(option_of(each) for each in (law.formula.inputs if law.formula else ""))
    needed = (
        "--flops, --loss, --n-params or --tokens, or --n-params with --tokens"
        if has_optimum
        else f"the inputs of the law {law.law}: {inputs}"
    )
    what = (
        f"{' with '.join(asked)} is not a question that {law.source} answers"
        if asked
        else f"no question is asked of {law.source}"
    )
    raise ScalingError(what, remedy=f"give {needed}")


def measures(laws: OneLaw | SeveralLaws, flops: Rows, n: Rows, d: Rows, loss: Rows) -> Answer:
    """The four measures and their ratio; and the accuracy that the loss has by a second stage."""
    rows = {"flops": flops, "n_params": n, "tokens": d, "loss": loss, "tokens_per_param": d / n}
    known = {name: laws.interval(each) for name, each in rows.items()}
    stage = laws.law.accuracy
    if stage is not None and known["loss"].value is not None:
        from scaling.fit.special.two_stage import predicted_accuracy

        first, *draws = np.atleast_1d(loss)
        drawn = np.array(draws) if draws else None
        known["accuracy"] = predicted_accuracy(stage, float(first), drawn, laws.law.ci)
    return known


def served_size(laws: OneLaw | SeveralLaws, n: float, flops: float, demand: float) -> Answer:
    """The tokens at which N is the cheapest size to train and to serve, and the loss there.

    N is the size of least c0 N^p D + 2 N `demand` at its loss where the derivative along the curve
    of equal loss is zero (Sardana 2024, eq. 3): c0 N^p (p D / N + dD/dN) + 2 `demand` = 0, with
    dD/dN of a N^-alpha + b D^-beta = constant. Of several laws together N is the size to serve at
    the loss of a budget above `flops`, whose optimum it is; the draws are the headline law's.
    """
    from scipy.optimize import brentq
    from scipy.optimize.elementwise import find_root

    from scaling.predict.iso_loss import equal_loss, with_demand

    law = laws.law
    curve, (c0, p) = equal_loss(law.law, law.parameters, n, 1.0), law.cost.at(n)
    slope = curve.a * curve.alpha / (curve.b * curve.beta) * n ** (-curve.alpha - 1)

    def derivative(log_d: Array, slope: Array, beta: Array) -> Array:
        d = np.exp(log_d)
        return c0 * n**p * (p * d / n - slope * d ** (beta + 1)) + 2 * demand

    d = np.exp(find_root(derivative, (0.0, np.log(MOST)), args=(slope, curve.beta)).x)
    if law.combination is not None:

        def served(log_c: float) -> Inference:
            n_star, d_star, _ = (rows[0] for rows in laws.optimum(np.exp(log_c)))
            return with_demand(law, n_star, d_star, demand, is_optimum=True)

        low = math.log(flops) - 1  # where the optimum is smaller than N
        log_c = brentq(lambda log_c: math.log(served(log_c).n_params / n), low, low + SERVED_SPAN)
        d = d / d[0] * served(log_c).tokens
    rows = {"tokens": d, "tokens_per_param": d / n, "flops": law.cost.flops(n, d)}
    interval = OneLaw(law).interval
    return at_inputs(laws, {"N": n, "D": float(d[0])}) | {
        name: interval(each) for name, each in rows.items()
    }


def input_for(laws: OneLaw | SeveralLaws, given: Mapping[str, float], loss: float) -> Answer:
    """The one input of the law that is left open, such that it reaches a loss."""
    law, formula = laws.law, laws.law.formula
    assert formula is not None
    known = complete(given, law.law, formula.inputs, law.cost)
    several = len({"N", "D", "C"} & set(formula.inputs)) > 1  # then C follows from N and D
    left = [
        letter
        for letter in formula.inputs
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

    def curve(x: Array) -> Array:
        return laws.losses(_columns(law, {**given, letter: x}))

    reached = crossing(curve, loss, laws.n_exact)
    if not math.isfinite(reached[0]):
        losses = curve(np.geomspace(1.0, MOST, GRID))[0]
        least, most = np.nanmin(losses), losses[0]
        if loss >= most:
            raise ScalingError(
                f"--loss {loss:g} is reached without any {option_of(letter)}",
                where=law.source,
                remedy=f"ask for less than {most:.4g}",
            )
        raise ScalingError(
            f"--loss {loss:g} cannot be reached by any {option_of(letter)}: the law goes down "
            f"to {least:.4g}",
            where=law.source,
            remedy=f"ask for more than {least:.4g}",
        )
    c, n, d = (reached if name == letter else known.get(name, math.nan) for name in "CND")
    if np.isfinite(np.ravel(n)[0] * np.ravel(d)[0]):
        c = law.cost.flops(n, d)
    measured = measures(laws, c, n, d, loss)
    return measured if letter in "CND" else {**measured, letter: laws.interval(reached)}


def _columns(law: FittedLaw, given: Mapping[str, Any]) -> dict[str, Array]:
    """The inputs of a law where some of them vary."""
    assert law.formula is not None
    known = complete(given, law.law, law.formula.inputs, law.cost)
    arrays = np.broadcast_arrays(*(known[letter] for letter in law.formula.inputs))
    return dict(zip(law.formula.inputs, arrays, strict=True))


def crossing(curves: Callable[[Array], Array], level: float, n_exact: int) -> Array:
    """The least inputs (R,) from 1 to 1e40 at which curves (R, K) of inputs (K,) come down to a
    level, NaN where they never do; the first `n_exact` of them to all digits. The end of an
    interval may begin below the level, for far from the data it is wide, and come down later.
    """

    def where(logs: Array) -> Array:
        values = curves(np.exp(logs))
        comes_down = (values[:, :-1] > level) & (values[:, 1:] <= level)
        index = np.where(comes_down.any(1), comes_down.argmax(1) + 1, 0)
        rows = np.arange(len(values))
        left, right = np.log(values[rows, index - 1]), np.log(values[rows, index])
        share = np.clip((left - np.log(level)) / np.where(left > right, left - right, 1.0), 0, 1)
        at = logs[index - 1] + share * (logs[index] - logs[index - 1])
        return np.where(index > 0, at, np.nan)

    logs = np.linspace(0.0, np.log(MOST), GRID)
    crossings, step = where(logs), logs[1]
    for row in range(n_exact):
        width = 2 * step
        for _ in range(REFINEMENTS):
            logs = crossings[row] + np.linspace(-width, width, NARROW_GRID)
            crossings[row], width = where(logs)[row], 2 * (logs[1] - logs[0])
    return np.exp(crossings)


def at_limited_flops(law: FittedLaw, flops: float, unique: float) -> Answer:
    """N*, D* and L* at C where only `unique` tokens are there to be repeated."""
    assert law.optimum is not None

    def at(log_n: Array) -> dict[str, Array]:
        d = law.cost.tokens(np.exp(log_n), flops)
        return _columns(law, {"N": np.exp(log_n), "D": d, "U": np.minimum(d, unique)})

    logs = np.log(law.optimum.n_star(flops)) + np.linspace(-SIZE_SPAN, SIZE_SPAN, GRID)
    curves = law.outcomes(at(logs))
    log_n, loss = logs[np.argmin(curves, axis=1)], curves.min(axis=1)
    for _ in range(REFINEMENTS):
        width = 2 * (logs[1] - logs[0])
        logs = log_n[0] + np.linspace(-width, width, NARROW_GRID)
        values = law.outcome(at(logs))
        log_n[0], loss[0] = logs[np.argmin(values)], values.min()
    n = np.exp(log_n)
    return measures(OneLaw(law), flops, n, law.cost.tokens(n, flops), loss)


def at_inputs(laws: OneLaw | SeveralLaws, given: Mapping[str, float]) -> Answer:
    """The loss at given inputs, or what else the law gives."""
    law = laws.law
    letters = law.formula.inputs if law.formula else ()
    known = complete(given, law.law, letters, law.cost) if letters else {}
    lacking = [letter for letter in letters if letter not in known]
    if lacking:
        raise ScalingError(
            f"the law {law.law} needs {', '.join(letters)}; {', '.join(lacking)} is missing",
            remedy=f"give {', '.join(map(option_of, letters))}",
        )
    rows = laws.losses({letter: np.array([value]) for letter, value in known.items()})[:, 0]
    c, n, d = (known.get(letter, math.nan) for letter in "CND")
    if law.law == "optimum":
        return measures(laws, c, rows, law.cost.tokens(rows, c), math.nan)
    if law.law == "sigmoid":
        return {**measures(laws, c, n, d, known["X"]), "accuracy": laws.interval(rows)}
    return measures(laws, c, n, d, rows)
