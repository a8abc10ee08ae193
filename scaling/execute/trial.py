"""Shapes timed on this machine, under the conditions of the real runs: as many processes side by side, the same threads. Cached."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from scaling.cache import cache_folder
from scaling.config import Execution, RunConfig
from scaling.durable import write_text
from scaling.errors import ScalingError
from scaling.execute.environment import cores, worker_environment


@dataclass(frozen=True)
class Trial:
    """A shape to time: a run (its data and horizon do not matter), how it is carried out, and how many share the program."""

    run: RunConfig
    how: Execution = field(default_factory=Execution)
    pack: int = 1

    def request(self) -> dict[str, Any]:
        """What `scaling.lm.probe` is asked."""
        fields = self.run.model_dump(mode="json", exclude_defaults=True)
        fields["task"] = {"kind": "text", "seq_len": self.run.task.seq_len}
        fields["evals"] = {name: value for name, value in fields.get("evals", {}).items() if name != "samples"}  # nothing is answered
        run = fields | {"n_steps": 1000, "optim": {"lr": 1e-3, "schedule": self.run.optim.schedule}}
        return {"run": run, "how": self.how.model_dump(mode="json"), "pack": self.pack}


def timed(trials: Sequence[Trial], workers: int) -> list[tuple[float, float]]:
    """(seconds to compile, seconds of a step of the whole pack) of each trial."""
    request = [trial.request() for trial in trials]
    key = hashlib.sha256(json.dumps([request, workers, _machine()], sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder("speed") / f"{key}.json"
    if not path.exists():
        write_text(path, json.dumps(_probe(request, workers)))
    return [(compiled, step) for compiled, step in json.loads(path.read_text())]


def _machine() -> list[Any]:
    return [platform.node(), platform.processor(), cores(), metadata.version("jax"), metadata.version("scaling")]


def _probe(request: list[dict[str, Any]], workers: int) -> list[tuple[float, float]]:
    """Means over processes that run at the same time, as the workers will."""
    command = [sys.executable, "-m", "scaling.lm.probe"]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=worker_environment(workers))
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
            last = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {process.returncode}"
            raise ScalingError(f"the speed probe failed: {last[:200]}", remedy="see `scaling doctor`, or plan with --no-probe")
    found = [json.loads(out) for out, _ in answers]
    return [(_mean([one[i][0] for one in found]), _mean([one[i][1] for one in found])) for i in range(len(request))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
