"""Curves of exact match: over N, and against log-likelihood along training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import LAWS
from scaling.points.points import Points

MIN_EXACT_MATCH = 1e-6  # replaces zero, for laws are fitted in logs; residuals are not
N_FREE = 2  # parameters of each curve


class CurveFit(NamedTuple):
    """A curve of exact match over N by least squares: `rss`, `aic` = n ln(rss / n) + 2 k for k free
    parameters; `x`, `y` to draw.
    """

    name: str
    formula: str
    rss: float
    aic: float
    x: np.ndarray
    y: np.ndarray


def fit_curves(final: pd.DataFrame) -> list[CurveFit]:
    """The sigmoid 1 / (1 + (N_0 / N)^k) and the power law K N^a on the exact match of all runs; two
    free parameters each.
    """
    n, measured = final["n"].to_numpy(float), final["exact_match"].to_numpy(float)
    value = np.maximum(measured, MIN_EXACT_MATCH)
    grid = np.geomspace(n.min(), n.max(), 120)
    largest = np.e * n.max()  # the law's input must be positive: ln(e N_max / N) is at least 1
    x, x_grid = np.log(largest / n), np.log(largest / grid)
    where, fixed = "exact match against N", {"lo": 0.0, "span": 1.0}
    sigmoid_points, power_points = Points(loss=value, others={"X": x}), Points(loss=value, c=n)
    sigmoid = estimate(LAWS["sigmoid"], sigmoid_points, "mse", fixed=fixed, where=where)
    power = estimate(LAWS["optimum"], power_points, "mse", where=where)
    made = []
    for name, formula, fit, inputs, grid_inputs in (
        ("sigmoid", "1 / (1 + (N_0 / N)^k)", sigmoid, {"X": x}, {"X": x_grid}),
        ("power law", "K N^a", power, {"C": n}, {"C": grid}),
    ):
        predicted, drawn = (
            np.exp(fit.law.log_predict(fit.theta, at)) for at in (inputs, grid_inputs)
        )
        rss = float(np.sum((predicted - value) ** 2))
        aic = len(value) * float(np.log(max(rss, 1e-12) / len(value))) + 2 * N_FREE
        made.append(CurveFit(name, formula, rss, aic, grid, drawn))
    return made


class LikelihoodCurve(NamedTuple):
    """Exact match as a falling function of nats per digit, over all checkpoints: `x`, `y` (n,) in
    order of x.

    `r2` is the share of the variance of exact match that it explains.
    """

    x: np.ndarray
    y: np.ndarray
    r2: float


def fit_likelihood_curve(points: pd.DataFrame) -> LikelihoodCurve:
    """Isotonic regression of exact match on log-likelihood: it is only assumed to fall."""
    order = np.argsort(points["nll"].to_numpy(), kind="stable")
    x, y = (points[name].to_numpy(float)[order] for name in ("nll", "exact_match"))
    fitted = isotonic_regression(y, increasing=False).x
    variance = float(np.sum((y - y.mean()) ** 2))
    r2 = 1.0 - float(np.sum((y - fitted) ** 2)) / variance if variance else 1.0
    return LikelihoodCurve(x, fitted, r2)
