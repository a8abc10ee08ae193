"""Repeated random segments: only copying helps (Olsson 2022)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scaling.config import InductionTask
from scaling.store.rows import MetricValue
from scaling.tasks.base import Generated, Scores, mean_value
from scaling.tasks.corpus.token_store import Split

Array = np.ndarray


class Induction(Generated):
    """A segment of random symbols and random length, tiled over the window."""

    config: InductionTask
    scored_splits: ClassVar[tuple[Split, ...]] = ("val",)

    def batch(self, split: Split, index: int, size: int) -> Array:
        """See `Task.batch`."""
        shortest, longest = self.config.shortest, self.config.longest
        draws = self.uniform(split, index, size, longest + 1)
        lengths = shortest + (draws[:, :1] * (longest - shortest + 1)).astype(np.int64)
        symbols = (draws[:, 1:] * self.config.n_symbols).astype(np.int32)
        return np.take_along_axis(symbols, np.arange(self.seq_len + 1) % lengths, axis=1)

    def lengths(self, windows: Array) -> Array:
        """The least period of each window between `shortest` and `longest`, (n,)."""
        lengths = np.full(len(windows), self.config.longest)
        for length in range(self.config.longest, self.config.shortest - 1, -1):
            lengths[(windows[:, length:] == windows[:, :-length]).all(axis=1)] = length
        return lengths

    def metrics(self, windows: Array, scores: Scores) -> list[MetricValue]:
        """`copied_loss`.

        Nats on the symbols that can be copied, from the second of the first repeat on; `fresh_loss`
        on those of the segment itself; `copied_accuracy`.
        """
        ends = self.lengths(windows)[:, None]
        positions = np.arange(1, windows.shape[1])
        copied, fresh = positions > ends, positions < ends
        parts = {
            "copied_loss": (scores.nll, copied),
            "fresh_loss": (scores.nll, fresh),
            "copied_accuracy": (scores.hit, copied),
        }
        return [
            mean_value(name, (values * mask).sum(axis=1) / mask.sum(axis=1))
            for name, (values, mask) in parts.items()
        ]
