"""The events of one group of runs in a worker, and what they mean for each of its runs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from scaling.config import RunConfig
from scaling.config.run_groups import RunGroup
from scaling.execute import events
from scaling.execute.events import FailureCause, OnEvent, RunEnded, RunEvent
from scaling.execute.local import ExitReason
from scaling.execute.run_queue import RunQueue
from scaling.execute.sweep_folder import SweepFolder


@dataclass(kw_only=True)
class GroupEvents:
    """Follows a group of runs in a worker. `ended` holds each run's outcome, `flops` what was
    trained.

    With `start_is_fatal` a worker that dies of itself before it was ready is not tried again.
    `finished` runs are trained again only because their pack is.
    """

    group: RunGroup
    folder: SweepFolder
    queue: RunQueue
    emit: OnEvent
    stopping: threading.Event
    retries: Counter[str]
    max_retries: int
    start_is_fatal: bool
    finished: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    flops: float = 0.0
    began: float = field(default_factory=time.monotonic)
    _again: set[str] = field(default_factory=set)
    _starting: bool = False

    def handle(self, event: RunEvent) -> bool:
        """Handle one event; True when the group is over."""
        match event:
            case events.GroupOver():
                return True
            case events.WorkerState():
                self._starting = event.event == "starting"
            case events.RunProgress():
                self.flops = event.flops
                seconds = round(time.monotonic() - self.began, 3)
                event = event.model_copy(update={"seconds": seconds})
            case events.Branched(run_ids=run_ids):
                branches = [b for b in self.group.branches if b.runs[0].run_id in run_ids]
                self.group = self.group.without(run_ids)
                self.queue.add_branches(branches)
            case RunEnded(run_id=run_id) if run_id in self.finished:
                return False
            case RunEnded(event="failed"):
                self._on_failure(event)
                return False
            case RunEnded(event="stopped") if not self.stopping.is_set():
                # the worker alone was signalled
                reason = f"its worker was asked to stop: {event.reason}"
                self._on_failure(_failure(event.run_id, FailureCause.DIED, reason))
                return False
            case RunEnded():
                self.ended[event.run_id] = event.event
        self.emit(event)
        return False

    def _on_failure(self, failure: RunEnded) -> None:
        """Record why a run failed, or try it again where the cause may be transient."""
        run_id, reason = failure.run_id, failure.reason
        if run_id in self.ended or run_id in self.finished:  # published before its pack failed
            return
        if failure.cause == FailureCause.DISK:
            self.ended[run_id] = "stopped"
            self.emit(failure.model_copy(update={"event": "stopped"}))
        elif failure.cause in events.TRANSIENT and self.retries[run_id] < self.max_retries:
            self.retries[run_id] += 1
            self.ended[run_id] = "interrupted"
            self._again.add(run_id)
            attempt = f"{reason}; retry {self.retries[run_id]} of {self.max_retries}"
            self.emit(events.RunInterrupted(run_id=run_id, reason=attempt))
        else:
            self.folder.write_failure(run_id, failure.details)
            self.ended[run_id] = "failed"
            self.emit(failure)

    def handle_worker_death(self, exit_reason: ExitReason) -> None:
        """The worker died in this group: its runs stopped if that was asked for, else failed."""
        killed = exit_reason.cause == "SIGKILL"
        could_not_start = self._starting and self.start_is_fatal and not killed
        cause = FailureCause.START if could_not_start else FailureCause.DIED
        what = "could not start" if could_not_start else "died"
        reason = f"the worker process {what}: {exit_reason.cause}"
        if exit_reason.message:
            reason += f": {exit_reason.message}"
        elif exit_reason.cause in ("SIGKILL", "SIGABRT"):
            reason += " (out of memory?)"
        for run in self.group.runs:
            if run.run_id in self.ended or run.run_id in self.finished:
                continue
            if self.stopping.is_set():
                self.ended[run.run_id] = "stopped"
                stopped = "killed before it could save"
                self.emit(RunEnded(event="stopped", run_id=run.run_id, reason=stopped))
            else:
                self._on_failure(_failure(run.run_id, cause, reason, exit_reason.log))

    def unfinished(self) -> list[RunConfig]:
        """Runs to try again, and branches whose checkpoints were not reached."""
        again = [run for run in self.group.runs if run.run_id in self._again]
        branches = [run for branch in self.group.branches for run in branch.runs]
        return again + [run for run in branches if run.run_id not in self.ended]


def _failure(run_id: str, cause: FailureCause, reason: str, log: str = "") -> RunEnded:
    details = f"{reason}\n\n{log}"
    return RunEnded(event="failed", run_id=run_id, cause=cause, reason=reason, details=details)
