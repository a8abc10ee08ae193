"""Runs in trackers while they train: the coordinator's events go to a process for each tracker, and are not waited for.

A tracker that fails, hangs or is slow costs the sweep nothing: its queue is filled by the coordinator, emptied by a thread, and
what does not fit is left out, for the rows that are published at the end of a run are read and logged whole.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from scaling.plan import PlannedRun

PROGRESS_SECONDS = 2.0  # between two progress points of a run
WAITING = 10_000  # events that may wait for a tracker
CLOSING_SECONDS = 60.0  # that a tracker may take when all is trained
STOPPING_SECONDS = 3.0  # the same, where a signal asks the sweep to leave
LAST_WORD_SECONDS = 5.0  # that a thread may take to say why a process has ended
LOOK_SECONDS = 0.1  # between two looks at a process that is waited for
LOGGED = ("progress", "measured", "done", "diverged", "failed", "stopped")
OnEvent = Callable[[dict[str, Any]], None]


class SignalState(Protocol):
    """The signals that came so far: the first, and whether somebody will not wait."""

    received: int | None
    force_quit: bool


class LiveTrackers:
    """Passes events of a sweep on to `on_event` and to trackers; what a tracker has to say comes to `on_event` as a warning, once.

    Trackers may finish when all is trained; those that are slow are given up, sooner where `signals` ask the sweep to leave.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        folder: Path,
        sweep: str,
        runs: Sequence[PlannedRun],
        on_event: OnEvent,
        signals: SignalState | None = None,
    ) -> None:
        self.kinds, self.folder, self.sweep, self.on_event, self.signals = (
            kinds,
            folder,
            sweep,
            on_event,
            signals,
        )
        self.by_id = {planned.run_id: planned for planned in runs}
        self.pipes: list[TrackerProcess] = []
        self._progress: dict[str, float] = {}
        self._introduced: set[str] = set()

    def __enter__(self) -> LiveTrackers:
        self.pipes = (
            [TrackerProcess(kind, self.folder, self.sweep) for kind in dict.fromkeys(self.kinds)]
            if self.by_id
            else []
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe in self.pipes:
            pipe.events.put(None)
        begun = time.monotonic()
        for pipe in self.pipes:
            pipe.close(begun, self._patience)
        self._warn()

    def _patience(self) -> float:
        """Seconds that closing may take; asked again and again, for a signal may come meanwhile."""
        if self.signals is None or self.signals.received is None:
            return CLOSING_SECONDS
        return 0.0 if self.signals.force_quit else STOPPING_SECONDS

    def handle(self, event: dict[str, Any]) -> None:
        """The on_event of `execute`."""
        self.on_event(event)
        if event["event"] in LOGGED and self._is_due(event):
            run_id = event["run_id"]
            if run_id not in self._introduced:
                self._introduced.add(run_id)
                self._pass_on(
                    {
                        "event": "run",
                        "run_id": run_id,
                        "config": self.by_id[run_id].run.model_dump_json(),
                    }
                )
            self._pass_on(event)
        self._warn()

    def _is_due(self, event: dict[str, Any]) -> bool:
        if event["event"] != "progress":
            return True
        now = time.monotonic()
        due = now - self._progress.get(event["run_id"], -PROGRESS_SECONDS) >= PROGRESS_SECONDS
        if due:
            self._progress[event["run_id"]] = now
        return due

    def _pass_on(self, event: dict[str, Any]) -> None:
        for pipe in self.pipes:
            if event["event"] not in ("progress", "measured") or pipe.events.qsize() < WAITING:
                pipe.events.put(event)

    def _warn(self) -> None:
        for pipe in self.pipes:
            if (text := pipe.failure_message()) is not None:
                remedy = f"the rows are whole: scaling results export {self.folder} --to {pipe.kind} --out PATH"
                self.on_event(
                    {
                        "event": "warning",
                        "run_id": "",
                        "text": f"{pipe.kind} logs no more ({text}); {remedy}",
                    }
                )


class TrackerProcess:
    """The process of one tracker, and the events that wait for it."""

    def __init__(self, kind: str, folder: Path, sweep: str) -> None:
        self.kind, self.events = kind, queue.SimpleQueue[dict[str, Any] | None]()
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._told = False
        self._log = folder / "logs" / f"tracking-{kind}-{os.getpid()}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scaling.trackers.recorder", str(folder), sweep, kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._threads = [
            threading.Thread(target=task, daemon=True) for task in (self._feed, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def _feed(self) -> None:
        assert self.process.stdin is not None
        event: dict[str, Any] | None = {}
        try:
            with (
                self.process.stdin as pipe
            ):  # closed in any case: its end is what the process waits for
                while (event := self.events.get()) is not None:
                    pipe.write(json.dumps(event) + "\n")
                    pipe.flush()
        except OSError:
            pass  # it has died, and has said why
        except (TypeError, ValueError) as error:
            self._said.put(f"an event of the sweep is no JSON: {error}")
        while event is not None:
            event = self.events.get()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as answer:
            words = answer.read().strip()
        code = self.process.wait()
        if code:
            self._said.put(words or f"its process ended with code {code}")

    def failure_message(self) -> str | None:
        """Why it logs no more, the first time that this is asked after it has failed."""
        if self._told or self._said.empty():
            return None
        self._told = True
        return self._said.get()

    def close(self, begun: float, patience: Callable[[], float]) -> None:
        """Wait for it, but no longer than `patience` seconds from `begun`; a log without a word is removed."""
        while self._is_busy():
            waited = time.monotonic() - begun
            if waited >= patience():
                self._said.put(f"it was still busy {waited:.0f} seconds after the last run")
                self.process.kill()
                self.process.wait()
        for thread in self._threads:  # either may have a last word
            thread.join(LAST_WORD_SECONDS)
        if self._log.exists() and self._log.stat().st_size == 0:
            self._log.unlink()

    def _is_busy(self) -> bool:
        try:
            self.process.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            return True
        return False
