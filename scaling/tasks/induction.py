"""Repeated random segments: only copying helps (Olsson 2022)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scaling.config import InductionTask
from scaling.store.rows import MetricValue
from scaling.tasks.corpus.token_store import Split
from scaling.tasks.generated import Stream, uniform
from scaling.tasks.scores import Scores, mean_value


class Induction(Stream):
    """An opened induction task.

    A segment of random symbols and random length, tiled over the window.
    """

    config: InductionTask
    scored_splits: ClassVar[tuple[Split, ...]] = ("val",)

    def batch(self, split: Split, index: int, size: int) -> np.ndarray:
        """Windows index*size to (index+1)*size - 1 of the split's stream.

        int32 (size, seq_len + 1).
        """
        config = self.config
        draws = uniform(self._words(split, index, size, config.longest + 1))
        lengths = config.shortest + (draws[:, :1] * (config.longest - config.shortest + 1)).astype(
            np.int64
        )
        symbols = (draws[:, 1:] * config.n_symbols).astype(np.int32)
        return np.take_along_axis(symbols, np.arange(config.seq_len + 1) % lengths, axis=1)

    def lengths(self, windows: np.ndarray) -> np.ndarray:
        """The least period of each window between `shortest` and `longest`, (n,)."""
        lengths = np.full(len(windows), self.config.longest)
        for length in range(self.config.longest, self.config.shortest - 1, -1):
            lengths[(windows[:, length:] == windows[:, :-length]).all(axis=1)] = length
        return lengths

    def metrics(self, windows: np.ndarray, scores: Scores) -> list[MetricValue]:
        """`copied_loss`.

        Nats on the symbols that can be copied, from the second of the first repeat on; `fresh_loss`
        on those of the segment itself; `copied_accuracy`.
        """
        ends = self.lengths(windows)[:, None]
        positions = np.arange(1, windows.shape[1])
        copied, fresh = positions > ends, positions < ends
        return [
            mean_value("copied_loss", _mean_where(scores.nll, copied)),
            mean_value("fresh_loss", _mean_where(scores.nll, fresh)),
            mean_value("copied_accuracy", _mean_where(scores.hit, copied)),
        ]


def _mean_where(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.asarray((values * mask).sum(axis=1) / mask.sum(axis=1))
