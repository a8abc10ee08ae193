"""Tests from bootstrap draws: two-sided p, its adjustment for many tests, open intervals; and the
tails of F, Student's t and the binomial, for scipy.special takes 0.15 s to import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np

from scaling.fit.document import Interval

Array = np.ndarray
OrderStatistic = Literal["inverted_cdf", "nearest"]  # one of the draws, which may be inf


def incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function I_x(a, b), `rest` = 1 - x, by its continued fraction
    (DLMF 8.17.22).
    """
    if not (x > 0 and rest > 0):
        return float(rest <= 0)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, rest, x)
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    value = math.exp(logs + a * math.log(x) + b * math.log(rest)) / a
    upper, lower, change, m = 1.0, 0.0, 0.0, 0
    while abs(change - 1) > 1e-15 and m < 10_000:  # Lentz's method, two terms at a time
        whole = a + 2 * m
        for term in (
            -(a + m) * (a + b + m) * x / (whole * (whole + 1)),
            (m + 1) * (b - m - 1) * x / ((whole + 1) * (whole + 2)),
        ):
            upper, lower = 1 + term / upper, 1 / (1 + term * lower)
            change = upper * lower
            value /= change
        m += 1
    return value


def f_tail(above: float, below: float, ratio: float) -> float:
    """The chance of an F of `above` and `below` degrees of freedom beyond a ratio."""
    whole = below + above * ratio
    return incomplete_beta(below / 2, above / 2, below / whole, above * ratio / whole)


def student(ci: float, freedom: float) -> float:
    """The quantile of Student's t for a central share `ci`."""
    v, target = max(freedom, 1.0), math.log1p(-ci)
    t, step = NormalDist().inv_cdf((1 + ci) / 2), 1.0
    whole = math.lgamma((v + 1) / 2) - math.lgamma(v / 2) - math.log(v * math.pi) / 2
    while abs(step) > 1e-9:  # Newton's method for the log of the tail, concave in log t
        tail = f_tail(1.0, v, t * t)
        density = math.exp(whole - (v + 1) / 2 * math.log1p(t * t / v))
        step = (math.log(tail) - target) * tail / (2 * density * t)
        t *= math.exp(step)
    return t


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
