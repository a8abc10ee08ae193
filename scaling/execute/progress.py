"""What is known of a sweep while it trains, from its workers' events: counts, pace, time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from scaling.config.run_groups import group_runs
from scaling.execute import events
from scaling.plan import PlannedRun


@dataclass
class SweepProgress:
    """Follows the events of one `execute`; `running` holds the last progress of each group that a
    worker trains.

    Work is counted once: a run that branches off a shared prefix has only its cooldown as its own.
    """

    runs: Sequence[PlannedRun]
    running: dict[str, events.RunProgress] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    _flops_ended: float = 0.0
    _flops_over: float = 0.0
    _first_progress: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        self.by_id = {planned.run_id: planned for planned in self.runs}
        groups = group_runs([planned.run for planned in self.runs])
        steps = (item for group in groups for item in group.incremental_steps())
        self._first_step = {run.run_id: run.n_steps - own for run, own in steps}
        self._total = sum(map(self._own_flops, self.by_id))

    def _own_flops(self, run_id: str, step: int | None = None) -> float:
        """A run's own FLOPs, up to a step or all of them."""
        planned, first = self.by_id[run_id], self._first_step[run_id]
        n_steps = planned.run.n_steps
        return planned.flops * max(0, (n_steps if step is None else step) - first) / n_steps

    def handle(self, event: events.RunEvent) -> None:
        """Take in one event of a worker."""
        match event:
            case events.RunProgress():
                self.running[event.run_id] = event
                if self._first_progress is None:
                    self._first_progress = time.monotonic(), self.flops_trained
            case events.RunEnded() | events.RunEndedByOtherProcess():
                self.counts[event.event] += 1
                self._flops_ended += self._own_flops(event.run_id)
            case events.GroupFinished() if event.run_id in self.running:
                self._flops_over += self.running.pop(event.run_id).flops

    @property
    def share(self) -> float:
        """The part of the sweep's FLOPs that is trained, 0 to 1."""
        current = sum(self._own_flops(run_id, now.step) for run_id, now in self.running.items())
        return min(1.0, (self._flops_ended + current) / self._total) if self._total else 1.0

    @property
    def flops_trained(self) -> float:
        """Model FLOPs that this command has trained, those included that a kill has cost."""
        return self._flops_over + sum(now.flops for now in self.running.values())

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
