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
    """The training batches of a run from a step on, in order. An error of the reader is raised by
    `next_batches`.
    """

    def __init__(self, run: RunConfig, task: Task, first_step: int) -> None:
        self._task, self._size, self._max_steps = task, run.batch_size, dispatch_steps(run)
        self._shape = (run.batch_size, run.task.seq_len + 1)
        self._steps = iter(range(first_step, run.n_steps))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._waiting: deque[Future[np.ndarray]] = deque()
        in_memory = READ_AHEAD_BYTES // (4 * self._shape[0] * self._shape[1])
        self._submit(max(2, min(2 * self._max_steps, in_memory)))

    def _submit(self, count: int) -> None:
        for step in itertools.islice(self._steps, count):
            future = self._pool.submit(self._task.batch, "train", step, self._size)
            self._waiting.append(future)

    def __enter__(self) -> BatchPrefetcher:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def next_batches(self, count: int) -> np.ndarray:
        """The next `count` batches, int32 (K, B, T + 1).

        Padded to a fixed K, so that the program is compiled once.
        """
        buffer = np.zeros((self._max_steps, *self._shape), np.int32)
        for i in range(count):
            buffer[i] = self._waiting.popleft().result()
            self._submit(1)
        return buffer
