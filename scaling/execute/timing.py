"""Shapes timed on this machine, under the conditions of the real runs: as many processes side by side, the same threads. Cached."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from scaling import accounting
from scaling.config import Execution, RunConfig
from scaling.config.run_groups import RunGroup
from scaling.errors import ScalingError
from scaling.execute.environment import cores, worker_environment
from scaling.files import write_text
from scaling.plan import PlannedRun
from scaling.store.cache import cache_folder


@dataclass(frozen=True)
class Trial:
    """A shape to time: a run (its data and horizon do not matter), how it is carried out, and how many share the program."""

    run: RunConfig
    how: Execution = field(default_factory=Execution)
    pack: int = 1

    def request(self) -> dict[str, Any]:
        """What `scaling.train.step_timing` is asked."""
        fields = self.run.model_dump(mode="json", exclude_defaults=True)
        fields["task"] = {"kind": "text", "seq_len": self.run.task.seq_len}
        fields["evals"] = {
            name: value for name, value in fields.get("evals", {}).items() if name != "samples"
        }  # nothing is answered
        run = fields | {"n_steps": 1000, "optim": {"lr": 1e-3, "schedule": self.run.optim.schedule}}
        return {"run": run, "execution": self.how.model_dump(mode="json"), "pack": self.pack}


def timed(trials: Sequence[Trial], workers: int) -> list[tuple[float, float]]:
    """(seconds to compile, seconds of a step of the whole pack) of each trial."""
    request = [trial.request() for trial in trials]
    key = hashlib.sha256(
        json.dumps([request, workers, _machine()], sort_keys=True).encode()
    ).hexdigest()[:16]
    path = cache_folder("speed") / f"{key}.json"
    if not path.exists():
        write_text(path, json.dumps(_probe(request, workers)))
    return [(compiled, step) for compiled, step in json.loads(path.read_text())]


def _machine() -> list[Any]:
    return [
        platform.node(),
        platform.processor(),
        cores(),
        metadata.version("jax"),
        metadata.version("scaling"),
    ]


def _probe(request: list[dict[str, Any]], workers: int) -> list[tuple[float, float]]:
    """Means over processes that run at the same time, as the workers will."""
    command = [sys.executable, "-m", "scaling.train.step_timing"]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=worker_environment(workers),
        )
        for _ in range(min(workers, cores()))
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write(json.dumps(request))
        process.stdin.close()
        process.stdin = None  # communicate() would flush it again
    answers = [process.communicate() for process in started]
    for process, (_, errors) in zip(started, answers, strict=True):
        if process.returncode:
            last = (
                errors.strip().splitlines()[-1]
                if errors.strip()
                else f"exit code {process.returncode}"
            )
            raise ScalingError(
                f"the speed probe failed: {last[:200]}",
                remedy="see `scaling doctor`, or plan with --no-probe",
            )
    found = [json.loads(out) for out, _ in answers]
    return [
        (_mean([one[i][0] for one in found]), _mean([one[i][1] for one in found]))
        for i in range(len(request))
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


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

    def family_seconds(self, family: RunGroup) -> float:
        """A trunk and the cooldowns of its branches, for every run of its pack."""
        return sum(self.run_seconds(run, steps) for run, steps in family.incremental_steps())


def step_flops(run: RunConfig) -> float:
    """Exact FLOPs of one optimiser step."""
    return accounting.train_flops(run.model, run.task.seq_len, run.batch_tokens, "exact")


def measure_speed(runs: Sequence[PlannedRun], workers: int, how: Execution) -> Speed:
    """Time the cheapest, a middle and the dearest shape of a plan with `workers` processes side by side; cached by machine."""
    shapes = sorted({step_flops(item.run): item.run for item in runs}.items())
    picks = sorted({0, len(shapes) // 2, len(shapes) - 1})[:PROBED_SHAPES]
    flops, chosen = zip(*[shapes[i] for i in picks], strict=True)
    measured = timed([Trial(run, how) for run in chosen], workers)
    return Speed(
        flops, tuple(step for _, step in measured), max(compiled for compiled, _ in measured)
    )
