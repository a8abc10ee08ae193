"""Addition with a verifier.

Problems whose answers are right or wrong, easy and hard ones mixed where that is asked for.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scaling.config import ArithmeticTask
from scaling.store.rows import MetricValue
from scaling.tasks.base import Generated, Scores, mean_value
from scaling.tasks.corpus.token_store import Split

Array = np.ndarray

PLUS, EQUALS = 10, 11
WORDS = 4  # random words a window: the lengths of both operands, and the operands


class Arithmetic(Generated):
    """See `ArithmeticTask` for how a window is written."""

    config: ArithmeticTask
    scored_splits: ClassVar[tuple[Split, ...]] = ("val",)

    def __init__(self, config: ArithmeticTask) -> None:
        super().__init__(config)
        self.prompt_tokens = 2 * config.digits + 2  # up to "="

    def batch(self, split: Split, index: int, size: int) -> Array:
        """See `Task.batch`."""
        digits, draws = self.config.digits, self.uniform(split, index, size, WORDS)
        a, b = (self._operands(split, draws[:, which], draws[:, which + 2]) for which in (0, 1))
        plus, equals = (np.full((size, 1), sign) for sign in (PLUS, EQUALS))
        total = _written(a + b, digits + 1)
        total = total[:, ::-1] if self.config.reverse else total
        parts = [_written(a, digits), plus, _written(b, digits), equals, total]
        return np.concatenate(parts, axis=1).astype(np.int32)

    def _operands(self, split: Split, length_draws: Array, value_draws: Array) -> Array:
        """Whole numbers (n,).

        Even over all of `digits` digits, or of lengths as `length_power` says.
        """
        digits, power = self.config.digits, self.config.length_power
        if power is None:
            return (value_draws * 10**digits).astype(np.int64)
        weights = np.arange(1, digits + 1) ** -(power if split == "train" else 0.0)
        edges = np.cumsum(weights / weights.sum())[:-1]
        lengths = np.searchsorted(edges, length_draws, side="right") + 1
        least = np.where(lengths == 1, 0, 10 ** (lengths - 1))
        return least + (value_draws * (10**lengths - least)).astype(np.int64)

    def metrics(self, windows: Array, scores: Scores) -> list[MetricValue]:
        """Exact match, token accuracy (whole, and `at` each digit of the answer from 1), Brier
        score and log-likelihood of answers.

        The Brier score is sum_v (p_v - [v is right])^2 a digit (Brier 1950, as Schaeffer 2023 uses
        it); digits are predicted with the right ones before them, so an answer matches exactly if
        and only if greedy decoding writes it.
        """
        brier = scores.square - 2.0 * np.exp(-scores.nll) + 1.0
        values = [
            mean_value("exact_match", np.asarray(scores.hit.all(axis=1))),
            mean_value("token_accuracy", scores.hit.mean(axis=1)),
            mean_value("brier", brier.mean(axis=1)),
            mean_value("answer_nll", scores.nll.sum(axis=1)),
        ]
        return values + [
            mean_value("accuracy_at_position", scores.hit[:, position], position + 1.0)
            for position in range(scores.hit.shape[1])
        ]


def _written(numbers: Array, digits: int) -> Array:
    """Decimal digits (n, digits), the highest first."""
    return numbers[:, None] // 10 ** np.arange(digits - 1, -1, -1) % 10
