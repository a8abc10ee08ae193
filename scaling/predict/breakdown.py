"""What stands behind the answer of several laws: what each says, the parts of its standard error,
and the approaches that disagree with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from scaling.fit.combination import Combination, Mixture, Quantity
from scaling.predict.answers import Answer, OneLaw, laws_of, measures
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import ApproachPrediction, CombinedAnswer, ErrorParts
from scaling.predict.question import QuestionKind
from scaling.warning import ResultWarning, WarningCode, warn

MIN_SIZE_DISAGREEMENT = 1.2  # of the largest N* over the smallest, for approaches to disagree
OPTIMUM = (QuestionKind.BUDGET, QuestionKind.SIZE, QuestionKind.TOKENS, QuestionKind.LOSS)


def breakdown(
    law: FittedLaw, kind: QuestionKind, answer: Answer
) -> dict[str, CombinedAnswer] | None:
    """The breakdowns of N* and L*, or of the loss of a run; None for one law."""
    combination = law.combination
    if combination is None:
        return None
    flops, n, d = (answer[name].value for name in ("flops", "n_params", "tokens"))
    if kind not in OPTIMUM:
        drawn = law.outcomes({"N": np.array([n]), "D": np.array([d])})
        return {"loss": _taken_apart(combination, "loss", combination.losses(n, d), drawn)}
    size, _, loss = OneLaw(law).optimum(flops)
    quantities: dict[str, tuple[Quantity, np.ndarray]] = {"n_params": ("n_star", size)}
    if kind is not QuestionKind.LOSS:
        quantities["loss"] = ("loss_star", loss)
    return {
        name: _taken_apart(combination, quantity, combination.optima(flops, quantity), rows)
        for name, (quantity, rows) in quantities.items()
    }


def _taken_apart(
    combination: Combination, quantity: Quantity, mixture: Mixture, rows: np.ndarray
) -> CombinedAnswer:
    """The standard error taken apart; the spread of the draws of the headline law (its rows but the
    first) counts as its parameters, up to the whole spread.
    """
    spread, noise, distance = (
        float(part[0]) for part in (mixture.spread, mixture.noise, mixture.distance)
    )
    logs = np.log(np.ravel(rows)[1:])
    logs = logs[np.isfinite(logs)]
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


def with_disagreement(
    law: FittedLaw, answer: Answer, approaches: Mapping[str, ApproachPrediction]
) -> tuple[Answer, list[ResultWarning]]:
    """The answer for a budget and, where the intervals of N* by the three approaches do not all
    overlap, its interval of N* widened to hold the sizes of those that the later budgets have not
    contradicted, with a warning where that matters.
    """
    ends = {
        name: (each.n_params.lo, each.n_params.hi)
        for name, each in approaches.items()
        if each.n_params.lo is not None and each.n_params.hi is not None
    }
    sizes = {name: approaches[name].n_params.value or math.nan for name in ends}
    combination = law.combination
    if combination is None or len(ends) < 2:
        return answer, []
    if max(lo for lo, _ in ends.values()) <= min(hi for _, hi in ends.values()):
        return answer, []
    kept = {
        name: size
        for name, size in sizes.items()
        if combination.is_not_contradicted(law.law if name == "parametric" else name)
    }
    if kept:
        size, flops = answer["n_params"], answer["flops"].value
        wide = [n for n in (*kept.values(), size.lo, size.hi) if n is not None]
        n = np.array([size.value, min(wide), max(wide)], float)
        loss = answer["loss"]
        answer = measures(laws_of(law), flops, n, law.cost.tokens(n, flops), math.nan)
        answer["loss"] = loss
    smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    if sizes[largest] < MIN_SIZE_DISAGREEMENT * sizes[smallest]:
        return answer, []
    message = (
        f"the approaches disagree beyond their intervals: N* is {sizes[smallest]:.3g} by "
        f"{smallest} and {sizes[largest]:.3g} by {largest}"
    )
    if contradicted := " and ".join(name for name in (smallest, largest) if name not in kept):
        message += f"; later budgets contradict {contradicted}, so the interval may exclude it"
    return answer, [warn(WarningCode.APPROACHES_DISAGREE, message, **sizes)]
