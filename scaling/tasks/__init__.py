"""Tasks: the interface between data and training.

A task configuration becomes batches of tokens. numpy only; no jax in this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from scaling.config import (
    ArithmeticTask,
    EvalConfig,
    EvalSet,
    InductionTask,
    ModularTask,
    RegressionTask,
    SyntheticTask,
    TaskConfig,
    TextTask,
)
from scaling.errors import ScalingError
from scaling.store.rows import MetricValue
from scaling.tasks.arithmetic import Arithmetic
from scaling.tasks.corpus.token_store import Split
from scaling.tasks.induction import Induction
from scaling.tasks.modular import open_modular
from scaling.tasks.regression import Regression
from scaling.tasks.scores import Scores
from scaling.tasks.synthetic import open_synthetic
from scaling.tasks.text import open_text


class Task(Protocol):
    """What training asks of data.

    `batch` depends on its arguments and the digest alone, so a resume needs only the step, and runs
    of any size, or of another batch size, read the same tokens in the same order.
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

    @property
    def scored_splits(self) -> tuple[Split, ...]:
        """The splits whose windows are scored token by token for `metrics`.

        None where the loss says all.
        """

    def metrics(self, windows: np.ndarray, scores: Scores) -> list[MetricValue]:
        """Task metrics on windows (W, seq_len + 1) with their scores (W, P)."""

    def n_windows(self, split: Split) -> int:
        """Different windows of a split: one epoch of train, all of val."""

    def n_tokens(self, split: Split) -> int:
        """Tokens predicted in these windows."""

    def batch(self, split: Split, index: int, size: int) -> np.ndarray:
        """int32 of shape (size, seq_len + 1); val raises IndexError at its end."""


@runtime_checkable
class Verifiable(Task, Protocol):
    """A task of problems with one right answer each, compared token by token."""

    def prompts(self, windows: np.ndarray) -> np.ndarray:
        """The problem in each window (W, seq_len + 1): its first tokens (W, Q)."""

    def answers(self, windows: np.ndarray) -> np.ndarray:
        """The right answers: the remaining tokens (W, A)."""


def open_task(config: TaskConfig) -> Task:
    """The task of a configuration.

    Raises ScalingError for data that is missing, corrupt, or not what `digest` says.
    """
    if isinstance(config, TextTask):
        return open_text(config)
    opened: Task = _GENERATED[type(config)](config)
    return opened


_GENERATED: dict[type, Callable[[Any], Any]] = {
    SyntheticTask: open_synthetic,
    ModularTask: open_modular,
    ArithmeticTask: Arithmetic,
    InductionTask: Induction,
    RegressionTask: Regression,
}


def resolve(config: TaskConfig) -> TaskConfig:
    """The configuration with the digest of its corpus filled in.

    Opens the corpus, and builds the stdlib one.
    """
    return (
        config.model_copy(update={"digest": open_text(config).digest})
        if isinstance(config, TextTask)
        else config
    )


def eval_set_task(config: TaskConfig, eval_set: EvalSet) -> TaskConfig:
    """An evaluation set as a task of windows as long as those of `config`."""
    corpus, digest = eval_set.corpus, eval_set.digest
    return TextTask(kind="text", corpus=corpus, seq_len=config.seq_len, digest=digest)


def resolve_eval_sets(evals: EvalConfig, config: TaskConfig) -> EvalConfig:
    """The configuration with the digests of its evaluation sets filled in.

    Raises ScalingError where a set cannot be read, or its token ids are not those of the task.
    """
    resolved = []
    for index, eval_set in enumerate(evals.sets):
        task, trained = open_task(eval_set_task(config, eval_set)), open_task(config)
        if task.vocab_size != trained.vocab_size:
            raise ScalingError(
                f"has {task.vocab_size} token ids, the training data {trained.vocab_size}",
                where=f"evals.sets[{index}].corpus = {eval_set.corpus!r}",
                remedy="prepare it with the tokenizer of the training corpus",
            )
        resolved.append(eval_set.model_copy(update={"digest": task.digest}))
    return evals.model_copy(update={"sets": tuple(resolved)})


def epochs(task: Task, tokens: int) -> float:
    """How often training on `tokens` tokens goes through the data."""
    return tokens / task.n_tokens("train")


def val_batches(task: Task, size: int, tokens: int) -> Iterator[np.ndarray]:
    """`fixed_batches` of the validation split."""
    return fixed_batches(task, "val", size, tokens)


def fixed_batches(task: Task, split: Split, size: int, tokens: int) -> Iterator[np.ndarray]:
    """Full batches of at most `size` windows of a split on about `tokens` tokens.

    The same windows always, none twice.

    Those of val are evenly spaced. Raises ScalingError where `tokens` do not fill a window.
    """
    windows = min(tokens // task.seq_len, task.n_windows(split))
    if windows < 1:
        raise ScalingError(
            f"evals.tokens = {tokens} do not fill a window of {task.seq_len}",
            remedy=f"at least {task.seq_len}",
        )
    size = min(size, windows)
    return (task.batch(split, index, size) for index in range(windows // size))
