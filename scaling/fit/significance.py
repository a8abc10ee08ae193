"""Tests from bootstrap draws: two-sided p, its adjustment for many tests, open intervals; and the
tails of F and Student's t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from scaling.fit.document import Interval

Array = np.ndarray
OrderStatistic = Literal["inverted_cdf", "nearest"]  # one of the draws, which may be inf


def f_tail(above: float, below: float, ratio: float) -> float:
    """The chance of an F of `above` and `below` degrees of freedom beyond a ratio."""
    from scipy.special import fdtrc  # 0.15 s to import, and not needed by every command

    return float(fdtrc(above, below, ratio))


def student(ci: float, freedom: float) -> float:
    """The quantile of Student's t for a central share `ci`."""
    from scipy.special import stdtrit

    return -float(stdtrit(max(freedom, 1.0), (1 - ci) / 2))


def two_sided(difference: Array, pairs: int) -> float:
    """The p of no difference from draws (M,) of it: twice the smaller tail, ties half, never below
    what M of `pairs` pairs can tell.
    """
    below = float(np.mean(difference < 0) + 0.5 * np.mean(difference == 0))
    return min(1.0, max(2 * min(below, 1 - below), 2 / (min(pairs, len(difference)) + 1)))


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for testing all of them (Holm 1979): the chance of any false difference
    stays below the level.
    """
    order = np.argsort(p, kind="stable")
    scaled = np.maximum.accumulate(np.asarray(p, float)[order] * np.arange(len(p), 0, -1))
    adjusted: list[float] = np.minimum(scaled, 1.0)[np.argsort(order)].tolist()
    return adjusted


def open_interval(
    value: float, drawn: Array, ci: float, method: OrderStatistic = "inverted_cdf"
) -> Interval:
    """The interval of draws (M,) that may be inf: an end that is not finite is open, None."""
    lo, hi = np.quantile(drawn, [(1 - ci) / 2, (1 + ci) / 2], method=method)
    return Interval(value=float(value), lo=min(float(lo), value), hi=max(float(hi), value))
