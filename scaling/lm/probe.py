"""Measure seconds a step for given runs on this machine: `python -m scaling.lm.probe`, RunConfigs in, numbers out (JSON)."""

from __future__ import annotations

import json
import sys
import time

import jax
import numpy as np

from scaling.config import Execution, RunConfig
from scaling.lm import optim
from scaling.lm.layout import settle
from scaling.lm.step import initial_state, shape_of, train_program
from scaling.lm.feed import dispatch_steps

PROBE_SECONDS = 0.6


def seconds_per_step(run: RunConfig) -> tuple[float, float]:
    """(seconds to compile, seconds of one training step), the latter over steps that fill PROBE_SECONDS."""
    begun = time.perf_counter()
    shape, how = shape_of(run), settle(run, Execution())
    program = train_program(shape, how)
    state, h = initial_state(shape, run.seed, how), optim.hyper(run.optim, run.n_steps)
    shape = (dispatch_steps(run), run.batch_size, run.task.seq_len + 1)
    tokens = np.random.default_rng(0).integers(0, run.model.vocab_size, shape, dtype=np.int32)
    state, losses, _ = program(state, h, tokens, 1)
    jax.block_until_ready(losses)
    compiled = time.perf_counter() - begun
    count, spent = 0, 0.0
    while spent < PROBE_SECONDS:
        some = 1 if count == 0 else min(dispatch_steps(run), max(1, int(PROBE_SECONDS / 3 / (spent / count))))
        begun = time.perf_counter()
        state, losses, _ = program(state, h, tokens, some)
        jax.block_until_ready(losses)
        spent += time.perf_counter() - begun
        count += some
    return compiled, spent / count


def main() -> None:
    """Read a JSON list of RunConfigs from stdin; print a JSON list of [compile seconds, seconds a step]."""
    runs = [RunConfig.model_validate(item, strict=False) for item in json.load(sys.stdin)]
    print(json.dumps([seconds_per_step(run) for run in runs]))  # noqa: T201


if __name__ == "__main__":
    main()
