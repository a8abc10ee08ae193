"""A thread that reads batches ahead of the training step."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from scaling.config import RunConfig
from scaling.config.resolve_execution import READ_AHEAD_BYTES, dispatch_steps
from scaling.tasks import Task

NextBatches = Callable[[int], np.ndarray]


@contextmanager
def prefetch_batches(
    run: RunConfig, task: Task, first_step: int, n_parts: int, own_parts: tuple[int, ...]
) -> Iterator[NextBatches]:
    """The function that gives the next training batches of a run from a step on, in order.

    Of each batch it gives those of `n_parts` equal parts that this process's devices hold: int32
    (K, B, T + 1) with B its own sequences, padded to a fixed K, so that the program is compiled
    once. It raises an error of the reader.
    """
    size, max_steps = run.batch_size // n_parts, dispatch_steps(run)
    shape = (size * len(own_parts), run.task.seq_len + 1)
    steps, waiting = iter(range(first_step, run.n_steps)), deque[Future[np.ndarray]]()

    def read(step: int) -> np.ndarray:
        """Part k of a batch of n parts is batch n x step + k of parts."""
        parts = [task.batch("train", step * n_parts + part, size) for part in own_parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def next_batches(count: int) -> np.ndarray:
        buffer = np.zeros((max_steps, *shape), np.int32)
        for i in range(count):
            buffer[i] = waiting.popleft().result()
            waiting.extend(pool.submit(read, step) for step in itertools.islice(steps, 1))
        return buffer

    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        count = max(2, min(2 * max_steps, READ_AHEAD_BYTES // (4 * math.prod(shape))))
        waiting.extend(pool.submit(read, step) for step in itertools.islice(steps, count))
        yield next_batches
    finally:
        pool.shutdown(cancel_futures=True)
