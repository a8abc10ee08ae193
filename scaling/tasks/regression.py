"""In-context linear regression.

Each window is a new linear function with examples of it (Garg 2022).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scaling.config import RegressionTask
from scaling.store.rows import MetricValue
from scaling.tasks.base import Generated, Scores, mean_value
from scaling.tasks.corpus.token_store import Split

Array = np.ndarray

REACH = 3.0  # levels of y lie evenly in [-REACH, REACH]; w.x has variance 1


class Regression(Generated):
    """See `RegressionTask` for how a window is written.

    `points` are the x by token, (2^n_features, n_features) of -1 and 1; `levels` the values that
    the tokens of y stand for, ascending; `level_values` the value of y of each token (V,), 0 for
    points.
    """

    config: RegressionTask
    scored_splits: ClassVar[tuple[Split, ...]] = ("val",)

    def __init__(self, config: RegressionTask) -> None:
        super().__init__(config)
        n = config.n_features
        self.points = 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1.0
        self.levels = np.linspace(-REACH, REACH, config.n_levels)
        self.level_values = np.concatenate([np.zeros(len(self.points)), self.levels])

    def batch(self, split: Split, index: int, size: int) -> Array:
        """See `Task.batch`."""
        n, m = self.config.n_features, self.config.examples
        draws = self.uniform(split, index, size, n + 2 * m)
        w = _normal(draws[:, :n]) * n**-0.5
        tokens = (draws[:, n : n + m] * len(self.points)).astype(np.int64)
        noise = self.config.noise * _normal(draws[:, n + m :])
        y = np.einsum("wmn,wn->wm", self.points[tokens], w) + noise
        step = self.levels[1] - self.levels[0]
        level = np.clip(np.round((y + REACH) / step), 0, len(self.levels) - 1).astype(np.int64)
        pairs = np.stack([tokens, level + len(self.points)], axis=2)
        return pairs.reshape(size, -1).astype(np.int32)

    def examples(self, windows: Array) -> tuple[Array, Array]:
        """Points (n, examples, n_features) and values of y (n, examples) of windows."""
        return self.points[windows[:, 0::2]], self.level_values[windows[:, 1::2]]

    def metrics(self, windows: Array, scores: Scores) -> list[MetricValue]:
        """`squared_error` of the mean of the predicted y, `at` the number of earlier examples."""
        _, y = self.examples(windows)
        error = np.square(scores.mean.astype(np.float64) - y)
        return [
            mean_value("squared_error", error[:, seen], float(seen))
            for seen in range(error.shape[1])
        ]


def _normal(draws: Array) -> Array:
    """Standard normal numbers from numbers in [0, 1)."""
    from scipy.special import ndtri

    return np.asarray(ndtri(np.clip(draws, 2.0**-54, 1 - 2.0**-53)))
