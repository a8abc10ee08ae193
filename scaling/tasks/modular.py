"""Modular arithmetic.

All equations a o b = c mod p, a share to learn from and the rest to be understood (Power 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from scaling.config import ModularTask
from scaling.errors import ScalingError
from scaling.store.rows import MetricValue
from scaling.tasks.base import Generated, Scores, mean_value
from scaling.tasks.corpus.token_store import Split

Array = np.ndarray

OPERATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "quadratic": lambda a, b: a * a + a * b + b * b,
}


class Modular(Generated):
    """Windows a, b, "=", c. Training reads its equations in another order in every epoch.

    `windows` are all of each split, int32 (n, 4), in a random order. Raises ScalingError where a
    split would be empty.
    """

    config: ModularTask
    entropy = 0.0  # every equation has one answer
    scored_splits: ClassVar[tuple[Split, ...]] = ("train", "val")

    def __init__(self, config: ModularTask) -> None:
        super().__init__(config)
        p = config.p
        n_train = round(config.train_fraction * p * p)
        if not 0 < n_train < p * p:
            raise ScalingError(
                f"train_fraction = {config.train_fraction} of {p**2} equations "
                "leaves a split empty",
                where="task",
                remedy="choose a share nearer to a half, or a larger p",
            )
        a, b = (part.ravel() for part in np.mgrid[0:p, 0:p])
        c = OPERATIONS[config.operation](a, b) % p
        table = np.stack([a, b, np.full(p * p, p), c], axis=1).astype(np.int32)
        table = table[np.random.default_rng(config.data_seed).permutation(p * p)]
        self.windows: dict[Split, Array] = {"train": table[:n_train], "val": table[n_train:]}

    def n_windows(self, split: Split) -> int:
        """Equations of a split."""
        return len(self.windows[split])

    def batch(self, split: Split, index: int, size: int) -> Array:
        """See `Task.batch`."""
        windows, first = self.windows[split], index * size
        n = len(windows)
        if split == "val":
            if first + size > n:
                raise IndexError(f"val windows {first} to {first + size - 1} of {n}")
            return windows[first : first + size]
        epochs = range(first // n, (first + size - 1) // n + 1)
        seeds = [(self.config.data_seed, epoch) for epoch in epochs]
        order = np.concatenate([np.random.default_rng(seed).permutation(n) for seed in seeds])
        return windows[order[first - epochs[0] * n :][:size]]

    def metrics(self, windows: Array, scores: Scores) -> list[MetricValue]:
        """`accuracy`: the share of equations whose likeliest result is the right one."""
        return [mean_value("accuracy", scores.hit[:, 0])]
