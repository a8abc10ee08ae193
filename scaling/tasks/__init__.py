"""The data seam of the line: a task configuration becomes batches of tokens. numpy only; no jax in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from scaling.config import SyntheticTask, TaskConfig
from scaling.errors import ScalingError
from scaling.tasks.store import Split
from scaling.tasks.synthetic import open_synthetic
from scaling.tasks.text import open_text


class Task(Protocol):
    """What training asks of data.

    `batch` depends on its arguments and the digest alone, so a resume needs only the step, and runs of any size, or of
    another batch size, read the same tokens in the same order.
    """

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""

    @property
    def digest(self) -> str:
        """SHA-256 that identifies the data."""

    @property
    def seq_len(self) -> int:
        """Tokens predicted in a window."""

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes of text per token; None where tokens are no text."""

    @property
    def entropy(self) -> float | None:
        """The lowest possible loss in nats per token; None where it is unknown."""

    def n_windows(self, split: Split) -> int:
        """Different windows of a split: one epoch of train, all of val."""

    def n_tokens(self, split: Split) -> int:
        """Tokens predicted in these windows."""

    def batch(self, split: Split, index: int, size: int) -> np.ndarray:
        """int32 of shape (size, seq_len + 1); train never ends, val raises IndexError at its end."""


def open_task(config: TaskConfig) -> Task:
    """The task of a configuration. Raises ScalingError for data that is missing, damaged, or not what `digest` says."""
    return open_synthetic(config) if isinstance(config, SyntheticTask) else open_text(config)


def resolve(config: TaskConfig) -> TaskConfig:
    """The configuration with the digest of its corpus filled in; opens the corpus, and builds the stdlib one."""
    return config if isinstance(config, SyntheticTask) else config.model_copy(update={"digest": open_text(config).digest})


def epochs(task: Task, tokens: int) -> float:
    """How often training on `tokens` tokens goes through the data."""
    return tokens / task.n_tokens("train")


def val_batches(task: Task, size: int, tokens: int) -> Iterator[np.ndarray]:
    """Full held-out batches of at most `size` windows on about `tokens` tokens: fixed windows, evenly spaced, none twice.

    Raises ScalingError where `tokens` do not fill a window.
    """
    windows = min(tokens // task.seq_len, task.n_windows("val"))
    if windows < 1:
        raise ScalingError(f"evals.tokens = {tokens} do not fill a window of {task.seq_len}", remedy=f"at least {task.seq_len}")
    size = min(size, windows)
    return (task.batch("val", index, size) for index in range(windows // size))
