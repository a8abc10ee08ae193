"""When a run is measured and how it ends: what every trainer agrees on, a real one and a simulated one. No jax here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from scaling.config import RunConfig
from scaling.results import DIVERGED, Measurement


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `done`, `diverged` (a result, with its reason) or `stopped` (a checkpoint holds its state)."""

    kind: Literal["done", "diverged", "stopped"]
    measured: tuple[Measurement, ...]
    reason: str = ""


def measurement_steps(run: RunConfig) -> list[int]:
    """The steps after which a run is evaluated: evenly spaced in log(step) from 2 % of the run to its end."""
    spaced = np.geomspace(max(1.0, 0.02 * run.n_steps), run.n_steps, run.evals.points)
    return sorted({int(round(step)) for step in spaced} | {run.n_steps})


def divergence(run: RunConfig, step: int, loss: float, seconds: float) -> tuple[Measurement, str]:
    """The row that says at which step a run diverged, and the reason: its training loss there (nats) and its learning rate."""
    where = f"diverged at step {step} of {run.n_steps}"
    reason = f"{where}: training loss {loss:.4g} nats at learning rate {run.optim.lr:.3g}"
    return Measurement(step, "train", DIVERGED, float(step), seconds=seconds), reason
