"""What the figures of a report share: axes, how many points are drawn, and the
answer of a fit as curves: by the combination of laws where it has one, else by its law.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from scaling.fit.result import FitResult, SourceInfo
from scaling.predict.law_source import FittedLaw
from scaling.render.figure import Axis
from scaling.units import read_header

POINTS_SHOWN = 2000
FORECAST_FACTOR = 10.0  # times the largest budget: where fits and reports answer

COUNTED = {"with_head": "with head", "nonembedding": "without embeddings", "6nd": "6ND"}


def n_axis(*sources: SourceInfo) -> Axis:
    """Sizes, as these sources count them."""
    return Axis(_label("parameters N", [each.convention.params for each in sources]), True, "count")


def c_axis(*sources: SourceInfo, of: str = "") -> Axis:
    """Budgets, as these sources count them."""
    label = _label(f"training FLOPs C{of}", [each.convention.flops for each in sources])
    return Axis(label, True, "flops")


def loss_axis(*sources: SourceInfo, name: str = "loss") -> Axis:
    """A log axis of losses in the unit that the sources say."""
    return Axis(_label(name, [loss_unit(source) for source in sources]), log=True)


def loss_unit(source: SourceInfo | None) -> str:
    """The unit of a loss, where the source or the name of a column says it."""
    if source is None or source.evaluation:
        return str((source.evaluation or {}).get("unit", "")) if source else ""
    if not isinstance(source, SourceInfo) or "L" not in source.columns:
        return ""
    unit = read_header(source.columns["L"], "L").unit
    return "" if unit is None else f"nats per {unit.per}" if unit.per else "nats"


def _label(name: str, words: Sequence[str | None]) -> str:
    """The name with what the sources say of it in brackets."""
    known = dict.fromkeys(COUNTED.get(word, word) for word in words if word)
    return f"{name} ({' or '.join(known)})" if known else name


def answer_budget(fit: FitResult) -> float:
    """The budget that is answered unasked, as people would type it: three digits."""
    return float(f"{FORECAST_FACTOR * fit.range['flops'][1]:.3g}")


def thinned(count: int, limit: int) -> np.ndarray:
    """At most `limit` indices out of `count`, evenly spread, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def drawn_share_note(drawn: int, count: int) -> str:
    """What a caption says of a picture that shows some of the runs."""
    return "" if drawn >= count else f" {drawn:,} of {count:,} runs are drawn."


def fitted_points(fit: FitResult, *names: str) -> list[np.ndarray] | None:
    """Columns of the fitted points; None where the fit does not keep one of them."""
    columns = [fit.data.get(name) for name in names]
    return [np.asarray(column, float) for column in columns] if all(columns) else None


class AnswerCurve(NamedTuple):
    """A quantity at budgets (k,) and its interval; NaN ends where there is none."""

    value: np.ndarray
    lo: np.ndarray
    hi: np.ndarray


def answer_name(law: FittedLaw) -> str:
    """What the curves of a fit are called."""
    return f"the law {law.law}" if law.combination is None else "the combined law"


@np.errstate(all="ignore")  # draws of what is not identified overflow
def answer_curve(
    law: FittedLaw | None, quantity: Literal["n_star", "loss_star"], flops: np.ndarray
) -> AnswerCurve | None:
    """N*(C) or L*(C) at budgets (k,), as `scaling predict` answers; None where the fit does not
    know it.
    """
    if law is None:
        return None
    if law.combination is not None:
        return AnswerCurve(*law.combination.optima(flops, quantity).ends(law.ci))
    method = quantity.replace("loss_star", "loss")
    value = None if law.optimum is None else getattr(law.optimum, method)(flops)
    if value is None or law.draws is None:
        return value if value is None else AnswerCurve(value, *np.full((2, len(flops)), np.nan))
    levels = [(1 - law.ci) / 2, (1 + law.ci) / 2]
    drawn = getattr(law.frontier, method)(flops[:, None])[:, 1:]
    with warnings.catch_warnings():  # budgets too small for any draw to have an optimum
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(drawn, levels, axis=-1)
    return AnswerCurve(value, np.minimum(low, value), np.maximum(high, value))


def fitted_loss(law: FittedLaw | None, n: np.ndarray, d: np.ndarray) -> np.ndarray | None:
    """The loss (k,) of runs of N parameters on D tokens (k,); None for a law that needs other
    inputs, and for a frontier without a law.
    """
    if law is None:
        return None
    if law.combination is not None:
        return law.combination.losses(n, d).ends(law.ci)[0]
    is_of_both = law.formula is not None and set(law.formula.inputs) <= {"N", "D"}
    if not is_of_both or not np.isfinite(list(law.values.values())).all():
        return None
    return law.outcome({"N": n, "D": d})
