"""Runs in experiment trackers while they train: updates go to a process through a bounded queue.

A tracker that fails, hangs or is slow costs the sweep nothing: what does not fit the queue is left
out. `scaling results export` adds it from the rows.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType

from scaling.execute import events
from scaling.execute.environment import python_module, worker_environment
from scaling.execute.local import LocalWorker
from scaling.execute.signals import Signals
from scaling.plan import PlannedRun
from scaling.trackers.process import UPDATES
from scaling.trackers.run_log import PROGRESS, Point, RunUpdate, points_of, run_info

PROGRESS_SECONDS = 2.0  # between two progress points of a run
MAX_WAITING = 10_000  # updates
CLOSING_SECONDS = 60.0  # that trackers may take when all is trained
STOPPING_SECONDS = 3.0  # the same, where a signal asks the sweep to stop


@dataclass
class LiveTrackers:
    """Passes events of a sweep on to `on_event` and to trackers; why a tracker failed comes to
    `on_event` as a warning, once.

    Trackers may finish when all is trained; those that are slow are given up, sooner where
    `signals` ask the sweep to stop.
    """

    kinds: Sequence[str]
    folder: Path
    sweep: str
    runs: Sequence[PlannedRun]
    on_event: events.OnEvent
    signals: Signals | None = None
    process: LocalWorker | None = None
    _queue: queue.Queue[RunUpdate | None] = field(default_factory=lambda: queue.Queue(MAX_WAITING))
    _failures: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    _warned: set[str] = field(default_factory=set)
    _left_out: int = 0

    def __enter__(self) -> LiveTrackers:
        self._config = {planned.run_id: planned.run for planned in self.runs}
        self._info = cache(lambda run_id: run_info(self.sweep, self._config[run_id]))
        self._progress_due = dict.fromkeys(self._config, 0.0)
        if self.kinds and self.runs:
            kinds = dict.fromkeys(self.kinds)
            self.process = LocalWorker(
                [*python_module("scaling.trackers.process"), str(self.folder), *kinds],
                self.folder / "logs" / f"tracking-{time.time_ns()}.log",
                worker_environment(1),
            )
            worker = self.process

            def feed() -> None:
                while (update := self._queue.get()) is not None:
                    worker.send(UPDATES.dump_json(update).decode())
                worker.end_input()

            def listen() -> None:
                for line in worker.events():
                    self._failures.put(line.strip())

            threading.Thread(target=feed, daemon=True).start()
            self._listener = threading.Thread(target=listen, daemon=True)
            self._listener.start()
        return self

    def handle(self, event: events.RunEvent) -> None:
        """Take in one event of the sweep."""
        self.on_event(event)
        if self.process is None:
            return
        update = self._update(event)
        if update is not None:
            try:
                self._queue.put_nowait(update)
            except queue.Full:
                self._left_out += 1
        self._warn()

    def _update(self, event: events.RunEvent) -> RunUpdate | None:
        now, run_id = time.time(), event.run_id
        match event:
            case events.RunProgress() if now >= self._progress_due[run_id]:
                self._progress_due[run_id] = now + PROGRESS_SECONDS
                values = {"loss": event.loss, "tokens_per_second": event.tokens_per_second}
                named = {f"{PROGRESS}{name}": value for name, value in values.items()}
                return RunUpdate(self._info(run_id), (Point(event.step, named, now),))
            case events.Measured():
                points = points_of(self._config[run_id], event.rows, now)
                return RunUpdate(self._info(run_id), points)
            case events.RunEnded():
                return RunUpdate(self._info(run_id), status=event.event)
        return None

    def _warn(self) -> None:
        while not self._failures.empty():
            kind, _, reason = self._failures.get().partition(" ")
            if kind in self._warned:
                continue
            self._warned.add(kind)
            self.on_event(
                events.RunWarning(
                    message=f"{kind} logs no more ({reason}); the rows are whole: scaling results "
                    f"export {self.folder} --to {kind} --out PATH"
                )
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is None:
            return
        began, is_closing, reason = time.monotonic(), False, ""
        while self.process.alive():
            if not is_closing and not self._queue.full():
                self._queue.put(None)
                is_closing = True
            patience, waited = CLOSING_SECONDS, time.monotonic() - began
            if self.signals is not None and self.signals.received is not None:
                patience = 0.0 if self.signals.force_quit else STOPPING_SECONDS
            if waited >= patience:
                reason = f"it was still busy {waited:.0f} s after the last run"
                self.process.signal(signal.SIGKILL)
                break
            time.sleep(0.05)
        self.process.close()
        self._listener.join()
        cause = self.process.exit_reason().cause
        if not reason and cause != "exit code 0":
            reason = f"its process ended: {cause}"
        if not reason and self._left_out:
            reason = f"{self._left_out} updates did not fit its queue"
        for name in self.kinds if reason else ():
            self._failures.put(f"{name} {reason}")
        self._warn()
