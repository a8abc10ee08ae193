"""The runs of a sweep in experiment trackers as they end: each tracker has a process of its own.

One that fails, hangs or is slow costs the sweep nothing; `scaling results export` adds what it
lacks from the rows.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from scaling.execute import events
from scaling.execute.environment import python_module, worker_environment
from scaling.execute.local import LocalWorker, WorkerEvents
from scaling.execute.signals import Signals

CLOSING_SECONDS = 60.0  # that a tracker may take when all is trained
STOPPING_SECONDS = 3.0  # the same, where a signal asks the sweep to stop


@contextlib.contextmanager
def track(
    kind: str, folder: Path, on_event: events.OnEvent, signals: Signals
) -> Iterator[events.OnEvent]:
    """Yields what passes events of a sweep on to `on_event` and its finished runs to a tracker.

    At the end the tracker may finish, for a shorter time where `signals` ask the sweep to stop; why
    it failed is a warning to `on_event`.
    """
    process = LocalWorker(
        [*python_module("scaling.trackers.export"), str(folder), kind],
        folder / "logs" / f"tracking-{kind}-{time.time_ns()}.log",
        worker_environment(1),
    )
    ended: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # of at most all runs

    def feed() -> None:
        while (run_id := ended.get()) is not None:
            process.send(run_id)
        process.end_input()

    def handle(event: events.RunEvent) -> None:
        on_event(event)
        if isinstance(event, events.RunEnded) and event.event in ("done", "diverged"):
            ended.put(event.run_id)

    threading.Thread(target=feed, daemon=True).start()
    try:
        yield handle
    finally:
        ended.put(None)
        began, reason = time.monotonic(), ""
        while process.alive():
            patience, waited = CLOSING_SECONDS, time.monotonic() - began
            if signals.received is not None:
                patience = 0.0 if signals.force_quit else STOPPING_SECONDS
            if waited >= patience:
                reason = f"it was still busy {waited:.0f} s after the last run"
                process.signal(signal.SIGKILL)
                break
            time.sleep(0.05)
        process.close()
        process.read(WorkerEvents())  # it says nothing: this closes the pipe
        exit_reason = process.exit_reason()
        if not reason and exit_reason.code:
            reason = exit_reason.message or f"its process ended: {exit_reason}"
        if reason:
            message = f"{kind} lacks runs ({reason}): scaling results export {folder} --to {kind}"
            on_event(events.RunWarning(message=f"{message} --out PATH adds them from the rows"))
