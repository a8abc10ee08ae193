"""In-context linear regression.

Each window is a new linear function with examples of it (Garg 2022).
"""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np

from scaling.config import RegressionTask
from scaling.store.rows import MetricValue
from scaling.tasks.corpus.token_store import Split
from scaling.tasks.generated import Stream, uniform
from scaling.tasks.scores import Scores, mean_value

REACH = 3.0  # levels of y lie evenly in [-REACH, REACH]; w.x has variance 1


class Regression(Stream):
    """An opened regression task; see `RegressionTask` for how a window is written."""

    config: RegressionTask
    scored_splits: ClassVar[tuple[Split, ...]] = ("val",)

    @functools.cached_property
    def points(self) -> np.ndarray:
        """The points x by token, (2^n_features, n_features) of -1 and 1."""
        n = self.config.n_features
        return 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1.0

    @functools.cached_property
    def levels(self) -> np.ndarray:
        """The values that the tokens of y stand for, ascending."""
        return np.linspace(-REACH, REACH, self.config.n_levels)

    @functools.cached_property
    def level_values(self) -> np.ndarray:
        """The value of y that each token stands for (V,); 0 for points."""
        return np.concatenate([np.zeros(len(self.points)), self.levels])

    def batch(self, split: Split, index: int, size: int) -> np.ndarray:
        """Windows index*size to (index+1)*size - 1 of the stream: int32 (size, 2 examples)."""
        n, m = self.config.n_features, self.config.examples
        draws = uniform(self._words(split, index, size, n + 2 * m))
        w = _normal(draws[:, :n]) * n**-0.5
        tokens = (draws[:, n : n + m] * len(self.points)).astype(np.int64)
        y = np.einsum("wmn,wn->wm", self.points[tokens], w) + self.config.noise * _normal(
            draws[:, n + m :]
        )
        step = self.levels[1] - self.levels[0]
        y_tokens = np.clip(np.round((y + REACH) / step), 0, len(self.levels) - 1).astype(
            np.int64
        ) + len(self.points)
        return np.stack([tokens, y_tokens], axis=2).reshape(size, -1).astype(np.int32)

    def examples(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, examples, n_features) and values of y (n, examples) of windows."""
        return self.points[windows[:, 0::2]], self.level_values[windows[:, 1::2]]

    def metrics(self, windows: np.ndarray, scores: Scores) -> list[MetricValue]:
        """`squared_error` of the mean of the predicted y, `at` the number of earlier examples."""
        _, y = self.examples(windows)
        error = np.square(scores.mean.astype(np.float64) - y)
        return [
            mean_value("squared_error", error[:, seen], float(seen))
            for seen in range(error.shape[1])
        ]


def _normal(draws: np.ndarray) -> np.ndarray:
    """Standard normal numbers from numbers in [0, 1)."""
    from scipy.special import ndtri

    return np.asarray(ndtri(np.clip(draws, 2.0**-54, 1 - 2.0**-53)))
