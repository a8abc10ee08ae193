"""What a run has to show so far: it grows step by step, travels in the checkpoint, and ends as the run's rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from scaling.config import RunConfig
from scaling.store.rows import Measurement, MetricValue, Outcome, divergence


@dataclass
class RunMetrics:
    """The measurements of one run, and the sums since the last of them; `diverged` says why it is no longer followed."""

    measured: list[Measurement] = field(default_factory=list)
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    since: int = 0
    seconds: float = 0.0
    diverged: str = ""

    def add(self, losses: np.ndarray, norms: np.ndarray, seconds: float) -> None:
        """Add the steps of a dispatch one by one: the sums must not depend on where a dispatch ends."""
        for loss, norm in zip(losses.tolist(), norms.tolist(), strict=True):
            self.loss_sum += loss
            self.norm_sum += norm
        self.since += len(losses)
        self.seconds += seconds

    def close_window(self, step: int, tokens_per_second: float) -> None:
        """Record the means of the steps since the last measurement and start a new window."""
        pairs = {
            "loss": self.loss_sum / self.since,
            "grad_norm": self.norm_sum / self.since,
            "tokens_per_second": tokens_per_second,
        }
        self.measured += [
            Measurement(step, "train", name, value, seconds=self.seconds)
            for name, value in pairs.items()
        ]
        self.loss_sum = self.norm_sum = 0.0
        self.since = 0

    def see(self, found: Iterable[MetricValue], step: int) -> None:
        """Record what an examination after `step` steps has read."""
        self.measured += [
            Measurement(step, one.split, one.metric, one.value, one.stderr, one.at, self.seconds)
            for one in found
        ]

    def end(self, run: RunConfig, step: int, loss: float) -> None:
        """Record that the run diverged at a step."""
        row, self.diverged = divergence(run, step, loss, self.seconds)
        self.measured.append(row)

    def outcome(self) -> Outcome:
        """The run as it ended."""
        return Outcome("diverged" if self.diverged else "done", tuple(self.measured), self.diverged)

    def dump(self) -> dict[str, Any]:
        """JSON-ready; `load_trail` reads it."""
        return asdict(self)


def load_trail(data: dict[str, Any]) -> RunMetrics:
    """The trail of `Trail.dump`."""
    return RunMetrics(**(data | {"measured": [Measurement(**item) for item in data["measured"]]}))


def first_diverged_step(losses: np.ndarray, vocab_size: int) -> int | None:
    """Index of the first loss that is not finite or twice that of a uniform guess: the run has diverged."""
    bad = ~np.isfinite(losses) | (losses > 2.0 * math.log(vocab_size) + 1.0)
    return int(bad.argmax()) if bad.any() else None
