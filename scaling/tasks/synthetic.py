"""A language whose entropy is known.

A stream of Zipf-distributed facts, drawn from a counter-based generator.

Hutter (2021), "Learning curve theory", and the Santa Fe process of Debowski (2011): what is left to
learn falls as a power law, and the floor of the loss is known, so a fit's E can be compared with
the truth.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from scaling.config import SyntheticTask
from scaling.errors import ScalingError
from scaling.tasks.base import Generated
from scaling.tasks.corpus.token_store import SPLITS, Split
from scaling.tasks.text import splitmix64

Array = np.ndarray


class Synthetic(Generated):
    """Windows of whole facts, each `key_len` symbols of a key and the value it determines.

    `period` counts the tokens of a fact. Raises ScalingError unless windows hold whole facts.
    """

    config: SyntheticTask

    def __init__(self, config: SyntheticTask) -> None:
        super().__init__(config)
        identity = config.model_dump_json(exclude={"seq_len"})
        self.digest = hashlib.sha256(identity.encode()).hexdigest()
        self.key_len = 1
        while config.n_symbols**self.key_len < config.n_facts:
            self.key_len += 1
        self.period = self.key_len + 1
        # of the digits with which key k is written, k - 1 in base n_symbols
        self._places = config.n_symbols ** np.arange(self.key_len - 1, -1, -1)
        if config.seq_len % self.period:
            below = config.seq_len // self.period * self.period
            advice = " or ".join(str(length) for length in (below, below + self.period) if length)
            raise ScalingError(
                f"task.seq_len = {config.seq_len} is not a multiple of {self.period}, "
                "the length of a fact",
                remedy=f"set seq_len to {advice}: {self.key_len} symbols write a key, 1 its value",
            )

    @functools.cached_property
    def probabilities(self) -> Array:
        """p_k proportional to k^-(1 + zipf), shape (n_facts,)."""
        ranks = np.arange(1, self.config.n_facts + 1, dtype=np.float64)
        weights = ranks ** -(1.0 + self.config.zipf)
        return weights / weights.sum()

    @functools.cached_property
    def entropy(self) -> float:
        """Nats per token, H(K) / period: the loss of a predictor that knows every fact."""
        p = self.probabilities
        return float(-(p * np.log(p)).sum()) / self.period

    def ideal_loss(self, windows: Array) -> Array:
        """Nats per token, shape (n,), on windows of `batch` (n, seq_len + 1), of a predictor that
        knows every fact and every p_k.

        The floor of a loss measured on these very windows. Its mean over all windows is `entropy`,
        exactly: the first symbol of a window is given instead of predicted, but so is the first
        symbol of one fact more predicted at its end.
        """
        facts = windows[:, :-1].reshape(len(windows), -1, self.period)
        whole = np.log(self.probabilities[facts[..., :-1].astype(np.int64) @ self._places])
        first_symbols = np.arange(self.config.n_facts) // self._places[0]
        begins = np.bincount(first_symbols, self.probabilities, self.config.n_symbols)
        edges = np.log(begins[windows[:, 0]]) - np.log(begins[windows[:, -1]])
        nats = edges - whole.sum(axis=1)
        return np.asarray(nats / self.seq_len)

    @functools.cached_property
    def values(self) -> Array:
        """The value symbol of each key, shape (n_facts,): a hash of (data_seed, key)."""
        sequence = np.random.SeedSequence((self.config.data_seed, len(SPLITS)))
        keys = np.arange(self.config.n_facts, dtype=np.uint64)
        hashes = splitmix64(keys + sequence.generate_state(1, np.uint64))
        return (hashes % np.uint64(self.config.n_symbols)).astype(np.int64)

    @functools.cached_property
    def _cumulative(self) -> Array:
        """A draw beyond the last edge is the last key, whatever the rounding."""
        return np.cumsum(self.probabilities)[:-1]

    def batch(self, split: Split, index: int, size: int) -> Array:
        """See `Task.batch`.

        A window starts with a fact and ends with the first symbol of another, so it predicts
        seq_len / period keys.
        """
        draws = self.uniform(split, index, size, self.seq_len // self.period + 1)
        keys = np.searchsorted(self._cumulative, draws, side="right")
        digits = keys[..., None] // self._places % self.config.n_symbols
        facts = np.concatenate([digits, self.values[keys][..., None]], axis=-1)
        return facts.reshape(size, -1)[:, : self.seq_len + 1].astype(np.int32)
