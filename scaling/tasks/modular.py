"""Modular arithmetic.

All equations a o b = c mod p, a share to learn from and the rest to be understood (Power 2022).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scaling.config import ModularTask
from scaling.errors import ScalingError
from scaling.store.rows import MetricValue
from scaling.tasks.corpus.token_store import Split
from scaling.tasks.scores import Scores, mean_value

OPERATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "quadratic": lambda a, b: a * a + a * b + b * b,
}


@dataclass(frozen=True)
class Modular:
    """An opened modular task.

    Windows a, b, "=", c. Training reads its equations in another order in every epoch.
    """

    config: ModularTask
    bytes_per_token: None = None
    entropy: float = 0.0  # every equation has one answer
    scored_splits: ClassVar[tuple[Split, ...]] = ("train", "val")

    @property
    def seq_len(self) -> int:
        """a, b and the sign."""
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        """The residues and the sign."""
        return self.config.fixed_vocab_size

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the equations and their split."""
        return hashlib.sha256(self.config.canonical().encode()).hexdigest()

    @functools.cached_property
    def windows(self) -> dict[Split, np.ndarray]:
        """All windows of each split, int32 (n, 4), in a random order."""
        p = self.config.p
        a, b = (part.ravel() for part in np.mgrid[0:p, 0:p])
        table = np.stack(
            [a, b, np.full(p * p, p), OPERATIONS[self.config.operation](a, b) % p], axis=1
        ).astype(np.int32)
        table = table[np.random.default_rng(self.config.data_seed).permutation(p * p)]
        n_train = round(self.config.train_fraction * p * p)
        return {"train": table[:n_train], "val": table[n_train:]}

    def n_windows(self, split: Split) -> int:
        """Equations of a split."""
        return len(self.windows[split])

    def n_tokens(self, split: Split) -> int:
        """Tokens of these, the result not counted."""
        return self.n_windows(split) * self.seq_len

    def batch(self, split: Split, index: int, size: int) -> np.ndarray:
        """Windows index*size to (index+1)*size - 1 of the split's order.

        int32 (size, 4). Raises IndexError past the end of val.
        """
        windows, first = self.windows[split], index * size
        n = len(windows)
        if split == "val":
            if first + size > n:
                raise IndexError(f"val windows {first} to {first + size - 1} of {n}")
            return windows[first : first + size]
        epochs = range(first // n, (first + size - 1) // n + 1)
        order = np.concatenate([self._order(epoch, n) for epoch in epochs])
        return windows[order[first - epochs[0] * n :][:size]]

    def _order(self, epoch: int, n: int) -> np.ndarray:
        return np.random.default_rng((self.config.data_seed, epoch)).permutation(n)

    def metrics(self, windows: np.ndarray, scores: Scores) -> list[MetricValue]:
        """`accuracy`: the share of equations whose likeliest result is the right one."""
        return [mean_value("accuracy", scores.hit[:, 0])]


def open_modular(config: ModularTask) -> Modular:
    """Open a modular task. Raises ScalingError where a split would be empty."""
    task = Modular(config)
    if not all(task.n_windows(split) for split in ("train", "val")):
        raise ScalingError(
            f"train_fraction = {config.train_fraction} of {config.p**2} equations "
            "leaves a split empty",
            where="task",
            remedy="choose a share nearer to a half, or a larger p",
        )
    return task
