"""What training asks of data, and what all generated tasks share."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from scaling.store.rows import MetricValue
from scaling.tasks.corpus.token_store import SPLITS, Split

Array = np.ndarray

# Windows of each split of an endless stream: counters and token counts stay exact.
N_WINDOWS = 2**40
_COUNTER_WORDS = 4  # 64-bit numbers that one step of Philox yields


class Scores(NamedTuple):
    """Of W windows the P predicted tokens, arrays (W, P).

    The NLL of the target in nats, whether it is the likeliest token, sum_v p_v^2, and the mean
    sum_v p_v value_v of the values that tokens stand for (0 for none).
    """

    nll: Array
    hit: Array
    square: Array
    mean: Array


def mean_value(metric: str, values: Array, at: float | None = None) -> MetricValue:
    """The mean of independent values (n,) with its standard error."""
    values = np.asarray(values, np.float64)
    stderr = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return MetricValue(metric, float(values.mean()), stderr, at)


class Task(ABC):
    """What training asks of data.

    Token ids are below `vocab_size`; `seq_len` tokens are predicted in a window; `digest` is a
    SHA-256 that identifies the data. `bytes_per_token` is None where tokens are no text. Windows of
    the `scored_splits` are scored token by token for `metrics`; there are none where the loss says
    all. In a task of problems with one right answer each, the first `prompt_tokens` of a window are
    the problem and the rest is its answer.

    `batch` depends on its arguments and the digest alone, so a resume needs only the step, and runs
    of any size, or of another batch size, read the same tokens in the same order.
    """

    vocab_size: int
    seq_len: int
    digest: str
    bytes_per_token: float | None = None
    prompt_tokens: int | None = None
    scored_splits: ClassVar[tuple[Split, ...]] = ()

    @property
    def entropy(self) -> float | None:
        """The lowest possible loss in nats per token; None where it is unknown."""
        return None

    @abstractmethod
    def n_windows(self, split: Split) -> int:
        """Different windows of a split: one epoch of train, all of val."""

    def n_tokens(self, split: Split) -> int:
        """Tokens predicted in these windows."""
        return self.n_windows(split) * self.seq_len

    @abstractmethod
    def batch(self, split: Split, index: int, size: int) -> Array:
        """Windows index*size to (index+1)*size - 1 of the split's order.

        int32 of shape (size, seq_len + 1); val raises IndexError at its end.
        """

    def metrics(self, windows: Array, scores: Scores) -> list[MetricValue]:
        """Task metrics on windows (W, seq_len + 1) with their scores (W, P)."""
        return []


class Generated(Task):
    """A task that `config` describes completely: an endless stream of windows."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.seq_len, self.vocab_size = config.seq_len, config.fixed_vocab_size
        self.digest = hashlib.sha256(config.canonical().encode()).hexdigest()

    def n_windows(self, split: Split) -> int:
        """Windows of the stream, more than any run trains on."""
        return N_WINDOWS

    def uniform(self, split: Split, index: int, size: int, each: int) -> Array:
        """`each` numbers in [0, 1) for every window of a batch, float64 (size, each).

        They come from a counter: any window of the stream without those before it.
        """
        steps = -(-each // _COUNTER_WORDS)
        seed = np.random.SeedSequence((self.config.data_seed, SPLITS.index(split)))
        source = np.random.Philox(key=seed.generate_state(2, np.uint64))
        source.advance(index * size * steps)
        words = source.random_raw(size * steps * _COUNTER_WORDS).reshape(size, -1)[:, :each]
        return (words >> np.uint64(11)) * 2.0**-53
