"""What `scaling run` shows while it trains: a live line on a terminal, plain lines in a log."""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from scaling.execute import events
from scaling.execute.events import OnEvent, Pace
from scaling.execute.progress import SweepProgress
from scaling.formatting import format_count, format_flops, format_seconds
from scaling.plan import Plan, PlannedRun

LINE_SECONDS = 15.0
MANY = 500  # runs from which on a line per finished run is too much


class OptionalConsole(Console):
    """A console whose reader or terminal may leave (`scaling run ... | head`), or whose disk may be
    full: training goes on without it.
    """

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:
            if error.errno == errno.EIO:  # its terminal is gone
                self.on_broken_pipe()
            self.quiet = True

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class Display:
    """Follows a sweep in training; `handle` is the listener of `execute`."""

    def __init__(
        self, folder: Path, plan: Plan, runs: Sequence[PlannedRun], *, to_stderr: bool
    ) -> None:
        self.tracker, self.folder, self.plan = SweepProgress(runs), folder, plan
        self.console = OptionalConsole(stderr=to_stderr, highlight=False)
        self.live: Live | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> OnEvent:
        text = f"{self.folder}: {len(self.tracker.runs)} of {len(self.plan.runs)} runs to train"
        if self.plan.infeasible:
            text += f", {len(self.plan.infeasible)} infeasible cells (scaling plan gives reasons)"
        self._line(text)
        console = self.console  # colours forced on a log make no terminal of it
        is_terminal = console.is_terminal and not console.is_dumb_terminal
        if is_terminal and console.file.isatty() and self.tracker.runs:
            self._line(f"in a browser: scaling report {shlex.quote(str(self.folder))} --watch")
            self.live = Live(console=console, refresh_per_second=4, transient=True)
            self.live.__enter__()
        return self.handle

    def __exit__(self, *error: Any) -> None:
        if self.live:
            self.live.__exit__(*error)

    def handle(self, event: events.RunEvent) -> None:
        """Show one event of a worker; of thousands of finished runs one per second."""
        self.tracker.handle(event)
        pause = time.monotonic() - self._last_line
        match event:
            case events.RunEnded():
                is_done = event.event == "done"
                if not (is_done and len(self.tracker.runs) > MANY and pause < 1.0):
                    self._line(self._ending(event))
            case events.RunInterrupted():
                self._line(f"interrupted {event.run_id}  {event.reason}")
            case events.RunWarning():
                self._line(f"warning: {event.message}")
        if self.live:
            self.live.update(Text(self._summary()))
        elif time.monotonic() - self._last_line > LINE_SECONDS and self.tracker.running:
            self._line(self._summary())

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        (self.live.console if self.live else self.console).print(Text(text), soft_wrap=True)

    def _ending(self, event: events.RunEnded) -> str:
        planned = self.tracker.by_id[event.run_id]
        size = (
            f"N {format_count(planned.n_params['active'])}  D "
            f"{format_count(planned.run.tokens)}  C {format_flops(planned.flops)}"
        )
        is_done = event.event == "done" and event.loss is not None
        detail = f"val loss {event.loss:.4f}" if is_done else event.reason
        ended = sum(self.tracker.counts.values())
        count = f"[{ended}/{len(self.tracker.runs)}]"
        return f"{count} {event.event:8} {event.run_id}  {size}  {detail}"

    def _summary(self) -> str:
        tracker, running = self.tracker, self.tracker.running.values()
        ended = sum(tracker.counts.values())
        losses = ", ".join(f"{event.loss:.3f}" for event in running)
        eta = tracker.eta_seconds
        left = "" if eta is None else f", {format_seconds(eta)} left"
        return (
            f"{ended}/{len(tracker.runs)} runs, {100 * tracker.share:.0f} % of the FLOPs, "
            f"train loss {losses}, {Pace.of(running)}{left}"
        )
