"""The cost of a wrong size: what a model smaller or larger than N* loses when it is trained for the
same FLOPs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.fit.document import Estimate
from scaling.fit.frontier.frontier import Frontier
from scaling.formatting import format_count, format_flops
from scaling.predict.law_source import FittedLaw
from scaling.render.figure import Axis, Band, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Column, format_cell, number

SHARES = np.geomspace(0.25, 4.0, 49)  # of N*
MARKED = (0.5, 2.0)
N_SHARE = Axis("size, as a multiple of N*", log=True, unit="times")


@dataclass(frozen=True)
class SizePenalty:
    """At `flops` FLOPs, for `shares` of N* (S,): the loss, and the `waste`, the share of these
    FLOPs that the optimum of the same loss would not need; its `draws` (R, S), None without a
    bootstrap; `ci` is the level of intervals.

    A draw keeps the size that the fit names: its waste is what this size would cost if the draw
    were the truth.
    """

    law: str
    flops: float
    n_star: float
    ci: float
    shares: np.ndarray
    loss: np.ndarray
    waste: np.ndarray
    draws: np.ndarray | None = None

    def index(self, share: float) -> int:
        """The index of a share."""
        return int(np.argmin(np.abs(np.log(self.shares / share))))

    def interval(self, index: int) -> Estimate:
        """The waste in percent at a share, with its interval."""
        drawn = None if self.draws is None else 100 * self.draws[:, index]
        return Estimate.of(100 * float(self.waste[index]), drawn, self.ci)


@np.errstate(all="ignore")  # draws of what is not identified overflow: left out of intervals
def wrong_size(law: FittedLaw | None, flops: float | None) -> SizePenalty | None:
    """What a law says of sizes about its N*; None for one of other inputs than N and D, or without
    a frontier.
    """
    from scaling.fit.laws.laws import LAWS

    if law is None or law.optimum is None or flops is None or law.law not in LAWS:
        return None
    n_star = float(law.optimum.n_star(flops))
    values = {name: np.asarray(value) for name, value in law.values.items()}
    loss, waste = _at(law, values, law.optimum, flops, n_star * SHARES)
    if not (np.isfinite(loss).all() and np.isfinite(waste).all()):
        return None  # nothing that could be drawn
    drawn = None
    if law.draws is not None and law.optimum_draws is not None:
        drawn = _at(law, law.draws, law.optimum_draws, flops, n_star * SHARES)[1]
    return SizePenalty(law.law, flops, n_star, law.ci, SHARES, loss, waste, drawn)


def _at(
    source: FittedLaw, values: Any, optimum: Frontier, flops: float, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The loss at sizes (S,) and the waste, each (..., S) for parameters or draws of them."""
    from scaling.fit.laws.laws import LAWS

    law, d = LAWS[source.law], source.cost.tokens(n, np.asarray(flops))
    inputs = {"N": n, "D": d, "U": d}  # every token is new
    given = {letter: inputs[letter] for letter in law.inputs}
    loss = law.from_log(law.log_predict(law.theta(values), given))
    needed = optimum.flops_for(loss.T).T  # draws last, as those of the frontier are
    return loss, np.maximum(1 - needed / flops, 0.0)


def figure(penalty: SizePenalty | None) -> Figure | None:
    """Wasted compute against the size, with its band; a star at N*, dots at half and twice N*; the
    losses as notes.
    """
    if penalty is None:
        return None
    waste, shares = 100 * penalty.waste, penalty.shares
    best, *marked = (penalty.index(share) for share in (1.0, *MARKED))
    notes = [
        f"{shares[i]:.2g} N*: loss {penalty.loss[i]:.4g}, {waste[i]:.2g} % wasted"
        for i in (best, *marked)
    ]
    band: tuple[Trace, ...] = ()
    caption = (
        f"Every size gets the same {format_flops(penalty.flops)} FLOPs; by the law {penalty.law}, "
        f"whose N* is {format_count(penalty.n_star)}, this share of them would not be needed at N* "
        "for the same loss."
    )
    if penalty.draws is not None:
        ends = [penalty.interval(index) for index in range(len(shares))]
        band = (Band(shares, [end.lo or 0.0 for end in ends], [end.hi or 0.0 for end in ends], 0),)
        caption += " The band takes every refit for the truth: at N* it is the price of not "
        caption += "knowing N* better."
    traces = (
        *band,
        Line(shares, waste, "", 0),
        ReferenceLine(x=1.0, label="N*"),
        Markers(
            shares[marked], waste[marked], "half and twice N*", 1, "circle", 9, notes=notes[1:]
        ),
        Markers(shares[[best]], waste[[best]], "N*", 1, "star", 14, notes=notes[:1]),
    )
    axes = N_SHARE, Axis("compute wasted, %")
    return Figure("wrong-size", "Compute wasted by a wrong size", caption, *axes, traces)


def sentence(penalty: SizePenalty | None) -> str | None:
    """What half and twice the size cost, in numbers."""
    if penalty is None:
        return None
    half, twice = (
        (number(float(penalty.loss[index])), penalty.interval(index))
        for index in map(penalty.index, MARKED)
    )
    half_waste, twice_waste = (
        format_cell((item.value, item.lo, item.hi), Column("", "short", True))
        for _, item in (half, twice)
    )
    return (
        f"A wrong size: with the same {format_flops(penalty.flops)} FLOPs half of N* reaches a "
        f"loss of {half[0]} instead of {number(float(penalty.loss[penalty.index(1.0)]))}, for "
        f"which {half_waste} % less would have been enough; twice N* {twice[0]}, {twice_waste} %."
    )
