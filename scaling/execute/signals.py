"""The signals that ask a sweep to save itself and leave: Ctrl-C, SIGTERM, and what schedulers send before they take a machine."""

from __future__ import annotations

import signal
from types import FrameType

from scaling.errors import STOPPED

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """Notes the signals that come while it is entered; `received` is the first, `count` how many there were.

    `force_quit` says that somebody will not wait: Ctrl-C or SIGTERM twice. A scheduler's warning and the SIGTERM after it are
    one request, and the time between them is meant for saving.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.count, self.force_quit = 0, False
        self._heard: set[int] = set()

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._note) for number in HANDLED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        self.count += 1
        self.force_quit = self.force_quit or (
            number in self._heard and number in (signal.SIGINT, signal.SIGTERM)
        )
        self._heard.add(number)

    @property
    def exit_code(self) -> int:
        """130 and 143 as shells have them; 75, "stopped and resumable", for a scheduler's warning."""
        return exit_code(self.received)


def exit_code(number: int | None) -> int:
    """What a process ends with that a signal has stopped and that has saved its state."""
    return 128 + number if number in (signal.SIGINT, signal.SIGTERM) else STOPPED
