"""Tasks: the interface between data and training.

A task configuration becomes batches of tokens. numpy only; no jax in this folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import numpy as np

from scaling.config import EvalConfig, EvalSet, TaskConfig, TextTask
from scaling.errors import ScalingError
from scaling.tasks.base import Scores, Task
from scaling.tasks.corpus.token_store import Split

TASKS = {  # module:class of each kind
    "text": "text:Text",
    "synthetic": "synthetic:Synthetic",
    "modular": "modular:Modular",
    "arithmetic": "arithmetic:Arithmetic",
    "induction": "induction:Induction",
    "regression": "regression:Regression",
}


def open_task(config: TaskConfig) -> Task:
    """The task of a configuration.

    Raises ScalingError for data that is missing, corrupt, or not what `digest` says.
    """
    module, _, name = TASKS[config.kind].partition(":")
    task: Task = getattr(import_module(f"{__name__}.{module}"), name)(config)
    return task


def resolve(config: TaskConfig) -> TaskConfig:
    """The configuration with the digest of its corpus filled in.

    Opens the corpus, and builds the stdlib one.
    """
    if not isinstance(config, TextTask):
        return config
    return config.model_copy(update={"digest": open_task(config).digest})


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


def fixed_batches(task: Task, size: int, tokens: int, split: Split = "val") -> Iterator[np.ndarray]:
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
