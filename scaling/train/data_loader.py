"""A thread that reads batches ahead of the training step."""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from scaling.config import RunConfig
from scaling.config.resolve_execution import READ_AHEAD_BYTES, dispatch_steps
from scaling.tasks import Task


class BatchPrefetcher:
    """The training batches of a run from a step on, in order; of each, those of `n_parts` equal
    parts that this process's devices hold. An error of the reader is raised by `next_batches`.
    """

    def __init__(
        self,
        run: RunConfig,
        task: Task,
        first_step: int,
        n_parts: int = 1,
        own_parts: tuple[int, ...] = (0,),
    ) -> None:
        self._task, self._max_steps = task, dispatch_steps(run)
        self._n_parts, self._own_parts = n_parts, own_parts
        self._size = run.batch_size // n_parts
        self._shape = (self._size * len(own_parts), run.task.seq_len + 1)
        self._steps = iter(range(first_step, run.n_steps))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._waiting: deque[Future[np.ndarray]] = deque()
        in_memory = READ_AHEAD_BYTES // (4 * self._shape[0] * self._shape[1])
        self._submit(max(2, min(2 * self._max_steps, in_memory)))

    def _submit(self, count: int) -> None:
        for step in itertools.islice(self._steps, count):
            self._waiting.append(self._pool.submit(self._read, step))

    def _read(self, step: int) -> np.ndarray:
        """Part k of a batch of n parts is batch n x step + k of parts."""
        indices = [step * self._n_parts + part for part in self._own_parts]
        parts = [self._task.batch("train", index, self._size) for index in indices]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def __enter__(self) -> BatchPrefetcher:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def next_batches(self, count: int) -> np.ndarray:
        """The next `count` batches, int32 (K, B, T + 1) with B its own sequences.

        Padded to a fixed K, so that the program is compiled once.
        """
        buffer = np.zeros((self._max_steps, *self._shape), np.int32)
        for i in range(count):
            buffer[i] = self._waiting.popleft().result()
            self._submit(1)
        return buffer
