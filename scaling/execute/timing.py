"""Speed of this machine: shapes timed in a process with the settings of the real runs. Cached."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np

from scaling.config import Execution, RunConfig
from scaling.errors import ScalingError
from scaling.execute.environment import cores, python_module, worker_environment
from scaling.files import write_text
from scaling.plan import PlannedRun
from scaling.plan.document import Speed, step_flops
from scaling.store.cache import cache_folder


def measure_speed(runs: Sequence[PlannedRun], workers: int, execution: Execution) -> Speed:
    """Time the cheapest, a middle and the most expensive shape, in one of `workers` processes."""
    shapes = sorted({step_flops(item.run): item.run for item in runs}.items())
    picked = [shapes[i] for i in sorted({0, len(shapes) // 2, len(shapes) - 1})]
    flops, chosen = zip(*picked, strict=True)
    trials = json.dumps([timing_request(run, execution) for run in chosen], sort_keys=True)
    machine = [platform.node(), platform.processor(), cores(), "processor seconds"]
    versions = [metadata.version(name) for name in ("jax", "scaling-sweeps")]
    key = hashlib.sha256(json.dumps([trials, workers, machine, versions]).encode()).hexdigest()
    path = cache_folder("speed") / f"{key[:16]}.json"
    try:
        times = np.array(json.loads(path.read_text()), float).reshape(len(chosen), 2)
    except (OSError, ValueError, TypeError):  # not measured yet, or no such file any more
        done = subprocess.run(
            python_module("scaling.train.step_timing"),
            input=trials,
            capture_output=True,
            text=True,
            env=worker_environment(workers),
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise ScalingError(
                f"the speed probe failed: {last[:200]}",
                remedy="see `scaling doctor`, or plan with --no-probe",
            ) from None
        times = np.array(json.loads(done.stdout))  # seconds to compile, seconds of a step
        write_text(path, json.dumps(times.tolist()))
    compile_seconds, seconds = times.T.tolist()
    return Speed(flops, tuple(seconds), max(compile_seconds))


def timing_request(run: RunConfig, execution: Execution) -> dict[str, Any]:
    """What `scaling.train.step_timing` is asked: a run's shape, whatever its data and horizon."""
    fields = run.model_dump(mode="json", exclude_defaults=True)
    fields["task"] = {"kind": "text", "seq_len": run.task.seq_len}
    fields.get("evals", {}).pop("samples", None)  # random tokens have no answers
    fields |= {"n_steps": 1000, "optim": {"lr": 1e-3, "schedule": run.optim.schedule}}
    return {"run": fields, "execution": execution.model_dump(mode="json")}
