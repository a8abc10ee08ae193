"""The optima of several sizes as one rule: value = coef x N^power, by weighted least squares in
logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Power:
    """value = coef x N^power, with the standard error of the power and the sizes used."""

    coef: float
    power: float
    power_se: float
    n_range: tuple[float, float]
    sizes: int

    def at(self, n: float) -> float:
        """The rule's value at N."""
        return self.coef * n**self.power


def power_rule(n: Sequence[float], log_value: Sequence[float], se: Sequence[float]) -> Power:
    """The rule through two or more optima with standard errors of their logs.

    From three sizes on, scatter beyond the standard errors widens that of the power (Birge's
    ratio); it never narrows it.
    """
    x, y, error = np.log(np.asarray(n, float)), np.asarray(log_value, float), np.asarray(se, float)
    weight = 1 / np.maximum(error, 1e-6) ** 2
    centre = float(np.sum(weight * x) / np.sum(weight))
    spread = float(np.sum(weight * (x - centre) ** 2))
    slope = float(np.sum(weight * (x - centre) * y) / spread)
    level = float(np.sum(weight * y) / np.sum(weight))
    left = y - level - slope * (x - centre)
    ratio = math.sqrt(float(np.sum(weight * left**2)) / (len(x) - 2)) if len(x) > 2 else 1.0
    coef = math.exp(level - slope * centre)
    return Power(
        coef, slope, max(1.0, ratio) / math.sqrt(spread), (float(min(n)), float(max(n))), len(x)
    )


def weighted_mean(values: Sequence[float], se: Sequence[float]) -> tuple[float, float]:
    """The mean of values by their standard errors, and its own; scatter beyond them widens it."""
    value, weight = np.asarray(values, float), 1 / np.maximum(np.asarray(se, float), 1e-12) ** 2
    mean = float(np.sum(weight * value) / np.sum(weight))
    ratio = (
        math.sqrt(float(np.sum(weight * (value - mean) ** 2)) / (len(value) - 1))
        if len(value) > 1
        else 1.0
    )
    return mean, max(1.0, ratio) / math.sqrt(float(np.sum(weight)))
