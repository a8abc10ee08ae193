"""The cost of being wrong: what a model smaller or larger than N* loses when it is trained for the same FLOPs."""

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
    """At `flops` FLOPs, for `shares` of N* (S,): the loss, and the `waste`, the share of these FLOPs that the optimum of the same loss
    would not need. `draws` of each (R, S), None without a bootstrap; `ci` is the level of intervals.

    A draw keeps the size that the fit names: its waste is what this size would cost if the draw were the truth.
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
    """What the fit at `path` says of sizes about its N*; None for one without a law of N and D that has a frontier. Raises ScalingError."""
    from scaling.fit.laws.laws import LAWS

    known = load_law(str(path)) if path is not None else None
    if known is None or known.optimum is None or flops is None or known.law not in LAWS:
        return None
    n_star = float(known.optimum.n_star(flops))
    values = {name: np.asarray(value) for name, value in known.values.items()}
    loss, waste = _at(known, values, known.optimum, flops, n_star * SHARES)
    if not (np.isfinite(loss).all() and np.isfinite(waste).all()):
        return None  # nothing that could be drawn
    drawn: tuple[Any, Any] = (None, None)
    if known.draws is not None and known.optimum_draws is not None:
        drawn = _at(known, known.draws, known.optimum_draws, flops, n_star * SHARES)
    return SizePenalty(flops, n_star, known.ci, SHARES, loss, waste, *drawn)


def _at(
    known: FittedLaw, values: Any, optimum: Frontier, flops: float, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The loss at sizes (S,) and the waste, each (..., S) for parameters or draws of them."""
    from scaling.fit.laws.laws import LAWS

    law, d = LAWS[known.law], known.cost.tokens(n, np.asarray(flops))
    inputs = {"N": n, "D": d, "U": d}  # every token is new
    loss = np.exp(
        law.log_predict(law.theta(values), {letter: inputs[letter] for letter in law.inputs})
    )
    needed = optimum.flops_for(loss.T).T  # draws last, as those of the frontier are
    return loss, np.maximum(1 - needed / flops, 0.0)


def _ends(
    found: SizePenalty, draws: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of each size (S,), as everywhere else."""
    each = [
        Estimate.of(float(value), column, found.ci)
        for value, column in zip(values, draws.T, strict=True)
    ]
    low, high = (np.array([getattr(entry, end) for entry in each], float) for end in ("lo", "hi"))
    return low, high


def figures(found: SizePenalty | None) -> list[Figure]:
    """Loss and wasted compute against the size, with their bands; stars at N*, rings at half and twice N*."""
    if found is None:
        return []
    budget = format_flops(found.flops)
    at = f"Every size gets the same {budget} FLOPs, so that a smaller model sees more tokens; N* is {format_count(found.n_star)}."
    loss = _figure(
        found,
        "wrong-size-loss",
        "The cost of being wrong: loss",
        Axis("loss", log=True),
        found.loss,
        found.loss_draws,
        at,
    )
    waste = _figure(
        found,
        "wrong-size-compute",
        "The cost of being wrong: compute",
        Axis("compute wasted, %"),
        100 * found.waste,
        None if found.waste_draws is None else 100 * found.waste_draws,
        "The share of the compute that a model of the best size would not need for the same loss."
        + (
            " The band takes every refit for the truth while the size stays: at N* it is the price of not knowing N* better."
            if found.waste_draws is not None
            else ""
        ),
    )
    return [loss, waste]


def _figure(
    found: SizePenalty,
    name: str,
    title: str,
    axis: Axis,
    values: np.ndarray,
    draws: np.ndarray | None,
    caption: str,
) -> Figure:
    places = [int(np.argmin(np.abs(np.log(found.shares / share)))) for share in (1.0, *MARKED)]
    best, *off = places
    notes = [f"{found.shares[i]:.2g} N*: {values[i]:.4g}" for i in places]
    band: tuple[Trace, ...] = (
        () if draws is None else (Band(found.shares, *_ends(found, draws, values), 0),)
    )
    traces = (
        *band,
        Line(found.shares, values, "", 0),
        ReferenceLine(x=1.0, label="N*"),
        Markers(
            found.shares[off], values[off], "half and twice N*", 1, "circle", 9, notes=notes[1:]
        ),
        Markers(found.shares[[best]], values[[best]], "N*", 1, "star", 14, notes=notes[:1]),
    )
    return Figure(name, title, caption, N_SHARE, axis, traces)


def sentence(found: SizePenalty | None) -> str | None:
    """What half and twice the size cost, in numbers."""
    if found is None:
        return None
    best = int(np.argmin(np.abs(np.log(found.shares))))
    half, twice = (_price(found, share) for share in MARKED)
    return (
        f"What a wrong size costs: with the same {format_flops(found.flops)} FLOPs half of N* reaches a loss of {half[0]} instead of "
        f"{number(float(found.loss[best]))}, for which {half[1]} % less would have been enough; twice N* {twice[0]}, {twice[1]} %."
    )


def _price(found: SizePenalty, share: float) -> tuple[str, str]:
    """The loss at a share of N*, and the compute that it wastes in percent, with its interval."""
    place = int(np.argmin(np.abs(np.log(found.shares / share))))
    entry = Estimate.of(
        100 * float(found.waste[place]),
        None if found.waste_draws is None else 100 * found.waste_draws[:, place],
        found.ci,
    )
    return number(float(found.loss[place])), format_cell(
        (entry.value, entry.lo, entry.hi), Column("", "short", True)
    )
