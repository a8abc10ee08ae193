"""Run metrics: measurements of one run, accumulated step by step and saved in its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from scaling.config import RunConfig
from scaling.store.rows import Measurement, MetricValue, Outcome, divergence


@dataclass
class RunMetrics:
    """Measurements so far, and sums over the steps since the last one.

    `diverged` is empty, or the reason why the run is no longer followed. `seconds` of training.
    """

    measured: list[Measurement] = field(default_factory=list)
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    window_steps: int = 0
    seconds: float = 0.0
    diverged: str = ""

    def add(self, losses: np.ndarray, norms: np.ndarray, seconds: float) -> None:
        """Add steps one by one: the sums must not depend on where a dispatch ends."""
        for loss, norm in zip(losses.tolist(), norms.tolist(), strict=True):
            self.loss_sum += loss
            self.norm_sum += norm
        self.window_steps += len(losses)
        self.seconds += seconds

    def flush_window(self, step: int, tokens_per_second: float, mfu: float | None = None) -> None:
        """Record the means of the steps since the last measurement and start a new window."""
        means = {
            "loss": self.loss_sum / self.window_steps,
            "grad_norm": self.norm_sum / self.window_steps,
            "tokens_per_second": tokens_per_second,
        } | ({} if mfu is None else {"mfu": mfu})
        self.record([MetricValue(name, mean, split="train") for name, mean in means.items()], step)
        self.loss_sum = self.norm_sum = 0.0
        self.window_steps = 0

    def record(self, values: Iterable[MetricValue], step: int) -> None:
        """Record what was measured after `step` steps."""
        self.measured += [
            Measurement(step, v.split, v.metric, v.value, v.stderr, v.at, self.seconds)
            for v in values
        ]

    def mark_diverged(self, run: RunConfig, step: int, loss: float) -> None:
        """Record the step at which the run diverged, and its training loss there in nats."""
        row, self.diverged = divergence(run, step, loss, self.seconds)
        self.measured.append(row)

    def outcome(self, stopped: str = "") -> Outcome:
        """The outcome of a run that has ended, or that was `stopped` there."""
        if stopped:
            return Outcome("stopped", tuple(self.measured), stopped)
        return Outcome("diverged" if self.diverged else "done", tuple(self.measured), self.diverged)
