"""What is known of a sweep while it trains, from the events of its workers: counts, pace and time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scaling.config.run_groups import group_runs
from scaling.plan import PlannedRun

ENDED = ("done", "diverged", "failed", "stopped")


@dataclass
class SweepProgress:
    """Follows the events of one `execute` (a run that another process has finished is `elsewhere`); `running` holds the last progress event of each run that a worker has in hand.

    Work is counted once: a run that branches off a trunk has only its cooldown as its own.
    """

    runs: Sequence[PlannedRun]
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    _flops_ended: float = 0.0
    _flops_over: float = 0.0
    _first_progress: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        self.by_id = {planned.run_id: planned for planned in self.runs}
        self._first_step = dict.fromkeys(self.by_id, 0)
        for family in group_runs([planned.run for planned in self.runs]):
            self._first_step |= {
                run.run_id: branch.branch_step for branch in family.branches for run in branch.runs
            }
        self._own_flops = {
            run_id: self._flops_until(run_id, self.by_id[run_id].run.n_steps)
            for run_id in self.by_id
        }
        self._total = sum(self._own_flops.values())

    def _flops_until(self, run_id: str, step: int) -> float:
        """A run's own FLOPs up to a step."""
        planned, first = self.by_id[run_id], self._first_step[run_id]
        return planned.flops * max(0, step - first) / planned.run.n_steps

    def handle(self, event: dict[str, Any]) -> None:
        """Take in one event of a worker."""
        kind, run_id = event["event"], event.get("run_id", "")
        if kind == "progress":
            self.running[run_id] = event
            if self._first_progress is None:
                self._first_progress = time.monotonic(), self.flops_trained
        elif kind in ENDED or kind == "elsewhere":
            self.counts[kind] += 1
            self._flops_ended += self._own_flops[run_id]
        elif kind == "over" and run_id in self.running:
            self._flops_over += self.running.pop(run_id)["flops"]

    @property
    def share(self) -> float:
        """The part of the sweep's FLOPs that is trained, 0 to 1."""
        current = sum(
            self._flops_until(run_id, event["step"]) for run_id, event in self.running.items()
        )
        return min(1.0, (self._flops_ended + current) / self._total) if self._total else 1.0

    @property
    def flops_trained(self) -> float:
        """Model FLOPs that this command has trained, those included that a kill has cost."""
        return self._flops_over + sum(float(event["flops"]) for event in self.running.values())

    @property
    def flops_per_second(self) -> float:
        """Model FLOP/s of all runs in training together."""
        return float(sum(event["flops_per_second"] for event in self.running.values()))

    @property
    def eta_seconds(self) -> float | None:
        """Time left at the pace of this session since its first step; None before there is one.

        Neither the start of the workers nor what earlier sessions trained counts as pace.
        """
        if self._first_progress is None:
            return None
        time_then, flops_then = self._first_progress
        flops, seconds = self.flops_trained - flops_then, time.monotonic() - time_then
        if flops <= 0.0 or seconds <= 0.0:
            return None
        return (1.0 - self.share) * self._total * seconds / flops
