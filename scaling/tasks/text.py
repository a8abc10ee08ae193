"""Next-token prediction on a token store.

Windows in an order that depends on nothing but their number.
"""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path

import numpy as np

from scaling.config import TextTask
from scaling.errors import ScalingError
from scaling.tasks.base import Task
from scaling.tasks.corpus.stdlib import stdlib_store
from scaling.tasks.corpus.token_store import Split, TokenStore, check_ids, open_store

Array = np.ndarray

CHUNK = 1024  # windows whose places are worked out at once
_ROUNDS = 4
_GOLDEN = (math.sqrt(5) - 1) / 2


class Text(Task):
    """An opened text task.

    A window holds seq_len + 1 tokens and starts at a multiple of seq_len (plus an offset of the
    epoch), so an epoch predicts every token once. Training visits the windows of each epoch in a
    pseudo-random order without replacement, epoch after epoch.

    With `unique_tokens` training knows no more than the windows that an unlimited run reads first:
    spread over the whole corpus, they stand for all of it, a smaller limit is part of a larger one,
    and a repeated run and its fresh control are the same run for one epoch. Later epochs visit
    these windows, cut as they are, in other orders.

    Raises ScalingError for a missing or damaged store, another corpus than `digest`, too little
    text, or `unique_tokens` that fill no window or are more than the corpus holds.
    """

    def __init__(self, config: TextTask) -> None:
        self.store, self.seq_len = open_corpus(config.corpus), config.seq_len
        self.unique_tokens, manifest = config.unique_tokens, self.store.manifest
        self.vocab_size, self.digest = manifest.tokenizer.vocab_size, manifest.digest
        if manifest.tokenizer.lossless:
            self.bytes_per_token = manifest.splits["val"].bytes_per_token
        if config.digest and config.digest != self.digest:
            raise ScalingError(
                f"corpus {config.corpus!r} is now another text (digest {self.digest[:12]}, "
                f"the run asks for {config.digest[:12]})",
                where="task.corpus",
                remedy="bring back the corpus (stdlib changes with the version of Python), "
                "or start a new results folder",
            )
        for split, tokens in self.store.tokens.items():
            if self.n_corpus_windows(split) < 1:
                raise ScalingError(
                    f"{len(tokens)} {split} tokens are too few for seq_len = {self.seq_len}",
                    where=self.store.folder,
                    remedy="shorten task.seq_len, or prepare more text",
                )
        limit, whole = self.unique_tokens, self.n_corpus_windows("train") * self.seq_len
        if limit is not None and not self.seq_len <= limit <= whole:
            wrong = f"fewer than a window of {self.seq_len}"
            if limit > whole:
                wrong = "more than the corpus holds"
            raise ScalingError(
                f"{limit} unique tokens are {wrong}",
                where="task.unique_tokens",
                remedy=f"from {self.seq_len} to {whole}",
            )

    def n_windows(self, split: Split) -> int:
        """Windows in one epoch of train (of `unique_tokens`), or in all of val."""
        if split == "train" and self.unique_tokens is not None:
            return self.unique_tokens // self.seq_len
        return self.n_corpus_windows(split)

    def n_corpus_windows(self, split: Split) -> int:
        """Windows that the corpus has for a split; those of train move by less than seq_len."""
        margin = 1 if split == "val" else self.seq_len
        return (len(self.store.tokens[split]) - margin) // self.seq_len

    def batch(self, split: Split, index: int, size: int) -> Array:
        """See `Task.batch`."""
        starts = (self._val_starts if split == "val" else self._train_starts)(index * size, size)
        tokens = self.store.tokens[split]
        windows = tokens[starts[:, None] + np.arange(self.seq_len + 1)].astype(np.int32)
        check_ids(int(windows.max()), self.vocab_size, str(self.store.folder))
        return windows

    def _val_starts(self, first: int, size: int) -> Array:
        """Multiples of the golden ratio.

        The first m windows are spread evenly over the split, whatever m is.
        """
        n = self.n_windows("val")
        if first + size > n:
            raise IndexError(f"val windows {first} to {first + size - 1} of {n}")
        return np.arange(first, first + size) * _stride(n) % n * self.seq_len

    def _train_starts(self, first: int, size: int) -> Array:
        n, n_unique = self.n_corpus_windows("train"), None
        if self.unique_tokens is not None:
            n_unique = self.n_windows("train")
        chunks = range(first // CHUNK, (first + size - 1) // CHUNK + 1)
        starts = [_starts(n, self.seq_len, chunk, n_unique) for chunk in chunks]
        joined = starts[0] if len(starts) == 1 else np.concatenate(starts)
        return joined[first - chunks[0] * CHUNK :][:size]


def open_corpus(corpus: str) -> TokenStore:
    """The store of `corpus`: "stdlib", or a folder written by `scaling data prepare`."""
    return open_store(stdlib_store() if corpus == "stdlib" else Path(corpus).expanduser())


@functools.lru_cache(maxsize=64)
def _stride(n: int) -> int:
    """The first number from n times the golden ratio on that has no divisor in common with n."""
    return next(k for k in itertools.count(max(1, round(n * _GOLDEN))) if math.gcd(k, n) == 1)


@functools.lru_cache(maxsize=64)
def _starts(n_windows: int, seq_len: int, chunk: int, n_unique: int | None = None) -> Array:
    """First tokens of training windows chunk*CHUNK to (chunk+1)*CHUNK - 1 of the endless stream,
    shape (CHUNK,).

    With `n_unique` of a stream that knows only the first of the first epoch's `n_windows`.
    """
    windows = np.arange(chunk * CHUNK, (chunk + 1) * CHUNK)
    epoch, place = np.divmod(windows, n_unique or n_windows)
    starts = np.empty(CHUNK, np.int64)
    for each in range(int(epoch[0]), int(epoch[-1]) + 1):
        inside = epoch == each
        places, cut = place[inside], each
        if n_unique is not None:  # cut as in the first epoch, and first in the order of a fresh run
            places, cut = permuted(places, n_unique, each) if each else places, 0
        seed = np.random.SeedSequence((cut, seq_len))
        offset = int(seed.generate_state(1)[0]) % seq_len  # windows of an epoch move by this much
        starts[inside] = permuted(places, n_windows, cut) * seq_len + offset
    starts.setflags(write=False)
    return starts


def permuted(positions: Array, n: int, epoch: int) -> Array:
    """Where a pseudo-random permutation of 0..n-1, one for each epoch, sends `positions`.

    No table of n is made.

    A Feistel network over a rectangle of at least n cells, with cycle walking (Black and Rogaway
    2002).
    """
    rows = math.isqrt(n - 1) + 1
    columns = -(-n // rows)
    keys = np.random.SeedSequence(epoch).generate_state(2 * _ROUNDS, np.uint64)

    def step(cell: Array) -> Array:
        row, column = np.divmod(cell, np.uint64(columns))
        for row_key, column_key in keys.reshape(_ROUNDS, 2):
            row = (row + splitmix64(column + row_key) % np.uint64(rows)) % np.uint64(rows)
            moved = column + splitmix64(row + column_key) % np.uint64(columns)
            column = moved % np.uint64(columns)
        return row * np.uint64(columns) + column

    cells = step(positions.astype(np.uint64))
    while (outside := cells >= n).any():
        cells[outside] = step(cells[outside])
    return cells.astype(np.int64)


def splitmix64(words: Array) -> Array:
    """A hash of 64-bit words, element by element: the finaliser of SplitMix64 (Steele 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
