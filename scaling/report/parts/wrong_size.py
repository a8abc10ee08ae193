"""The cost of a wrong size: what a model smaller or larger than N* loses when it is trained for the
same FLOPs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scaling.fit.document import Estimate
from scaling.fit.frontier.frontier import Frontier
from scaling.formatting import format_count, format_flops
from scaling.predict.law_source import FittedLaw, load_law
from scaling.render.figure import Axis, Band, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Column, format_cell, number

SHARES = np.geomspace(0.25, 4.0, 49)  # of N*
MARKED = (0.5, 2.0)
N_SHARE = Axis("size, as a multiple of N*", log=True, unit="times")


@dataclass(frozen=True)
class SizePenalty:
    """At `flops` FLOPs, for `shares` of N* (S,): the loss, and the `waste`, the share of these
    FLOPs that the optimum of the same loss would not need. `draws` of each (R, S), None
    without a bootstrap; `ci` is the level of intervals.

    A draw keeps the size that the fit names: its waste is what this size would cost if the draw
    were the truth.
    """

    flops: float
    n_star: float
    ci: float
    shares: np.ndarray
    loss: np.ndarray
    waste: np.ndarray
    loss_draws: np.ndarray | None = None
    waste_draws: np.ndarray | None = None


@np.errstate(
    all="ignore"
)  # draws of what is not identified overflow, and are left out of intervals
def wrong_size(path: Path | None, flops: float | None) -> SizePenalty | None:
    """What the fit at `path` says of sizes about its N*; None for one without a law of N and D that
    has a frontier. Raises ScalingError.
    """
    from scaling.fit.laws.laws import LAWS

    law_source = load_law(str(path)) if path is not None else None
    if (
        law_source is None
        or law_source.optimum is None
        or flops is None
        or law_source.law not in LAWS
    ):
        return None
    n_star = float(law_source.optimum.n_star(flops))
    values = {name: np.asarray(value) for name, value in law_source.values.items()}
    loss, waste = _at(law_source, values, law_source.optimum, flops, n_star * SHARES)
    if not (np.isfinite(loss).all() and np.isfinite(waste).all()):
        return None  # nothing that could be drawn
    drawn: tuple[Any, Any] = (None, None)
    if law_source.draws is not None and law_source.optimum_draws is not None:
        drawn = _at(law_source, law_source.draws, law_source.optimum_draws, flops, n_star * SHARES)
    return SizePenalty(flops, n_star, law_source.ci, SHARES, loss, waste, *drawn)


def _at(
    law_source: FittedLaw, values: Any, optimum: Frontier, flops: float, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The loss at sizes (S,) and the waste, each (..., S) for parameters or draws of them."""
    from scaling.fit.laws.laws import LAWS

    law, d = LAWS[law_source.law], law_source.cost.tokens(n, np.asarray(flops))
    inputs = {"N": n, "D": d, "U": d}  # every token is new
    loss = np.exp(
        law.log_predict(law.theta(values), {letter: inputs[letter] for letter in law.inputs})
    )
    needed = optimum.flops_for(loss.T).T  # draws last, as those of the frontier are
    return loss, np.maximum(1 - needed / flops, 0.0)


def _ends(
    penalty: SizePenalty, draws: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of each size (S,), as everywhere else."""
    intervals = [
        Estimate.of(float(value), column, penalty.ci)
        for value, column in zip(values, draws.T, strict=True)
    ]
    low, high = (
        np.array([getattr(entry, end) for entry in intervals], float) for end in ("lo", "hi")
    )
    return low, high


def figures(penalty: SizePenalty | None) -> list[Figure]:
    """Loss and wasted compute against the size, with their bands; stars at N*, rings at half and
    twice N*.
    """
    if penalty is None:
        return []
    budget = format_flops(penalty.flops)
    at = (
        f"Every size gets the same {budget} FLOPs, so that a smaller model sees more tokens; "
        f"N* is {format_count(penalty.n_star)}."
    )
    loss = _figure(
        penalty,
        "wrong-size-loss",
        "Loss of a wrong size",
        Axis("loss", log=True),
        penalty.loss,
        penalty.loss_draws,
        at,
    )
    waste = _figure(
        penalty,
        "wrong-size-compute",
        "Compute wasted by a wrong size",
        Axis("compute wasted, %"),
        100 * penalty.waste,
        None if penalty.waste_draws is None else 100 * penalty.waste_draws,
        "The share of the compute that a model of the best size would not need for the same loss."
        + (
            " The band takes every refit for the truth while the size stays: at N* it is the "
            "price of not knowing N* better."
            if penalty.waste_draws is not None
            else ""
        ),
    )
    return [loss, waste]


def _figure(
    penalty: SizePenalty,
    name: str,
    title: str,
    axis: Axis,
    values: np.ndarray,
    draws: np.ndarray | None,
    caption: str,
) -> Figure:
    indices = [int(np.argmin(np.abs(np.log(penalty.shares / share)))) for share in (1.0, *MARKED)]
    best, *marked = indices
    notes = [f"{penalty.shares[i]:.2g} N*: {values[i]:.4g}" for i in indices]
    band: tuple[Trace, ...] = (
        () if draws is None else (Band(penalty.shares, *_ends(penalty, draws, values), 0),)
    )
    traces = (
        *band,
        Line(penalty.shares, values, "", 0),
        ReferenceLine(x=1.0, label="N*"),
        Markers(
            penalty.shares[marked],
            values[marked],
            "half and twice N*",
            1,
            "circle",
            9,
            notes=notes[1:],
        ),
        Markers(penalty.shares[[best]], values[[best]], "N*", 1, "star", 14, notes=notes[:1]),
    )
    return Figure(name, title, caption, N_SHARE, axis, traces)


def sentence(penalty: SizePenalty | None) -> str | None:
    """What half and twice the size cost, in numbers."""
    if penalty is None:
        return None
    best = int(np.argmin(np.abs(np.log(penalty.shares))))
    half, twice = (_price(penalty, share) for share in MARKED)
    return (
        f"What a wrong size costs: with the same {format_flops(penalty.flops)} FLOPs half of "
        f"N* reaches a loss of {half[0]} instead of "
        f"{number(float(penalty.loss[best]))}, for which {half[1]} % less would have been "
        f"enough; twice N* {twice[0]}, {twice[1]} %."
    )


def _price(penalty: SizePenalty, share: float) -> tuple[str, str]:
    """The loss at a share of N*, and the compute that it wastes in percent, with its interval."""
    index = int(np.argmin(np.abs(np.log(penalty.shares / share))))
    entry = Estimate.of(
        100 * float(penalty.waste[index]),
        None if penalty.waste_draws is None else 100 * penalty.waste_draws[:, index],
        penalty.ci,
    )
    return number(float(penalty.loss[index])), format_cell(
        (entry.value, entry.lo, entry.hi), Column("", "short", True)
    )
