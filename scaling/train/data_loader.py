"""A thread that reads batches ahead of the training step."""

from __future__ import annotations

import queue
import threading
from types import TracebackType

import numpy as np

from scaling.config import RunConfig
from scaling.config.resolve_execution import READ_AHEAD_BYTES, dispatch_steps
from scaling.tasks import Task


class BatchPrefetcher:
    """The training batches of a run from a step on, in order. An error of the reader is raised by
    `next_batches`.
    """

    def __init__(self, run: RunConfig, task: Task, first_step: int) -> None:
        self._run, self._task, self._first_step = run, task, first_step
        self._shape = (run.batch_size, run.task.seq_len + 1)
        depth = max(
            2,
            min(2 * dispatch_steps(run), READ_AHEAD_BYTES // (4 * self._shape[0] * self._shape[1])),
        )
        self._queue: queue.Queue[np.ndarray | BaseException] = queue.Queue(depth)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> BatchPrefetcher:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._thread.join()

    def _read(self) -> None:
        try:
            for step in range(self._first_step, self._run.n_steps):
                if not self._put(self._task.batch("train", step, self._run.batch_size)):
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where the batch is asked for
            self._put(error)

    def _put(self, item: np.ndarray | BaseException) -> bool:
        """Whether the item was queued before the loader closed."""
        while not self._closing.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def next_batches(self, count: int) -> np.ndarray:
        """The next `count` batches, int32 (K, B, T + 1).

        Padded to a fixed K, so that the program is compiled once.
        """
        buffer = np.zeros((dispatch_steps(self._run), *self._shape), np.int32)
        for i in range(count):
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            buffer[i] = item
        return buffer
