"""What a run has to show so far: it grows step by step, travels in the checkpoint, and ends as the run's rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from scaling.config import RunConfig
from scaling.results import DIVERGED, Measurement


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `done`, `diverged` (a result, with its reason) or `stopped` (a checkpoint holds its state)."""

    kind: Literal["done", "diverged", "stopped"]
    measured: tuple[Measurement, ...]
    reason: str = ""


@dataclass
class Trail:
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
        pairs = {"loss": self.loss_sum / self.since, "grad_norm": self.norm_sum / self.since, "tokens_per_second": tokens_per_second}
        self.measured += [Measurement(step, "train", name, value, seconds=self.seconds) for name, value in pairs.items()]
        self.loss_sum = self.norm_sum = 0.0
        self.since = 0

    def see(self, found: Iterable[tuple[str, float, float | None]], step: int) -> None:
        """Record held-out measurements: (metric, value, standard error)."""
        self.measured += [Measurement(step, "val", name, value, stderr, seconds=self.seconds) for name, value, stderr in found]

    def end(self, run: RunConfig, step: int, loss: float) -> None:
        """Record that the run diverged at a step."""
        self.measured.append(Measurement(step, "train", DIVERGED, float(step), seconds=self.seconds))
        where = f"diverged at step {step} of {run.n_steps}"
        self.diverged = f"{where}: training loss {loss:.4g} nats at learning rate {run.optim.lr:.3g}"

    def outcome(self) -> Outcome:
        """The run as it ended."""
        return Outcome("diverged" if self.diverged else "done", tuple(self.measured), self.diverged)

    def dump(self) -> dict[str, Any]:
        """JSON-ready; `load_trail` reads it."""
        return asdict(self)


def load_trail(data: dict[str, Any]) -> Trail:
    """The trail of `Trail.dump`."""
    return Trail(**(data | {"measured": [Measurement(**item) for item in data["measured"]]}))


def measurement_steps(run: RunConfig) -> list[int]:
    """The steps after which a run is evaluated: evenly spaced in log(step) from 2 % of the run to its end."""
    spaced = np.geomspace(max(1.0, 0.02 * run.n_steps), run.n_steps, run.evals.points)
    return sorted({int(round(step)) for step in spaced} | {run.n_steps})


def first_bad(losses: np.ndarray, vocab_size: int) -> int | None:
    """Index of the first loss that is not finite or twice that of a uniform guess: the run has diverged."""
    bad = ~np.isfinite(losses) | (losses > 2.0 * math.log(vocab_size) + 1.0)
    return int(bad.argmax()) if bad.any() else None
