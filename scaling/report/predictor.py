"""The predictor on the page: what a browser needs to answer as `scaling predict` does, with the
same intervals.

Every law with a compute-optimal frontier is given as powers of C, so that the page knows no law by
name; templates/predictor.js calculates. The demand of inference needs the pairs of N and D of one
loss, which only laws of two powers have.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.frontier.frontier import Frontier
from scaling.predict.law_source import FittedLaw, load_law

DIGITS = 10  # of a draw, as documents keep them: what is shown has three
ABOVE, SERVED = 6, 12  # decades that the sliders reach beyond the data: budgets, tokens served


@dataclass(frozen=True)
class Predictor:
    """What the page says of the predictor, and the numbers that it calculates with (`data`, ready
    for JSON).

    `command` is the shell command that the budget is appended to; `draws` how many refits the
    intervals rest on, `level` their level in percent; `budget` (log10 of FLOPs) and `tokens`
    (log10) are the ends of the sliders, `tokens` None where no demand can be asked.
    """

    command: str
    draws: int
    level: float
    budget: tuple[int, int]
    tokens: tuple[int, int] | None
    data: Mapping[str, Any]


@np.errstate(
    all="ignore"
)  # draws of what is not identified overflow; the page leaves them out of its intervals
def predictor(path: Path | None, start: float | None) -> Predictor | None:
    """The predictor of the fit at `path`, opened at `start` FLOPs; None for a fit that knows no
    frontier or no budgets.

    Raises ScalingError for a document that cannot be read.
    """
    law = load_law(str(path)) if path is not None else None
    if law is None or law.optimum is None or "flops" not in law.range or start is None:
        return None
    equal = _equal_loss(law)
    drawn = (
        None
        if law.optimum_draws is None
        else _columns(law.optimum_draws, linked=law.law != "frontier")
    )
    data = {
        "frontier": {name: _number(value) for name, value in _held(law.optimum).items()},
        "draws": drawn,
        "cost": asdict(law.cost),
        "ci": law.ci,
        "range": dict(law.range),
        "sameLoss": equal,
        "warnings": [warning.message for warning in law.warnings],
        "command": shlex.join(["scaling", "predict", str(path), "--flops"]),
        "start": start,
    }
    low, high = law.range["flops"]
    tokens = law.range.get("tokens")
    return Predictor(
        str(data["command"]),
        len(drawn["a"]) if drawn else 0,
        100 * law.ci,
        (_decade(low, -1), _decade(high, ABOVE)),
        (_decade(tokens[0], 0), _decade(tokens[1], SERVED)) if equal and tokens else None,
        data,
    )


def _decade(value: float, beyond: int) -> int:
    """The decade of a count, moved by so many, within what a count may be."""
    return min(30, max(0, round(math.log10(value)) + beyond))


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


def _held(frontier: Frontier) -> dict[str, Any]:
    return {
        part.name: getattr(frontier, part.name)
        for part in fields(frontier)
        if getattr(frontier, part.name) is not None
    }


def _columns(frontier: Frontier, linked: bool) -> dict[str, list[float | str]]:
    """The draws (R,) of a frontier; where D* follows from N* and the cost (`linked`) its columns
    are left out.
    """
    values = {
        name: value
        for name, value in _held(frontier).items()
        if not (linked and name in ("b", "log_d"))
    }
    shape = np.broadcast_shapes(*(np.shape(value) for value in values.values()))
    return {
        name: [_number(float(f"{item:.{DIGITS}g}")) for item in np.broadcast_to(value, shape)]
        for name, value in values.items()
    }


def _number(value: Any) -> float | str:
    """A number as JSON knows it; NaN and the infinities as the text that JavaScript's Number()
    reads.
    """
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
