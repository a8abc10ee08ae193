"""How sharply a metric changes with N, whether the metric or the model jumps, and how far the seeds
at the threshold fall into two groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import kurtosis, skew

from scaling.studies.study import Interval

Array = np.ndarray

MIN_SIZES = 3
TRANSITION_SHARE = 0.5  # of the range of log-likelihood within one doubling of N
METRIC_EFFECT_RATIO = 1.25  # sharpness of exact match over that of log-likelihood
RESAMPLES = 400
UNIFORM_SARLE = 5 / 9  # Sarle's coefficient of the uniform distribution


@dataclass(frozen=True)
class Trend:
    """A metric over N: `n` and `value` (sizes,), medians over seeds (a mean of learned and
    unlearned runs is no run's value).

    `sharpness` is its largest change within one doubling of N as a share of its range (1 /
    log2(largest / smallest N) if it changes evenly), `halfway` the N at which half of the range is
    passed.
    """

    n: Array
    value: Array
    sharpness: float
    halfway: float

    def share(self, value: Array) -> Array:
        """The position between the smallest size's value (0) and the largest's (1)."""
        return (value - self.value[0]) / (self.value[-1] - self.value[0])


class Decision(NamedTuple):
    """A quantity with the 95 % interval of resampled seeds (nan where a size has one seed), and the
    limit it is tested against.
    """

    value: float
    lo: float
    hi: float
    limit: float

    @property
    def verdict(self) -> bool | None:
        """Whether the value is above the limit; None where the interval holds both sides."""
        return True if self.lo >= self.limit else False if self.hi < self.limit else None

    def __str__(self) -> str:
        if np.isfinite(self.lo):
            return f"{Interval(*self[:3]):.2f}"
        return f"{self.value:.2f} (a size has one seed: no interval)"


class ThresholdSeeds(NamedTuple):
    """Of the sizes with the most seeds, the one whose mean exact match is nearest to one half.

    `sarle` is nan where all seeds agree or are fewer than four; `chance` is the share of uniform
    samples of as many values that have at least as large a coefficient.
    """

    n: float
    values: Array
    sarle: float
    chance: float

    def __str__(self) -> str:
        values = ", ".join(f"{value:.2f}" for value in np.sort(self.values))
        if not np.isfinite(self.sarle):
            return f"{values}: no coefficient"
        return (
            f"{values}: {self.sarle:.2f} (two points 1, uniform {UNIFORM_SARLE:.2f}); "
            f"{self.chance:.0%} of uniform samples of {len(self.values)} have as much"
        )


def trend(final: pd.DataFrame, metric: str) -> Trend | None:
    """How a metric changes with N; None where it was not measured at all sizes or is constant."""
    median = final.groupby("n")[metric].median()
    n, value = median.index.to_numpy(float), median.to_numpy(float)
    if len(n) < MIN_SIZES or not np.isfinite(value).all() or value[0] == value[-1]:
        return None
    x = np.log2(n)
    made = Trend(n, value, sharpness(x, value), np.nan)
    share = made.share(value)
    first = int(np.argmax(share >= 0.5))  # at least 1: a share begins at 0
    halfway = np.interp(0.5, share[first - 1 : first + 1], x[first - 1 : first + 1])
    return Trend(n, value, made.sharpness, float(2.0**halfway))


def sharpness(x: Array, value: Array) -> float:
    """The largest change of `value` (sizes,) between x and x + 1, x = log2 N, interpolated
    linearly, as a share of its range.
    """
    starts = np.unique(np.concatenate([x, x - 1.0]))
    changes = np.abs(np.interp(starts + 1.0, x, value) - np.interp(starts, x, value))
    return float(changes.max() / np.ptp(value))


def decisions(final: pd.DataFrame) -> list[Decision]:
    """Metric effect: sharpness of exact match over that of log-likelihood. Transition: sharpness of
    log-likelihood.
    """
    sizes = {n: of_size[["exact_match", "nll"]].to_numpy() for n, of_size in final.groupby("n")}
    x = np.log2(np.array(list(sizes), float))

    def quantities(medians: Array) -> tuple[float, float]:
        exact, nll = (sharpness(x, value) for value in medians.T)
        return exact / nll, nll

    values = quantities(np.array([np.median(seeds, axis=0) for seeds in sizes.values()]))
    draws = np.full((1, 2), np.nan)
    if min(map(len, sizes.values())) >= 2:
        rng = np.random.default_rng(0)
        medians = np.array(  # (sizes, resamples, 2)
            [
                np.median(seeds[rng.integers(0, len(seeds), (RESAMPLES, len(seeds)))], axis=1)
                for seeds in sizes.values()
            ]
        )
        changing = medians[:, (np.ptp(medians, axis=0) > 0).all(axis=1)]
        draws = np.array([quantities(drawn) for drawn in changing.swapaxes(0, 1)])
    limits = (METRIC_EFFECT_RATIO, TRANSITION_SHARE)
    made = zip(values, draws.T, limits, strict=True)
    return [Decision(*Interval.of_draws(value, drawn), limit) for value, drawn, limit in made]


def threshold_seeds(final: pd.DataFrame) -> ThresholdSeeds:
    """The exact match of each seed at the threshold, and how bimodal it is."""
    by_size = final.groupby("n")["exact_match"].agg(["count", "mean"])
    most_seeds = by_size[by_size["count"] == by_size["count"].max()]
    n = (most_seeds["mean"] - 0.5).abs().idxmin()
    values = final.loc[final["n"] == n, "exact_match"].to_numpy(float)
    coefficient, chance = sarle(values), float("nan")
    if np.isfinite(coefficient):
        samples = np.random.default_rng(0).random((1000, len(values)))
        chance = float(np.mean([sarle(sample) >= coefficient for sample in samples]))
    return ThresholdSeeds(n, values, coefficient, chance)


def sarle(values: Array) -> float:
    """Sarle's bimodality coefficient (g^2 + 1) / k, g the skewness and k the kurtosis (Ellison
    1987; Knapp 2007).

    1 for two points in any proportion, which is the most; 5/9 for the uniform distribution, 1/3 for
    the normal one. The corrections for small samples (Pfister et al. 2013) are left out: they give
    0.29 to five values of which two differ from the other three. nan for fewer than four values or
    equal ones.
    """
    if len(values) < 4 or np.var(values) < 1e-18:
        return float("nan")
    return float((skew(values) ** 2 + 1.0) / kurtosis(values, fisher=False))
