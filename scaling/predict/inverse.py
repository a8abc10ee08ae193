"""A law asked the other way round: the input that reaches a loss, the optimum under a limit of
unique tokens, the tokens at which a served size is the cheapest. Values, and draws where there are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.frontier.frontier import Cost
from scaling.predict.iso_loss import IsoLossCurve
from scaling.predict.law_source import FittedLaw
from scaling.predict.question import option_of

MOST = 1e40  # up to which an input is sought
GRID = 4001
REFINEMENTS = 3
HALVINGS = 150
SIZE_SPAN = np.log(1e4)
Drawn = tuple[float, np.ndarray | None]


def _columns(law: FittedLaw, given: Mapping[str, float], **varied: np.ndarray) -> dict:
    """The inputs of a law where some of them vary; C follows from N and D, unique tokens from D."""
    assert law.formula is not None
    count = len(next(iter(varied.values())))
    columns = {**{letter: np.full(count, value) for letter, value in given.items()}, **varied}
    letters = law.formula.inputs
    if {"N", "D"} <= set(columns):
        columns["C"] = law.cost.flops(columns["N"], columns["D"])
    if "U" in letters and "U" not in columns:
        columns["U"] = columns["D"]
    return {letter: columns[letter] for letter in letters}


def _crossing(logs: np.ndarray, curves: np.ndarray, level: float) -> np.ndarray:
    """Where curves (R, K) over logs (K,) first come down to a level (R,); NaN where
    they never do.
    """
    below = curves <= level
    index = np.clip(np.argmax(below, axis=1), 1, None)[:, None]
    left, right = (
        np.log(np.take_along_axis(curves, place, 1))[:, 0] for place in (index - 1, index)
    )
    share = np.clip((left - np.log(level)) / np.where(left > right, left - right, 1.0), 0, 1)
    where = logs[index[:, 0] - 1] + share * (logs[index[:, 0]] - logs[index[:, 0] - 1])
    return np.where(below.any(axis=1), where, np.nan)


def input_for(law: FittedLaw, given: Mapping[str, float], letter: str, loss: float) -> Drawn:
    """The least value of an input at which the law reaches a loss. Raises ScalingError for none."""
    logs = np.linspace(0.0, np.log(MOST), GRID)
    curves = law.outcome_draws(_columns(law, given, **{letter: np.exp(logs)}))
    drawn = None if curves is None else np.exp(_crossing(logs, curves, loss))
    for _ in range(REFINEMENTS):
        curve = law.outcome(_columns(law, given, **{letter: np.exp(logs)}))
        value = float(_crossing(logs, curve[None], loss)[0])
        if not np.isfinite(value):
            least = float(np.nanmin(curve))
            raise ScalingError(
                f"--loss {loss:g} cannot be reached by any {option_of(letter)}: the law goes down "
                f"to {least:.4g}",
                where=law.source,
                remedy=f"ask for more than {least:.4g}",
            )
        width = 2 * (logs[1] - logs[0])
        logs = np.linspace(value - width, value + width, GRID)
    return float(np.exp(value)), drawn


def limited_optimum(law: FittedLaw, flops: float, unique: float) -> tuple[Drawn, Drawn, Drawn]:
    """N*, D* and the loss at C where only `unique` tokens are there to be repeated."""
    assert law.optimum is not None
    logs = np.log(law.optimum.n_star(flops)) + np.linspace(-SIZE_SPAN, SIZE_SPAN, GRID)

    def at(log_n: np.ndarray) -> dict[str, np.ndarray]:
        n = np.exp(log_n)
        d = law.cost.tokens(n, flops)
        return _columns(law, {}, N=n, D=d, U=np.minimum(d, unique))

    drawn = law.outcome_draws(at(logs))
    sizes = None if drawn is None else np.exp(logs[np.argmin(drawn, axis=1)])
    losses = None if drawn is None else drawn.min(axis=1)
    for _ in range(REFINEMENTS):
        best = logs[int(np.argmin(law.outcome(at(logs))))]
        width = 2 * (logs[1] - logs[0])
        logs = np.linspace(best - width, best + width, GRID)
    n, loss = float(np.exp(best)), float(law.outcome(at(np.array([best])))[0])
    tokens = None if sizes is None else law.cost.tokens(sizes, flops)
    return (
        (n, sizes),
        (float(law.cost.tokens(n, flops)), tokens),
        (
            loss,
            losses,
        ),
    )


def tokens_when_served(curve: IsoLossCurve, cost: Cost, n: float, demand: float) -> np.ndarray:
    """The D at which N is the size of least c0 N^p D + 2 N `demand` at its loss.

    Where the derivative along the curve of equal loss is zero (Sardana 2024, eq. 3):
    c0 N^p (p D / N + dD/dN) + 2 `demand` = 0, with dD/dN of a N^-alpha + b D^-beta = constant.
    """
    slope = curve.a * curve.alpha / (curve.b * curve.beta) * n ** (-curve.alpha - 1)
    low, high = np.zeros(np.shape(slope)), np.full(np.shape(slope), np.log(MOST))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        d = np.exp(middle)
        rate = cost.p * d / n - slope * d ** (curve.beta + 1)
        is_short = cost.c0 * n**cost.p * rate + 2 * demand > 0
        low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
    return np.exp((low + high) / 2)
