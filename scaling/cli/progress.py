"""What `scaling run` shows while it trains: a live table on a terminal, plain lines in a log."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scaling.cli.output import is_interactive
from scaling.cli.tables import table
from scaling.execute import events
from scaling.execute.events import OnEvent
from scaling.execute.progress import SweepProgress
from scaling.formatting import format_count, format_flops, format_seconds
from scaling.plan import Plan, PlannedRun

LINE_SECONDS = 15.0
MANY = 500


class PipeSafeConsole(Console):
    """A console whose reader may leave (`scaling run ... | head`): training goes on without it."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class Display:
    """Follows a sweep in training; `observe` is the listener of `execute`."""

    def __init__(
        self, folder: Path, plan: Plan, runs: Sequence[PlannedRun], *, to_stderr: bool
    ) -> None:
        self.tracker, self.folder = SweepProgress(runs), folder
        self.console = PipeSafeConsole(stderr=to_stderr, highlight=False)
        self.kept = len(plan.runs) - len(runs)
        self.n_infeasible = len(plan.infeasible)
        self.live: Live | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> OnEvent:
        kept = f", {self.kept} not needed now" if self.kept else ""
        infeasible = (
            f", {self.n_infeasible} infeasible cells (scaling plan gives reasons)"
            if self.n_infeasible
            else ""
        )
        self._line(f"{self.folder}: {len(self.tracker.runs)} runs to train{kept}{infeasible}")
        if is_interactive(self.console) and self.tracker.runs:
            self.live = Live(
                self._table(), console=self.console, refresh_per_second=4, transient=True
            )
            self.live.__enter__()
        return self.handle

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.__exit__(kind, error, trace)

    def handle(self, event: events.RunEvent) -> None:
        """Show one event of a worker."""
        self.tracker.handle(event)
        match event:
            case events.RunEnded() if not self._is_one_of_many(event):
                self._line(self._ending(event))
            case events.RunInterrupted():
                self._line(f"interrupted {event.run_id}  {event.reason}")
            case events.RunWarning():
                self._line(f"warning: {event.message}")
        if self.live:
            self.live.update(self._table())
        elif time.monotonic() - self._last_line > LINE_SECONDS and self.tracker.running:
            self._line(self._summary())

    def _is_one_of_many(self, event: events.RunEnded) -> bool:
        """Of a sweep of thousands not every finished run is worth a line; what goes wrong is."""
        many = len(self.tracker.runs) > MANY and event.event == "done"
        return many and time.monotonic() - self._last_line < 1.0

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        (self.live.console if self.live else self.console).print(Text(text), soft_wrap=True)

    def _ending(self, event: events.RunEnded) -> str:
        planned = self.tracker.by_id[event.run_id]
        size = (
            f"N {format_count(planned.n_params['with_head'])}  D "
            f"{format_count(planned.run.tokens)}  C {format_flops(planned.flops)}"
        )
        detail = (
            f"val loss {event.loss:.4f}"
            if event.event == "done" and event.loss is not None
            else event.reason
        )
        ended = sum(self.tracker.counts.values())
        return (
            f"[{ended}/{len(self.tracker.runs)}] {event.event:8} {event.run_id}  {size}  {detail}"
        )

    def _summary(self) -> str:
        tracker = self.tracker
        ended, speed = (
            sum(tracker.counts.values()),
            sum(event.tokens_per_second for event in tracker.running.values()),
        )
        losses = ", ".join(f"{event.loss:.3f}" for event in tracker.running.values())
        left = format_seconds(tracker.eta_seconds) if tracker.eta_seconds is not None else "?"
        pace = f"{format_count(speed)} tokens/s, {tracker.flops_per_second / 1e9:.1f} GFLOP/s"
        return (
            f"{ended}/{len(tracker.runs)} runs, {tracker.share:.0%} of the FLOPs, train loss "
            f"{losses}, {pace}, {left} left"
        )

    def _table(self) -> Group:
        rows: Table = table("", "run", "N", "step", "train loss", "tokens/s", "GFLOP/s")
        for run_id, event in self.tracker.running.items():
            rows.add_row(
                run_id,
                format_count(self.tracker.by_id[run_id].n_params["with_head"]),
                f"{event.step}/{event.n_steps}",
                f"{event.loss:.3f}",
                f"{event.tokens_per_second:,.0f}",
                f"{event.flops_per_second / 1e9:.2f}",
            )
        return Group(
            rows,
            ProgressBar(total=1.0, completed=self.tracker.share, width=40),
            Text(self._summary()),
        )
