"""The signals that ask a sweep to save itself and stop: Ctrl-C, SIGTERM, the end of a terminal, and
what schedulers send before they take a machine away.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from scaling.errors import STOPPED

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """Notes the signals that come while it is entered; `received` is the first, `count` how many
    there were.

    `force_quit`: Ctrl-C or SIGTERM came twice; then `on_force_quit` is called. A scheduler's
    warning and the SIGTERM after it are one request, and the time between them is meant for saving.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.count, self.force_quit = 0, False
        self.on_force_quit: Callable[[], None] = lambda: None
        self._numbers: set[int] = set()

    def __call__(self) -> bool:
        """Whether to save and stop."""
        return self.count > 0

    def stop(self) -> None:
        """Ask for it without a signal."""
        self.count += 1

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._note) for number in HANDLED}
        if self._before[signal.SIGHUP] == signal.SIG_IGN:  # `nohup`: go on without the terminal
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        self.count += 1
        if number in self._numbers and number in (signal.SIGINT, signal.SIGTERM):
            self.force_quit = True
            self.on_force_quit()
        self._numbers.add(number)


def exit_code(number: int | None) -> int:
    """How a process ends that a signal has stopped and that has saved its state: 129, 130 and 143
    as shells have them; 75, "stopped and resumable", for a scheduler's warning.
    """
    return 128 + number if number in HANDLED[:3] else STOPPED
