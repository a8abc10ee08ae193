"""Times a training step: `python -m scaling.train.step_timing`, trials in, seconds out (JSON)."""

from __future__ import annotations

import json
import sys
import time

import jax
import numpy as np

from scaling.config import Execution, RunConfig
from scaling.train import optim
from scaling.train.data_loader import dispatch_steps
from scaling.train.fingerprint import resolve_for_local_devices
from scaling.train.program import program_key
from scaling.train.step import initial_state, train_program

TIMED_SECONDS = 0.6


def seconds_per_step(run: RunConfig, execution: Execution | None = None) -> tuple[float, float]:
    """(seconds to compile, seconds per step), over TIMED_SECONDS of steps.

    On a CPU at most the processor's seconds count, so that what else the machine does is not taken
    for slowness.
    """
    began, busy = time.perf_counter(), time.process_time()
    execution = resolve_for_local_devices(run, execution or Execution())
    key = program_key(run, execution)
    program, hyper = train_program(key), optim.hyper(run.optim, run.n_steps)
    state = key.sharder.put_state(initial_state(key, run.seed))
    max_steps = dispatch_steps(run)
    shape = (max_steps, run.batch_size, run.task.seq_len + 1)
    rng = np.random.default_rng(0)
    tokens = key.sharder.put_tokens(rng.integers(0, run.model.vocab_size, shape, dtype=np.int32))
    state, losses, _ = program(state, hyper, tokens, 1)
    jax.block_until_ready(losses)

    def elapsed() -> float:
        wall = time.perf_counter() - began
        return min(wall, time.process_time() - busy) if execution.kind == "cpu" else wall

    compile_seconds = elapsed()
    steps, seconds = 0, 0.0
    while seconds < TIMED_SECONDS:
        n = 1
        if steps:
            n = min(max_steps, max(1, int(TIMED_SECONDS / 3 / (seconds / steps))))
        began, busy = time.perf_counter(), time.process_time()
        state, losses, _ = program(state, hyper, tokens, n)
        jax.block_until_ready(losses)
        seconds += elapsed()
        steps += n
    return compile_seconds, seconds / steps


def main() -> None:
    """Read a JSON list of {run, execution}; print a list of `seconds_per_step`."""
    trials = [
        (
            RunConfig.model_validate(trial["run"], strict=False),
            Execution.model_validate(trial["execution"], strict=False),
        )
        for trial in json.load(sys.stdin)
    ]
    print(json.dumps([seconds_per_step(*trial) for trial in trials]))  # noqa: T201


if __name__ == "__main__":
    main()
