"""How long a plan will take on this machine: a few of its shapes are timed once, under the conditions of the real runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scaling import accounting
from scaling.config import Execution, RunConfig
from scaling.execute.trial import Trial, timed
from scaling.family import Family
from scaling.plan import PlannedRun

PROBED_SHAPES = 3


@dataclass(frozen=True)
class Speed:
    """Seconds a step measured at a few costs (FLOPs a step, ascending), and the seconds to compile a shape."""

    flops: tuple[float, ...]
    seconds: tuple[float, ...]
    compile_seconds: float

    def step_seconds(self, flops: float) -> float:
        """Interpolated in log-log between the probed shapes; beyond them, proportional to FLOPs."""
        if flops <= self.flops[0] or len(self.flops) == 1:
            return self.seconds[0] * max(1.0, flops / self.flops[0])
        if flops >= self.flops[-1]:
            return self.seconds[-1] * flops / self.flops[-1]
        upper = next(i for i, known in enumerate(self.flops) if known >= flops)
        low, high = self.flops[upper - 1], self.flops[upper]
        share = math.log(flops / low) / math.log(high / low)
        return float(self.seconds[upper - 1] ** (1 - share) * self.seconds[upper] ** share)

    def run_seconds(self, run: RunConfig, n_steps: int | None = None) -> float:
        """Training (all steps, or some) and evaluations (a third of a training token each); a shape is compiled once, whoever runs it."""
        step = self.step_seconds(step_flops(run))
        evaluated = run.evals.points * run.evals.tokens / (3.0 * run.batch_tokens)
        return step * ((run.n_steps if n_steps is None else n_steps) + evaluated)

    def family_seconds(self, family: Family) -> float:
        """A trunk and the cooldowns of its branches, for every run of its pack."""
        return sum(self.run_seconds(run, steps) for run, steps in family.own_steps())


def step_flops(run: RunConfig) -> float:
    """Exact FLOPs of one optimiser step."""
    return accounting.train_flops(run.model, run.task.seq_len, run.batch_tokens, "exact")


def measure_speed(runs: Sequence[PlannedRun], workers: int, how: Execution) -> Speed:
    """Time the cheapest, a middle and the dearest shape of a plan with `workers` processes side by side; cached by machine."""
    shapes = sorted({step_flops(item.run): item.run for item in runs}.items())
    picks = sorted({0, len(shapes) // 2, len(shapes) - 1})[:PROBED_SHAPES]
    flops, chosen = zip(*[shapes[i] for i in picks], strict=True)
    measured = timed([Trial(run, how) for run in chosen], workers)
    return Speed(flops, tuple(step for _, step in measured), max(compiled for compiled, _ in measured))
