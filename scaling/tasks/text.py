"""Next-token prediction on a token store.

Windows in an order that depends on nothing but their number.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling.config import TextTask
from scaling.errors import ScalingError
from scaling.tasks.corpus.stdlib import stdlib_store
from scaling.tasks.corpus.token_store import Split, TokenStore, check_ids, open_store
from scaling.tasks.scores import LossOnly

CHUNK = 1024  # windows whose places are worked out at once
_ROUNDS = 4
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Text(LossOnly):
    """An opened text task.

    A window holds seq_len + 1 tokens and starts at a multiple of seq_len (plus an offset of the
    epoch), so an epoch predicts every token once. Training visits the windows of each epoch in a
    pseudo-random order without replacement.

    With `unique_tokens` training knows no more than the windows that an unlimited run reads first:
    spread over the whole corpus, they stand for all of it, a smaller limit is part of a larger one,
    and a repeated run and its fresh control are the same run for one epoch. Later epochs visit
    these windows, cut as they are, in other orders.
    """

    store: TokenStore
    seq_len: int
    entropy: None = None
    unique_tokens: int | None = None

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        return self.store.manifest.tokenizer.vocab_size

    @property
    def digest(self) -> str:
        """SHA-256 that identifies the tokens of both splits."""
        return self.store.manifest.digest

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes of held-out text per token; None if the tokenizer loses text."""
        return (
            self.store.manifest.splits["val"].bytes_per_token
            if self.store.manifest.tokenizer.lossless
            else None
        )

    def n_windows(self, split: Split) -> int:
        """Windows in one epoch of train (of `unique_tokens`), or in all of val."""
        if split == "train" and self.unique_tokens is not None:
            return self.unique_tokens // self.seq_len
        return self.n_corpus_windows(split)

    def n_corpus_windows(self, split: Split) -> int:
        """Windows that the corpus has for a split."""
        margin = (
            1 if split == "val" else self.seq_len
        )  # training windows move by an offset below seq_len
        return (len(self.store.tokens[split]) - margin) // self.seq_len

    def n_tokens(self, split: Split) -> int:
        """Tokens predicted in one epoch."""
        return self.n_windows(split) * self.seq_len

    def batch(self, split: Split, index: int, size: int) -> np.ndarray:
        """Windows index*size to (index+1)*size - 1 of the split's order.

        int32 of shape (size, seq_len + 1).

        Training goes on for ever, epoch after epoch. Raises IndexError past the end of val: no
        token counts twice.
        """
        first, tokens = index * size, self.store.tokens[split]
        starts = (
            self._val_starts(first, size) if split == "val" else self._train_starts(first, size)
        )
        windows = tokens[starts[:, None] + np.arange(self.seq_len + 1)].astype(np.int32)
        check_ids(int(windows.max()), self.vocab_size, str(self.store.folder))
        return windows

    def _val_starts(self, first: int, size: int) -> np.ndarray:
        """Multiples of the golden ratio.

        The first m windows are spread evenly over the split, whatever m is.
        """
        n = self.n_windows("val")
        if first + size > n:
            raise IndexError(f"val windows {first} to {first + size - 1} of {n}")
        return np.arange(first, first + size) * _stride(n) % n * self.seq_len

    def _train_starts(self, first: int, size: int) -> np.ndarray:
        chunks = range(first // CHUNK, (first + size - 1) // CHUNK + 1)
        starts = [self._chunk(chunk) for chunk in chunks]
        joined = starts[0] if len(starts) == 1 else np.concatenate(starts)
        return joined[first - chunks[0] * CHUNK :][:size]

    def _chunk(self, chunk: int) -> np.ndarray:
        n_windows = self.n_corpus_windows("train")
        if self.unique_tokens is None:
            return _starts(n_windows, self.seq_len, chunk)
        return _repeated_starts(n_windows, self.n_windows("train"), self.seq_len, chunk)


def open_corpus(corpus: str) -> TokenStore:
    """The store of `corpus`: "stdlib", or a folder written by `scaling data prepare`."""
    return open_store(stdlib_store() if corpus == "stdlib" else Path(corpus).expanduser())


def open_text(config: TextTask) -> Text:
    """Open a text task.

    Raises ScalingError for a missing or damaged store, another corpus than `digest`, too little
    text, or `unique_tokens` that fill no window or are more than the corpus holds.
    """
    task = Text(open_corpus(config.corpus), config.seq_len, unique_tokens=config.unique_tokens)
    if config.digest and config.digest != task.digest:
        raise ScalingError(
            f"corpus {config.corpus!r} is now another text (digest {task.digest[:12]}, "
            f"the run asks for {config.digest[:12]})",
            where="task.corpus",
            remedy="bring back the corpus (stdlib changes with the version of Python), "
            "or start a new results folder",
        )
    for split, tokens in task.store.tokens.items():
        if task.n_corpus_windows(split) < 1:
            raise ScalingError(
                f"{len(tokens)} {split} tokens are too few for seq_len = {config.seq_len}",
                where=str(task.store.folder),
                remedy="shorten task.seq_len, or prepare more text",
            )
    _check_limit(task)
    return task


def _check_limit(task: Text) -> None:
    """Raises ScalingError for a limit below one window or above what an epoch of the corpus
    predicts.
    """
    limit, whole = task.unique_tokens, task.n_corpus_windows("train") * task.seq_len
    if limit is not None and not task.seq_len <= limit <= whole:
        what = (
            "more than the corpus holds"
            if limit > whole
            else f"fewer than a window of {task.seq_len}"
        )
        raise ScalingError(
            f"{limit} unique tokens are {what}",
            where="task.unique_tokens",
            remedy=f"from {task.seq_len} to {whole}",
        )


@functools.lru_cache(maxsize=64)
def _stride(n: int) -> int:
    """The first number from n times the golden ratio on that has no divisor in common with n."""
    return next(k for k in itertools.count(max(1, round(n * _GOLDEN))) if math.gcd(k, n) == 1)


@functools.lru_cache(maxsize=64)
def _starts(n_windows: int, seq_len: int, chunk: int) -> np.ndarray:
    """First tokens of training windows chunk*CHUNK to (chunk+1)*CHUNK - 1 of the endless stream,
    shape (CHUNK,).
    """
    epoch, position = np.divmod(np.arange(chunk * CHUNK, (chunk + 1) * CHUNK), n_windows)
    starts = np.empty(CHUNK, np.int64)
    for each in range(int(epoch[0]), int(epoch[-1]) + 1):
        inside = epoch == each
        starts[inside] = permuted(position[inside], n_windows, each) * seq_len + _offset(
            each, seq_len
        )
    starts.setflags(write=False)
    return starts


def _offset(epoch: int, seq_len: int) -> int:
    """How far the windows of an epoch are moved, below seq_len."""
    return int(np.random.SeedSequence((epoch, seq_len)).generate_state(1)[0]) % seq_len


@functools.lru_cache(maxsize=64)
def _repeated_starts(n_corpus_windows: int, n_unique: int, seq_len: int, chunk: int) -> np.ndarray:
    """As `_starts`, of a stream that knows only the first `n_unique` windows of the first epoch of
    `n_corpus_windows`.
    """
    epoch, place = np.divmod(np.arange(chunk * CHUNK, (chunk + 1) * CHUNK), n_unique)
    for each in range(
        max(1, int(epoch[0])), int(epoch[-1]) + 1
    ):  # the first time they come in the order of a fresh run
        inside = epoch == each
        place[inside] = permuted(place[inside], n_unique, each)
    starts = permuted(place, n_corpus_windows, 0) * seq_len + _offset(0, seq_len)
    starts.setflags(write=False)
    return starts


def permuted(positions: np.ndarray, n: int, epoch: int) -> np.ndarray:
    """Where a pseudo-random permutation of 0..n-1, one for each epoch, sends `positions`.

    No table of n is made.

    A Feistel network over a rectangle of at least n cells, with cycle walking (Black and Rogaway
    2002).
    """
    rows = math.isqrt(n - 1) + 1
    columns = -(-n // rows)
    keys = np.random.SeedSequence(epoch).generate_state(2 * _ROUNDS, np.uint64)

    def step(cell: np.ndarray) -> np.ndarray:
        row, column = np.divmod(cell, np.uint64(columns))
        for row_key, column_key in keys.reshape(_ROUNDS, 2):
            row = (row + splitmix64(column + row_key) % np.uint64(rows)) % np.uint64(rows)
            column = (column + splitmix64(row + column_key) % np.uint64(columns)) % np.uint64(
                columns
            )
        return row * np.uint64(columns) + column

    cells = step(positions.astype(np.uint64))
    while (outside := cells >= n).any():
        cells[outside] = step(cells[outside])
    return cells.astype(np.int64)


def splitmix64(words: np.ndarray) -> np.ndarray:
    """A hash of 64-bit words, element by element: the finaliser of SplitMix64 (Steele 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
