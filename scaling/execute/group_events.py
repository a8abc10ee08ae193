"""The events of one group of runs in a worker, and what they mean for each of its runs."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from scaling.config import RunConfig
from scaling.config.run_groups import RunGroup
from scaling.errors import DISK
from scaling.execute.local import ExitReason
from scaling.execute.options import OnEvent
from scaling.execute.progress import ENDED
from scaling.execute.run_queue import RunQueue
from scaling.execute.sweep_folder import SweepFolder

# Causes that may not come again: a killed process, a device or link error.
TRANSIENT = ("died", "device")


@dataclass(kw_only=True)
class GroupEvents:
    """Follows a group of runs in a worker. `ended` holds each run's outcome, `flops` what was
    trained.

    With `start_is_fatal` a worker that dies of itself before it was ready is not tried again.
    """

    group: RunGroup
    folder: SweepFolder
    queue: RunQueue
    emit: OnEvent
    stopping: threading.Event
    retries: Counter[str]
    max_retries: int
    start_is_fatal: bool
    ended: dict[str, str] = field(default_factory=dict)
    flops: float = 0.0
    began: float = field(default_factory=time.monotonic)
    _again: set[str] = field(default_factory=set)
    _starting: bool = False

    def handle_line(self, line: str) -> bool:
        """Handle one event, a line of JSON; True when the group is over."""
        return self.handle(json.loads(line))

    def handle(self, event: dict[str, Any]) -> bool:
        """Handle one event; True when the group is over."""
        kind = event["event"]
        if kind == "over":
            return True
        if kind in ("starting", "ready"):
            self._starting = kind == "starting"
        elif kind == "progress":
            self.flops = event["flops"]
            event["seconds"] = round(time.monotonic() - self.began, 3)
        elif kind == "branched":
            branches = [
                branch
                for branch in self.group.branches
                if branch.runs[0].run_id in event["run_ids"]
            ]
            self.group = self.group.without(event["run_ids"])
            self.queue.branch(branches)
        elif kind == "failed":
            self._on_failure(event)
            return False
        elif kind == "stopped" and not self.stopping.is_set():  # the worker alone was signalled
            reason = f"its worker was told to stop: {event['reason']}"
            self._on_failure(
                {"event": "failed", "run_id": event["run_id"], "cause": "died", "text": reason}
            )
            return False
        elif kind in ENDED:
            self.ended[event["run_id"]] = kind
        self.emit(event)
        return False

    def _on_failure(self, event: dict[str, Any]) -> None:
        """Record why a run failed, or try it again where the cause may be transient."""
        run_id, reason = event["run_id"], event["text"].partition("\n")[0]
        if run_id in self.ended:  # published before its pack failed
            return
        if event.get("exit_code") == DISK:  # not the run's fault: it continues when there is space
            self.ended[run_id] = "stopped"
            self.emit(event | {"event": "stopped", "reason": reason, "text": reason})
        elif event["cause"] in TRANSIENT and self.retries[run_id] < self.max_retries:
            self.retries[run_id] += 1
            self.ended[run_id] = "interrupted"
            self._again.add(run_id)
            attempt = f"{reason}; retry {self.retries[run_id]} of {self.max_retries}"
            self.emit({"event": "interrupted", "run_id": run_id, "reason": attempt})
        else:
            self.folder.write_failure(run_id, event["text"])
            self.ended[run_id] = "failed"
            self.emit(event | {"reason": reason})

    def handle_worker_death(self, exit_reason: ExitReason) -> None:
        """The worker died in this group: its runs stopped if that was asked for, else failed."""
        cause, log = exit_reason
        hint = " (out of memory?)" if cause in ("SIGKILL", "SIGABRT") else ""
        message = exit_reason.message
        fatal = self._starting and self.start_is_fatal and cause != "SIGKILL"
        what = "could not start" if fatal else "died"
        text = f"the worker process {what}: {cause}{f': {message}' if message else hint}\n\n{log}"
        for run in self.group.runs:
            if run.run_id in self.ended:
                continue
            if self.stopping.is_set():
                self.ended[run.run_id] = "stopped"
                reason = "killed before it could save"
                self.emit({"event": "stopped", "run_id": run.run_id, "reason": reason})
                continue
            self._on_failure(
                {
                    "event": "failed",
                    "run_id": run.run_id,
                    "cause": "start" if fatal else "died",
                    "text": text,
                    "fatal": fatal,
                }
            )

    def unfinished(self) -> list[RunConfig]:
        """Runs to try again, and branches whose checkpoints were not reached."""
        branches = [run for branch in self.group.branches for run in branch.runs]
        return [run for run in self.group.runs if run.run_id in self._again] + [
            run for run in branches if run.run_id not in self.ended
        ]
