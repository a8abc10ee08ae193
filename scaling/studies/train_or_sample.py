"""Training against sampling: the cheapest way to a given coverage when a number of queries is to be answered.

C = training FLOPs + Q (FLOPs of reading the problem + k x FLOPs of writing an answer): a small or briefly trained model needs more samples k for the same
coverage. The joint optimum of N, D and k is the least C among models whose coverage is known (the trade of Brown 2024, section 2.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scaling import accounting
from scaling.config import ModelConfig, RunConfig
from scaling.errors import ScalingError
from scaling.tasks.answer_metrics import exact_pass_at_k

MOST_SAMPLES = 10_000
LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))


class Model(Protocol):
    """What the trade needs of a trained model; `nll` (P,) are the NLLs of right answers in nats."""

    @property
    def run(self) -> RunConfig:
        """Its configuration."""

    @property
    def n_params(self) -> int:
        """N, total."""

    @property
    def tokens(self) -> int:
        """D."""

    @property
    def flops(self) -> float:
        """Training FLOPs."""

    @property
    def nll(self) -> np.ndarray:
        """Nats, (P,)."""


@dataclass(frozen=True)
class TrainedModelWithSamples:
    """A model of N parameters trained on D tokens that reaches the target with k samples a query; FLOPs of training, reading and writing."""

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

    def total(self, queries: float) -> float:
        """Training and all queries."""
        return self.train_flops + queries * self.query_flops


@dataclass(frozen=True)
class Choice:
    """The cheapest solver for a number of queries."""

    queries: float
    solver: TrainedModelWithSamples

    @property
    def flops(self) -> float:
        """Training and all queries."""
        return self.solver.total(self.queries)


def samples_needed(nll: np.ndarray, target: float) -> int | None:
    """The least k with mean 1 - (1 - exp(-nll))^k >= target; None where MOST_SAMPLES do not reach it."""

    def reached(k: int) -> bool:
        return float(exact_pass_at_k(nll, np.array([k])).mean()) >= target

    low, high = 0, MOST_SAMPLES
    if not reached(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def common_target(nlls: Sequence[np.ndarray]) -> float | None:
    """The highest multiple of .05 that two thirds of the models (and at least two) reach with MOST_SAMPLES; None where there is none."""
    needed = max(2, math.ceil(2 * len(nlls) / 3))
    reached = [float(exact_pass_at_k(nll, np.array([MOST_SAMPLES])).mean()) for nll in nlls]
    shared = [level for level in LEVELS if sum(most >= level for most in reached) >= needed]
    return max(shared, default=None)


def solvers(models: Sequence[Model], target: float) -> list[TrainedModelWithSamples]:
    """The models that reach the target, each with the samples that it needs."""
    found = []
    for model in models:
        k = samples_needed(model.nll, target)
        if k is not None:
            found.append(
                TrainedModelWithSamples(
                    model.n_params, model.tokens, k, model.flops, *answer_costs(model.run)
                )
            )
    return found


def answer_costs(run: RunConfig) -> tuple[float, float]:
    """Forward FLOPs of reading a problem, and of writing an answer after it (exact convention, keys and values cached).

    The first token of an answer comes with the last of the problem; its last token is not read.
    """
    places = run.task.target_positions
    if places is None:
        raise ScalingError("the task has no answers", remedy='use task.kind = "arithmetic"')
    asked = places[0] + 1
    prompt = _forward(run.model, asked)
    return prompt, _forward(run.model, run.task.seq_len) - prompt


def _forward(model: ModelConfig, tokens: int) -> float:
    return accounting.train_flops(model, tokens, tokens, "exact") / 3.0


def best(ways: Sequence[TrainedModelWithSamples], queries: float) -> Choice:
    """The joint optimum of N, D and k for a number of queries. Raises ScalingError where no way is known."""
    if not ways:
        raise ScalingError("no model reaches the coverage", remedy="ask for less, or train more")
    return Choice(
        queries,
        min(ways, key=lambda solver: (solver.total(queries), solver.n_params, solver.tokens)),
    )
