"""Training against sampling: the cheapest way to a given coverage for a number of queries.

C = training FLOPs + Q (FLOPs of reading the problem + k x FLOPs of writing an answer): a small or
briefly trained model needs more samples k for the same coverage. The joint optimum of N, D and k is
the least C among models whose coverage is known (Brown 2024, section 2.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling import accounting
from scaling.config import RunConfig
from scaling.errors import ScalingError
from scaling.tasks.answer_metrics import exact_pass_at_k

MAX_SAMPLES = 10_000
LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclass(frozen=True)
class TrainedModelWithSamples:
    """A model that reaches the target with k samples per query; FLOPs of training, reading and
    writing.
    """

    n_params: int
    tokens: int
    k: int
    train_flops: float
    prompt_flops: float
    answer_flops: float

    @property
    def query_flops(self) -> float:
        """Of one query: the problem is read once, k answers are written."""
        return self.prompt_flops + self.k * self.answer_flops

    def total_flops(self, queries: float) -> float:
        """Training and all queries."""
        return self.train_flops + queries * self.query_flops


def samples_needed(nll: np.ndarray, target: float) -> int | None:
    """The least k with mean 1 - (1 - exp(-nll))^k >= target; None where MAX_SAMPLES do not reach
    it.
    """

    def reaches(k: int) -> bool:
        return float(exact_pass_at_k(nll, np.array([k])).mean()) >= target

    low, high = 0, MAX_SAMPLES
    if not reaches(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def common_target(nlls: Sequence[np.ndarray]) -> float | None:
    """The highest multiple of 0.05 that two thirds of the models (at least two) reach with
    MAX_SAMPLES; None without one.
    """
    n_needed = max(2, math.ceil(2 * len(nlls) / 3))
    coverage = [float(exact_pass_at_k(nll, np.array([MAX_SAMPLES])).mean()) for nll in nlls]
    shared = [level for level in LEVELS if sum(c >= level for c in coverage) >= n_needed]
    return max(shared, default=None)


def answer_costs(run: RunConfig) -> tuple[float, float]:
    """Forward FLOPs of reading a problem, and of writing an answer after it (exact convention, keys
    and values cached).

    The first token of an answer comes with the last of the problem; its last token is not read.
    """
    positions = run.task.target_positions
    if positions is None:
        raise ScalingError("the task has no answers", remedy='use task.kind = "arithmetic"')

    def forward_flops(tokens: int) -> float:
        return accounting.train_flops(run.model, tokens, tokens, "exact") / 3.0

    prompt = forward_flops(positions[0] + 1)
    return prompt, forward_flops(run.task.seq_len) - prompt


def cheapest(
    candidates: Sequence[TrainedModelWithSamples], queries: float
) -> TrainedModelWithSamples:
    """The joint optimum of N, D and k for a number of queries; at least one candidate."""
    return min(candidates, key=lambda m: (m.total_flops(queries), m.n_params, m.tokens))
