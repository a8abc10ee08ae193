"""Variants compared seed by seed: Student's intervals of differences, significance after Holm."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from pandas import DataFrame
from scipy import stats

from scaling.fit.significance import holm
from scaling.studies.study import CI, Interval


class Difference(NamedTuple):
    """The mean of `first` minus `second`, nats, over the seeds that both have, with Student's
    interval and two-sided p, adjusted for all pairs (Holm 1979); nan from fewer than two seeds.
    """

    first: str
    second: str
    seeds: int
    interval: Interval
    p: float

    @property
    def is_significant(self) -> bool:
        """At 5 %."""
        return self.p <= 1 - CI

    def __str__(self) -> str:
        if not self.seeds:
            return f"{self.interval.value:+.4f}, no seed in common"
        if np.isnan(self.p):
            return f"{self.interval.value:+.4f}, seeds: {self.seeds}, no interval"
        verdict = "significant" if self.is_significant else "not significant"
        return f"{self.interval:+.4f}, {self.seeds} seeds: {verdict}"


def paired_differences(losses: DataFrame, last: str) -> list[Difference]:
    """Of each pair of variants, the columns of `losses` (a row for each seed, nan where one is
    missing); `last` is the second of its pairs.
    """
    names = sorted(map(str, losses), key=lambda name: name == last)
    pairs = [_difference(losses, *pair) for pair in itertools.combinations(names, 2)]
    adjusted = holm([1.0 if np.isnan(pair.p) else pair.p for pair in pairs])
    return [
        pair if np.isnan(pair.p) else pair._replace(p=p)
        for pair, p in zip(pairs, adjusted, strict=True)
    ]


def _difference(losses: DataFrame, first: str, second: str) -> Difference:
    by_seed = (losses[first] - losses[second]).dropna()
    mean = float(by_seed.mean())
    if by_seed.empty:
        mean = float(losses[first].mean() - losses[second].mean())
    if by_seed.nunique() < 2:  # one seed, or no spread
        return Difference(first, second, len(by_seed), Interval(mean, np.nan, np.nan), np.nan)
    test = stats.ttest_1samp(by_seed, 0.0)
    interval = Interval(mean, *map(float, test.confidence_interval(CI)))
    return Difference(first, second, len(by_seed), interval, float(test.pvalue))
