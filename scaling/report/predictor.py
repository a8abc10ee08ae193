"""The predictor on the page: what a browser needs to answer as `scaling predict` does, with the
same intervals.

Every law with a compute-optimal frontier is given as powers of C, and a combination as such powers
with weights, so that the page knows no law by name; templates/predictor.js calculates, with the
counts of planned models where the law has them. The demand of inference needs the pairs of N and D
of one loss, which only laws of two powers have.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.combination import FREEDOM, SPREAD_SHARE, Quantity
from scaling.fit.frontier.frontier import Frontier
from scaling.fit.frontier.numeric import NumericFrontier
from scaling.fit.significance import student
from scaling.predict.law_source import FittedLaw

DIGITS = 10  # of a draw, as documents keep them: what is shown has three
ABOVE, SERVED = 6, 12  # decades that the sliders reach beyond the data: budgets, tokens served


@dataclass(frozen=True)
class Predictor:
    """What the page says of the predictor, and the numbers that it calculates with (`data`, ready
    for JSON).

    `command` is the shell command that the budget is appended to; `draws` how many refits the
    intervals rest on (0 for a combination), `level` their level in percent; `budget` (log10 of
    FLOPs) and `tokens` (log10) are the ends of the sliders, `tokens` None where no demand can be
    asked.
    """

    command: str
    draws: int
    level: float
    budget: tuple[int, int]
    tokens: tuple[int, int] | None
    data: Mapping[str, Any]
    unit: str


@np.errstate(all="ignore")  # draws of what is not identified overflow: left out of intervals
def predictor(
    law: FittedLaw | None,
    path: Path | None,
    start: float | None,
    light: tuple[str, str] = ("with care", "nothing is known of its fit"),
    unit: str = "",
) -> Predictor | None:
    """The predictor of the fit at `path`, opened at `start` FLOPs, whose trust (`light`) holds
    within the data; `unit` is that of a loss. None for a fit that knows no frontier, none in powers
    (a law of one's own), or no budgets.
    """
    if law is None or "flops" not in law.range or start is None:
        return None
    if law.optimum is None or law.frontier is None:
        return None
    if law.combination is None and isinstance(law.optimum, NumericFrontier):
        return None
    drawn = None
    if law.combination is None and law.draws is not None:
        # D* follows from a law's N* and the cost; beta moves them to the cost of planned models
        unused = {"b", "log_d"} if law.law != "frontier" else set()
        unused |= set() if law.cost.planned else {"beta"}
        columns = _columns(law.frontier).items()
        drawn = {name: values[1:] for name, values in columns if name not in unused}
    equal, tokens = _equal_loss(law), law.range.get("tokens")
    command = shlex.join(["scaling", "predict", str(path), "--flops"])
    data = {
        "frontier": _powers(law.optimum),
        "draws": drawn,
        "combination": _combination(law),
        "cost": law.cost.to_dict(),
        "ci": law.ci,
        "range": dict(law.range),
        "sameLoss": equal,
        "warnings": [warning.message for warning in law.warnings],
        "command": command,
        "start": start,
        "light": light,
    }
    return Predictor(
        command=command,
        draws=len(drawn["a"]) if drawn else 0,
        level=100 * law.ci,
        budget=_decades(law.range["flops"], -1, ABOVE),
        tokens=_decades(tokens, 0, SERVED) if equal and tokens else None,
        data=data,
        unit=unit,
    )


def _combination(law: FittedLaw) -> dict[str, Any] | None:
    """The candidates' frontiers with their weights, the quantile of Student's t, and the parts of
    the standard error of each quantity: share of the spread, noise, growth a decade of C.
    """
    combined = law.combination
    if combined is None:
        return None
    quantities: tuple[Quantity, ...] = ("n_star", "loss_star")
    candidates = [
        {
            "powers": _powers(frontier),
            "weights": {name: candidate.weights.get(name, 0.0) for name in quantities},
        }
        for candidate in combined.candidates
        if (frontier := candidate.frontier(combined.cost)) is not None
    ]
    parts = {
        name: [SPREAD_SHARE[name], combined.noise_of(name), combined.growth.get(name, 0.0)]
        for name in quantities
    }
    quantile = student(law.ci, FREEDOM)
    return {
        "candidates": candidates,
        "parts": parts,
        "quantile": quantile,
        "largest": combined.largest,
        "tested": law.tested_decades,
    }


def _decades(ends: tuple[float, float], below: int, above: int) -> tuple[int, int]:
    """log10 of a range, moved at both ends, within what a count may be."""
    low, high = map(math.log10, ends)
    return max(0, round(low) + below), min(30, round(high) + above)


def _equal_loss(law: FittedLaw) -> dict[str, float] | None:
    """N^-alpha and D^-beta with their coefficients, whose sum is the same at equal loss; None
    for a law that has no such sum.
    """
    from scaling.predict.iso_loss import equal_loss

    try:
        equal = equal_loss(law.law, law.values, 1.0, 1.0)
    except (ScalingError, OverflowError):
        return None  # a frontier of its own, or exponents so unlike that a coefficient is no number
    coefficients = {name: float(getattr(equal, name)) for name in ("a", "alpha", "b", "beta")}
    return coefficients if all(map(math.isfinite, coefficients.values())) else None


def _powers(frontier: Frontier) -> dict[str, float | str]:
    """The powers of one frontier, with all digits."""
    return {name: values[0] for name, values in _columns(frontier, None).items()}


def _columns(frontier: Frontier, digits: int | None = DIGITS) -> dict[str, list[float | str]]:
    """The powers of a frontier, of one (1,) or of its draws (R,), as JSON knows numbers: NaN and
    the infinities as the text that JavaScript's Number() reads.
    """
    values = {name: value for name, value in frontier.columns.items() if value is not None}
    shape = np.broadcast_shapes((1,), *(np.shape(value) for value in values.values()))

    def as_json(item: float) -> float | str:
        if not math.isfinite(item):
            return str(item).replace("inf", "Infinity").replace("nan", "NaN")
        return item if digits is None else float(f"{item:.{digits}g}")

    return {
        name: [as_json(float(item)) for item in np.broadcast_to(value, shape)]
        for name, value in values.items()
    }
