"""A power law with a pole, y = a (x - pole)^-b, with intervals of refits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from scaling.studies.study import Interval

Array = np.ndarray

N_POLES = 400  # grid of poles between 0 and the smallest x
RESAMPLES = 1000


@dataclass(frozen=True)
class DelayLaw:
    """delay = a (x - pole)^-b through points (n,), by least squares of ln(delay); a, b, pole are
    (value, lo, hi) at 95 %.

    The pole is 0 where it is not fitted, or not significantly above 0: its upper end is kept then.
    `n_censored` counts runs that never reached the test accuracy, about which the law says nothing.
    """

    x: Array
    delay: Array
    a: Interval
    b: Interval
    pole: Interval
    r2: float
    n_censored: int = 0


def fit_delay_law(x: Array, delay: Array, *, with_pole: bool) -> DelayLaw | None:
    """Fit `DelayLaw` to positive points (n,); None unless there are more distinct x than
    parameters.

    For every pole the rest is a straight line in logs, so a grid of poles holds the optimum
    (variable projection). Intervals are of refits to the law with resampled residuals, scaled by
    sqrt(n / (n - parameters)).
    """
    n_free = 3 if with_pole else 2
    if len(np.unique(x)) <= n_free:
        return None
    poles = np.linspace(0.0, 0.999 * float(x.min()), N_POLES) if with_pole else np.zeros(1)
    log_delay = np.log(delay)
    (best,) = _fit_lines(x, log_delay[None], poles)
    expected = best[0] - best[1] * np.log(x - best[2])
    residual = (log_delay - expected) * math.sqrt(len(x) / (len(x) - n_free))
    resampled = np.random.default_rng(0).choice(residual, (RESAMPLES, len(x)))
    refits = _fit_lines(x, expected + resampled - residual.mean(), poles)
    log_a, b, pole = map(Interval.of_draws, best.tolist(), refits.T)
    r2 = 1.0 - float(np.square(log_delay - expected).mean() / log_delay.var())
    law = DelayLaw(x, delay, Interval(*map(math.exp, log_a)), b, pole, r2)
    if not with_pole or pole.lo > 0:
        return law
    # a pole that may be 0 only widens the other intervals
    plain = fit_delay_law(x, delay, with_pole=False)
    return plain and replace(plain, pole=Interval(0.0, 0.0, pole.hi))


def _fit_lines(x: Array, y_RN: Array, poles_G: Array) -> Array:
    """(R, 3) of ln a, b and the pole that bring y (R, n) closest to ln a - b ln(x - pole) in
    squares.
    """
    z_GN = -np.log(x - poles_G[:, None])
    mean_G = z_GN.mean(axis=1)
    z_GN = z_GN - mean_G[:, None]
    squares_G = np.square(z_GN).sum(axis=1)
    slope_RG = y_RN @ z_GN.T / squares_G
    best = np.argmax(np.square(slope_RG) * squares_G, axis=1)
    slope = slope_RG[np.arange(len(best)), best]
    return np.stack([y_RN.mean(axis=1) - slope * mean_G[best], slope, poles_G[best]], axis=1)
