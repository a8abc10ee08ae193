"""The cost of a wrong size: what a model smaller or larger than N* loses when it is trained for the
same FLOPs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.fit.document import Estimate
from scaling.formatting import format_count, format_flops
from scaling.predict.law_source import FittedLaw, with_draws
from scaling.render.figure import Axis, Band, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import format_estimate

SHARES = np.geomspace(0.25, 4.0, 49)  # of N*
HALF, BEST, TWICE = 12, 24, 36  # indices of 1/2, 1 and 2
N_SHARE = Axis("size, as a multiple of N*", log=True, unit="times")


@dataclass(frozen=True)
class SizePenalty:
    """At `flops` FLOPs, for SHARES of N* (S,): the loss, and the `waste`, the share of these FLOPs
    that the optimum of the same loss would not need; its `draws` (R, S), None without a bootstrap;
    `ci` is the level of intervals.

    A draw keeps the size that the fit names: its waste is what this size would cost if the draw
    were the truth.
    """

    law: str
    flops: float
    n_star: float
    ci: float
    loss: np.ndarray
    waste: np.ndarray
    draws: np.ndarray | None = None

    def interval(self, index: int) -> Estimate:
        """The waste in percent at a share, with its interval."""
        drawn = None if self.draws is None else 100 * self.draws[:, index]
        return Estimate.of(100 * float(self.waste[index]), drawn, self.ci)


@np.errstate(all="ignore")  # draws of what is not identified overflow: left out of intervals
def wrong_size(law: FittedLaw | None, flops: float | None) -> SizePenalty | None:
    """What a law says of sizes about its N*; None for one of other inputs than N and D, or without
    a frontier.
    """
    if law is None or law.optimum is None or flops is None or law.formula is None:
        return None
    n_star = float(law.optimum.n_star(flops))
    n = n_star * SHARES
    d = law.cost.tokens(n, np.asarray(flops))
    if not {*law.formula.inputs} <= {"N", "D", "U"}:
        return None
    loss = law.outcomes({"N": n, "D": d, "U": d})  # all tokens are new
    needed = with_draws(law.optimum, law.optimum_draws).flops_for(loss.T).T  # draws last there
    waste = np.maximum(1 - needed / flops, 0.0)
    if not np.isfinite(loss[0] + waste[0]).all():
        return None  # nothing that could be drawn
    drawn = waste[1:] if len(waste) > 1 else None
    return SizePenalty(law.law, flops, n_star, law.ci, loss[0], waste[0], drawn)


def figure(penalty: SizePenalty | None) -> Figure | None:
    """Wasted compute against the size, with its band; a star at N*, dots at half and twice N*; the
    losses as notes.
    """
    if penalty is None:
        return None
    waste = 100 * penalty.waste

    def marks(label: str, symbol: Any, size: float, *at: int) -> Markers:
        return Markers(SHARES[[*at]], waste[[*at]], label, 1, symbol, size)

    traces: list[Trace] = [
        Line(SHARES, waste, "", 0),
        ReferenceLine(x=1.0, label="N*"),
        marks("half and twice N*", "circle", 9, HALF, TWICE),
        marks("N*", "star", 14, BEST),
    ]
    caption = (
        f"At {format_flops(penalty.flops)} FLOPs, by the law {penalty.law} alone (its N* is "
        f"{format_count(penalty.n_star)}): the share of the compute that the best size saves at "
        "the same loss."
    )
    if penalty.draws is not None:
        ends = [penalty.interval(index) for index in range(len(SHARES))]
        band = Band(SHARES, [end.lo or 0.0 for end in ends], [end.hi or 0.0 for end in ends], 0)
        traces.insert(0, band)
        caption += f" Band: {100 * penalty.ci:g} % over bootstrap refits."
    axes = N_SHARE, Axis("compute wasted, %")
    return Figure("wrong-size", "Compute wasted by a wrong size", caption, *axes, traces)


def sentence(penalty: SizePenalty | None) -> str | None:
    """What half and twice the size cost, in numbers."""
    if penalty is None:
        return None
    less, more = (format_estimate(penalty.interval(index), "short") for index in (HALF, TWICE))
    return (
        f"A model of half the best size wastes {less} % of the compute, one of twice the size "
        f"{more} % (by the law {penalty.law} alone)."
    )
