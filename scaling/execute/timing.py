"""Speed of this machine: shapes timed under the conditions of the real runs (as many processes at
once, the same threads). Cached.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from statistics import fmean
from typing import Any

import numpy as np

from scaling import accounting
from scaling.config import Execution, RunConfig
from scaling.config.run_groups import RunGroup
from scaling.errors import ScalingError
from scaling.execute.environment import cores, python_module, worker_environment
from scaling.files import write_text
from scaling.plan import PlannedRun
from scaling.store.cache import cache_folder


@dataclass(frozen=True)
class Speed:
    """Seconds of a step measured at a few costs (FLOPs of a step, ascending), and the seconds to
    compile a shape.
    """

    flops: tuple[float, ...]
    seconds: tuple[float, ...]
    compile_seconds: float

    def step_seconds(self, flops: float) -> float:
        """Interpolated in log-log between the timed shapes; never less than the first, and beyond
        the last proportional to FLOPs.
        """
        log_seconds = np.interp(np.log(flops), np.log(self.flops), np.log(self.seconds))
        return float(np.exp(log_seconds)) * max(1.0, flops / self.flops[-1])

    def run_seconds(self, run: RunConfig, n_steps: int | None = None) -> float:
        """Training (all steps, or some) and evaluations (a third of a training token each)."""
        eval_steps = run.evals.points * run.evals.tokens / (3.0 * run.batch_tokens)
        n_steps = run.n_steps if n_steps is None else n_steps
        return self.step_seconds(step_flops(run)) * (n_steps + eval_steps)

    def group_seconds(self, group: RunGroup) -> float:
        """A shared prefix and the cooldowns of its branches, for every run of its pack."""
        return sum(self.run_seconds(run, steps) for run, steps in group.incremental_steps())


def step_flops(run: RunConfig) -> float:
    """Exact FLOPs of one optimiser step."""
    return accounting.train_flops(run.model, run.task.seq_len, run.batch_tokens, "exact")


def measure_speed(runs: Sequence[PlannedRun], workers: int, execution: Execution) -> Speed:
    """Time the cheapest, a middle and the most expensive shape of a plan in `workers` processes."""
    shapes = sorted({step_flops(item.run): item.run for item in runs}.items())
    picked = [shapes[i] for i in sorted({0, len(shapes) // 2, len(shapes) - 1})]
    flops, chosen = zip(*picked, strict=True)
    trials = [timing_request(run, execution) for run in chosen]
    machine = [platform.node(), platform.processor(), cores()]
    versions = [metadata.version(name) for name in ("jax", "scaling")]
    key = json.dumps([trials, workers, machine, versions], sort_keys=True)
    path = cache_folder("speed") / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        write_text(path, json.dumps(_time(trials, min(workers, cores()), workers)))
    compile_seconds, seconds = zip(*json.loads(path.read_text()), strict=True)
    return Speed(flops, seconds, max(compile_seconds))


def timing_request(run: RunConfig, execution: Execution) -> dict[str, Any]:
    """What `scaling.train.step_timing` is asked: a run's shape, whatever its data and horizon."""
    fields = run.model_dump(mode="json", exclude_defaults=True)
    fields["task"] = {"kind": "text", "seq_len": run.task.seq_len}
    fields.get("evals", {}).pop("samples", None)  # random tokens have no answers
    fields |= {"n_steps": 1000, "optim": {"lr": 1e-3, "schedule": run.optim.schedule}}
    return {"run": fields, "execution": execution.model_dump(mode="json"), "pack": 1}


def _time(trials: list[dict[str, Any]], n_processes: int, workers: int) -> list[list[float]]:
    """(seconds to compile, seconds of a step) of each trial: means over processes that run at the
    same time, as the workers will.
    """
    processes = [
        subprocess.Popen(
            python_module("scaling.train.step_timing"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=worker_environment(workers),
        )
        for _ in range(n_processes)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(trials))
        process.stdin.close()
        process.stdin = None  # communicate() would flush it again
    answers = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, answers, strict=True):
        if process.returncode:
            last = (errors.strip() or f"exit code {process.returncode}").splitlines()[-1]
            raise ScalingError(
                f"the speed probe failed: {last[:200]}",
                remedy="see `scaling doctor`, or plan with --no-probe",
            )
    by_process = [json.loads(out) for out, _ in answers]
    return [
        [fmean(numbers) for numbers in zip(*pairs, strict=True)]
        for pairs in zip(*by_process, strict=True)
    ]
