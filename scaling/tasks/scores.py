"""From what a model says of single tokens to the metrics of a task."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import numpy as np

from scaling.store.rows import MetricValue
from scaling.tasks.corpus.token_store import Split


class Scores(NamedTuple):
    """Of W windows the P predicted tokens, arrays (W, P).

    The NLL of the target in nats, whether it is the likeliest token, sum_v p_v^2, and the mean
    sum_v p_v value_v of the values that tokens stand for (0 for none).
    """

    nll: np.ndarray
    hit: np.ndarray
    square: np.ndarray
    mean: np.ndarray


class LossOnly:
    """A task of which the loss says all."""

    scored_splits: ClassVar[tuple[Split, ...]] = ()

    def metrics(self, windows: np.ndarray, scores: Scores) -> list[MetricValue]:
        """None."""
        return []


def mean_value(metric: str, values: np.ndarray, at: float | None = None) -> MetricValue:
    """The mean of independent values (n,) with its standard error."""
    values = np.asarray(values, np.float64)
    stderr = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return MetricValue(metric, float(values.mean()), stderr, at)
