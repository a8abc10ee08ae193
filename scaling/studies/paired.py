"""Variants compared seed by seed: Student's intervals of differences, significance after Holm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from scaling.fit.significance import holm
from scaling.render.table import Estimate, Table
from scaling.studies.study import CI, record_table

ERRORS = ("standard error", "unpaired", "p")


@dataclass(frozen=True)
class Difference:
    """Loss of variant `worse` minus that of `better`, nats, over the `count` seeds that both have.

    `stderr`, `lo`, `hi` (95 %) and `p` (two-sided) are Student's, of the differences seed by seed;
    `unpaired` is the standard error that two independent samples would have. `is_significant` at 5
    % after Holm's correction for all pairs (Holm 1979).
    """

    better: str
    worse: str
    count: int
    mean: float
    stderr: float | None = None
    lo: float | None = None
    hi: float | None = None
    p: float | None = None
    unpaired: float | None = None
    is_significant: bool = False

    def __str__(self) -> str:
        interval = "" if self.lo is None else f" [{self.lo:.3f}, {self.hi:.3f}]"
        return f"{self.mean:.3f} nats{interval}"

    def signed(self, other: str) -> Estimate:
        """(mean, lo, hi) of the loss of `other`, one of the two, minus that of the second one."""
        if other == self.worse:
            return self.mean, self.lo, self.hi
        lo, hi = (None if end is None else -end for end in (self.hi, self.lo))
        return -self.mean, lo, hi


def paired_differences(losses: Mapping[str, pd.Series]) -> tuple[Difference, ...]:
    """The difference of each pair of variants, from their losses by seed, the better one first."""
    pairs = itertools.combinations(losses, 2)
    return mark_significant([_difference(losses, *names) for names in pairs])


def _difference(losses: Mapping[str, pd.Series], better: str, worse: str) -> Difference:
    pair = pd.concat([losses[better], losses[worse]], axis=1, join="inner").to_numpy()
    (low, high), count = pair.T, len(pair)
    mean = (high - low).mean() if count else losses[worse].mean() - losses[better].mean()
    made = Difference(better, worse, count, float(mean))
    if count < 2:
        return made
    stderr = float(stats.sem(high - low))
    p, lo, hi = float(mean == 0.0), made.mean, made.mean  # where all seeds say the same
    if stderr:
        test = stats.ttest_rel(high, low)
        p, (lo, hi) = float(test.pvalue), map(float, test.confidence_interval(CI))
    unpaired = math.sqrt(pair.var(axis=0, ddof=1).sum() / count)
    return replace(made, stderr=stderr, lo=lo, hi=hi, p=p, unpaired=unpaired)


def mark_significant(pairs: Sequence[Difference]) -> tuple[Difference, ...]:
    """The pairs with `is_significant` set: p, adjusted for all pairs (Holm), is at most 5 %."""
    adjusted = holm([1.0 if pair.p is None else pair.p for pair in pairs])
    return tuple(
        replace(pair, is_significant=pair.p is not None and p <= 1 - CI)
        for pair, p in zip(pairs, adjusted, strict=True)
    )


def pairing_gain(differences: Sequence[Difference]) -> float | None:
    """Standard error of a difference seed by seed over that of independent samples: the median over
    pairs.
    """
    pairs = [(pair.stderr, pair.unpaired) for pair in differences]
    ratios = [stderr / other for stderr, other in pairs if stderr is not None and other]
    return float(np.median(ratios)) if ratios else None


def pairs_table(name: str, differences: Sequence[Difference]) -> Table | None:
    """Every pair of variants: the difference, its errors, its p."""
    gain = pairing_gain(differences)
    caption = (
        "By seed: Student's intervals of 95 %. Significant at 5 % after Holm's correction for all "
        "pairs (Holm 1979). Unpaired is the standard error that independent seeds would have"
    )
    if gain is not None:
        caption += f": pairing by seed changes it by a factor of {gain:.2f} (median over pairs)"
    records = [
        {
            "lower loss": pair.better,
            "higher loss": pair.worse,
            "difference": pair.signed(pair.worse),
            "standard error": pair.stderr,
            "unpaired": pair.unpaired,
            "p": pair.p,
            "significant": "yes" if pair.is_significant else "no",
        }
        for pair in differences
    ]
    return record_table(f"{name}-pairs", "Pairs", records, f"{caption}.", short=ERRORS)
