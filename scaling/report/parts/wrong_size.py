"""The cost of a wrong size: what a model smaller or larger than N* loses when it is trained for the
same FLOPs.
"""

from __future__ import annotations

import numpy as np

from scaling.fit.document import Estimate
from scaling.fit.frontier.numeric import NumericFrontier
from scaling.formatting import format_count, format_flops
from scaling.predict.law_source import FittedLaw
from scaling.render.figure import Axis, Band, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import format_estimate

SHARES = np.geomspace(0.25, 4.0, 49)  # of N*
HALF, BEST, TWICE = 12, 24, 36  # indices of 1/2, 1 and 2
AXES = Axis("size, as a multiple of N*", log=True, unit="times"), Axis("compute wasted, %")


@np.errstate(all="ignore")  # draws of what is not identified overflow: left out of intervals
def wasted(law: FittedLaw | None, flops: float | None) -> np.ndarray | None:
    """For SHARES of N* at `flops`: the share of these FLOPs that the optimum of the same loss would
    not need (1 + R, S), by the law and each draw; None for a law of other inputs than N and D,
    without a frontier, or whose frontier is found by minimisation (a minute for all draws).

    A draw keeps the size that the fit names: its waste is what this size would cost if the draw
    were the truth.
    """
    if law is None or law.optimum is None or law.frontier is None or flops is None:
        return None
    if law.formula is None:
        return None
    if not {*law.formula.inputs} <= {"N", "D", "U"} or isinstance(law.optimum, NumericFrontier):
        return None
    n = float(law.optimum.n_star(flops)) * SHARES
    d = law.cost.tokens(n, np.asarray(flops))
    loss = law.outcomes({"N": n, "D": d, "U": d})  # all tokens are new
    needed = law.frontier.flops_of("L", loss.T).T  # draws last there
    waste = np.maximum(1 - needed / flops, 0.0)
    return waste if np.isfinite(loss[0] + waste[0]).all() else None


def wrong_size(law: FittedLaw | None, flops: float | None) -> tuple[Figure | None, str]:
    """Wasted compute against the size with its band, a star at N*, dots at half and twice N*; and
    in words what half and twice the size cost.
    """
    shares = wasted(law, flops)
    if shares is None or law is None or law.optimum is None or flops is None:
        return None, ""
    percent, *draws = 100 * shares
    drawn = np.array(draws).T if draws else [None] * len(SHARES)
    ends = [
        Estimate.of(float(value), each, law.ci) for value, each in zip(percent, drawn, strict=True)
    ]
    caption = (
        f"At {format_flops(flops)} FLOPs, by the law {law.law} alone (its N* is "
        f"{format_count(float(law.optimum.n_star(flops)))}): the share of the compute that the "
        "best size saves at the same loss."
    )
    band: list[Trace] = []
    if draws:
        band = [Band(SHARES, [end.lo or 0.0 for end in ends], [end.hi or 0.0 for end in ends])]
        caption += f" Band: {100 * law.ci:g} % over bootstrap refits."
    dots = [HALF, TWICE]
    traces = (
        *band,
        Line(SHARES, percent),
        ReferenceLine(x=1.0, label="N*"),
        Markers(SHARES[dots], percent[dots], "half and twice N*", 1, "circle", 9),
        Markers(SHARES[[BEST]], percent[[BEST]], "N*", 1, "star", 14),
    )
    less, more = (format_estimate(ends[index], "short") for index in dots)
    sentence = (
        f"A model of half the best size wastes {less} % of the compute, one of twice the size "
        f"{more} % (by the law {law.law} alone)."
    )
    return Figure("wrong-size", "Compute wasted by a wrong size", caption, *AXES, traces), sentence
