"""Counter-based random numbers: any window of an endless stream, without those before it."""

from __future__ import annotations

import hashlib

import numpy as np

from scaling.config import Frozen
from scaling.tasks.corpus.token_store import SPLITS, Split

N_WINDOWS = (
    2**40
)  # of each split: the stream ends nowhere, but counters and token counts stay exact
_COUNTER_WORDS = 4  # 64-bit numbers that one step of Philox yields


def words(data_seed: int, split: Split, first: int, size: int, each: int) -> np.ndarray:
    """`each` random 64-bit words for windows `first` .. `first + size` of a split's stream.

    uint64 of shape (size, each).
    """
    steps = -(-each // _COUNTER_WORDS)
    source = np.random.Philox(
        key=np.random.SeedSequence((data_seed, SPLITS.index(split))).generate_state(2, np.uint64)
    )
    source.advance(first * steps)
    return source.random_raw(size * steps * _COUNTER_WORDS).reshape(size, -1)[:, :each]


def uniform(drawn: np.ndarray) -> np.ndarray:
    """Random words as numbers in [0, 1)."""
    return (drawn >> np.uint64(11)) * 2.0**-53


class Stream:
    """What generated tasks share that never end: an opened `config` with data_seed and seq_len."""

    bytes_per_token: float | None = None
    entropy: float | None = None

    def __init__(self, config: Frozen) -> None:
        self.config = config

    @property
    def seq_len(self) -> int:
        """Tokens in a window but for the last."""
        return int(self.config.seq_len)  # type: ignore[attr-defined]

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        return int(self.config.fixed_vocab_size)  # type: ignore[attr-defined]

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the stream."""
        return hashlib.sha256(self.config.canonical().encode()).hexdigest()

    def n_windows(self, split: Split) -> int:
        """Windows of the stream, more than any run trains on."""
        return N_WINDOWS

    def n_tokens(self, split: Split) -> int:
        """Tokens in all of these windows."""
        return N_WINDOWS * self.seq_len

    def _words(self, split: Split, index: int, size: int, each: int) -> np.ndarray:
        seed = self.config.data_seed  # type: ignore[attr-defined]
        return words(seed, split, index * size, size, each)
