"""The answer of a fit as curves: by the combination of laws where it has one, else by its law."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from scaling.predict.law_source import FittedLaw


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
    law: FittedLaw, quantity: Literal["n_star", "loss_star"], flops: np.ndarray
) -> AnswerCurve | None:
    """N*(C) or L*(C) at budgets (k,), as `scaling predict` answers; None where the fit does not
    know it.
    """
    if law.combination is not None:
        return AnswerCurve(*law.combination.optima(flops, quantity, law.ci))
    method = {"n_star": "n_star", "loss_star": "loss"}[quantity]
    value = None if law.optimum is None else getattr(law.optimum, method)(flops)
    if value is None:
        return None
    drawn = None if law.optimum_draws is None else law.optimum_draws
    if drawn is None:
        return AnswerCurve(value, *np.full((2, len(flops)), np.nan))
    levels = [(1 - law.ci) / 2, (1 + law.ci) / 2]
    low, high = np.nanquantile(getattr(drawn, method)(flops[:, None]), levels, axis=-1)
    return AnswerCurve(value, np.minimum(low, value), np.maximum(high, value))


def fitted_loss(law: FittedLaw | None, n: np.ndarray, d: np.ndarray) -> np.ndarray | None:
    """The loss (k,) of runs of N parameters on D tokens (k,); None for a law that needs other
    inputs, and for a frontier without a law.
    """
    from scaling.fit.laws.laws import LAWS

    if law is None:
        return None
    if law.combination is not None:
        return law.combination.losses(n, d, law.ci)[0]
    formula = LAWS.get(law.law)
    if formula is None or not set(formula.inputs) <= {"N", "D"}:
        return None
    if not np.isfinite(list(law.values.values())).all():
        return None
    theta = formula.theta({name: np.asarray(value) for name, value in law.values.items()})
    return formula.from_log(formula.log_predict(theta, {"N": n, "D": d}))
