"""A language whose entropy is known.

A stream of Zipf-distributed facts, drawn from a counter-based generator.

Hutter (2021), "Learning curve theory", and the Santa Fe process of Debowski (2011): what is left to
learn falls as a power law, and the floor of the loss is known, so a fit's E can be compared with
the truth.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from scaling.config import SyntheticTask
from scaling.errors import ScalingError
from scaling.tasks.corpus.token_store import SPLITS, Split
from scaling.tasks.generated import N_WINDOWS, uniform, words
from scaling.tasks.scores import LossOnly
from scaling.tasks.text import splitmix64


@dataclass(frozen=True)
class Synthetic(LossOnly):
    """An opened synthetic task.

    Windows of whole facts, each `key_len` symbols of a key and the value it determines.
    """

    config: SyntheticTask
    bytes_per_token: None = None

    @property
    def seq_len(self) -> int:
        """Tokens predicted in a window."""
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        """Keys and values are written in the same symbols."""
        return self.config.n_symbols

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the stream."""
        return hashlib.sha256(self.config.model_dump_json(exclude={"seq_len"}).encode()).hexdigest()

    @functools.cached_property
    def key_len(self) -> int:
        """Symbols needed to write n_facts different keys."""
        length, written = 1, self.config.n_symbols
        while written < self.config.n_facts:
            length, written = length + 1, written * self.config.n_symbols
        return length

    @property
    def period(self) -> int:
        """Tokens in a fact."""
        return self.key_len + 1

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """p_k proportional to k^-(1 + zipf), shape (n_facts,).

        Key k is written with the digits of k - 1.
        """
        weights = np.arange(1, self.config.n_facts + 1, dtype=np.float64) ** -(
            1.0 + self.config.zipf
        )
        return weights / weights.sum()

    @functools.cached_property
    def entropy(self) -> float:
        """Nats per token, H(K) / period: the loss of a predictor that knows every fact."""
        p = self.probabilities
        return float(-(p * np.log(p)).sum()) / self.period

    def ideal_loss(self, windows: np.ndarray) -> np.ndarray:
        """Nats per token, shape (n,), on windows of `batch` (n, seq_len + 1), of a predictor that
        knows every fact and every p_k.

        The floor of a loss measured on these very windows. Its mean over all windows is `entropy`,
        exactly: the first symbol of a window is given instead of predicted, but so is the first
        symbol of one fact more predicted at its end.
        """
        places = self.config.n_symbols ** np.arange(self.key_len - 1, -1, -1)
        keys = (
            windows[:, :-1].reshape(len(windows), -1, self.period)[..., :-1].astype(np.int64)
            @ places
        )
        begins = np.bincount(
            np.arange(self.config.n_facts) // places[0], self.probabilities, self.config.n_symbols
        )
        whole = np.log(self.probabilities[keys]).sum(axis=1)
        return (
            np.asarray(np.log(begins[windows[:, 0]]) - np.log(begins[windows[:, -1]]) - whole)
            / self.seq_len
        )

    @functools.cached_property
    def values(self) -> np.ndarray:
        """The value symbol of each key, shape (n_facts,): a hash of (data_seed, key)."""
        seed = np.random.SeedSequence((self.config.data_seed, len(SPLITS))).generate_state(
            1, np.uint64
        )
        return (
            splitmix64(np.arange(self.config.n_facts, dtype=np.uint64) + seed)
            % np.uint64(self.config.n_symbols)
        ).astype(np.int64)

    @functools.cached_property
    def _cumulative(self) -> np.ndarray:
        return np.cumsum(self.probabilities)[
            :-1
        ]  # a draw beyond the last edge is the last key, whatever the rounding

    def n_windows(self, split: Split) -> int:
        """Windows of the stream, more than any run trains on."""
        return N_WINDOWS

    def n_tokens(self, split: Split) -> int:
        """Tokens predicted in all of these windows."""
        return N_WINDOWS * self.seq_len

    def batch(self, split: Split, index: int, size: int) -> np.ndarray:
        """Windows index*size to (index+1)*size - 1 of the split's stream.

        int32 of shape (size, seq_len + 1).

        A window starts with a fact and ends with the first symbol of another, so it predicts
        seq_len / period keys.
        """
        n_facts = self.seq_len // self.period + 1
        drawn = uniform(words(self.config.data_seed, split, index * size, size, n_facts))
        keys = np.searchsorted(self._cumulative, drawn, side="right")
        places = self.config.n_symbols ** np.arange(self.key_len - 1, -1, -1)
        digits = keys[..., None] // places % self.config.n_symbols
        facts = np.concatenate([digits, self.values[keys][..., None]], axis=-1)
        return facts.reshape(size, -1)[:, : self.seq_len + 1].astype(np.int32)


def open_synthetic(config: SyntheticTask) -> Synthetic:
    """Open a synthetic task. Raises ScalingError unless windows hold whole facts."""
    task = Synthetic(config)
    if config.seq_len % task.period:
        below = config.seq_len // task.period * task.period
        advice = " or ".join(str(length) for length in (below, below + task.period) if length)
        raise ScalingError(
            f"task.seq_len = {config.seq_len} is not a multiple of {task.period}, "
            "the length of a fact",
            remedy=f"set seq_len to {advice}: {task.key_len} symbols write a key, 1 its value",
        )
    return task
