"""How fast a shape trains on this machine: `python -m scaling.train.step_timing`, trials in, numbers out (JSON)."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.config import Execution, RunConfig
from scaling.train import optim
from scaling.train.data_loader import dispatch_steps
from scaling.train.fingerprint import resolve_for_local_devices
from scaling.train.sharding import Sharder
from scaling.train.step import TrainState, initial_state, shape_of, stack_states, train_program

PROBE_SECONDS = 0.6


def seconds_per_step(
    run: RunConfig, how: Execution | None = None, pack: int = 1
) -> tuple[float, float]:
    """(seconds to compile, seconds of one training step of all runs of a pack), the latter over steps that fill PROBE_SECONDS."""
    begun = time.perf_counter()
    settled = resolve_for_local_devices(run, how or Execution())
    place = Sharder(settled)
    program = train_program(shape_of(run), settled, pack if pack > 1 else None)
    state, h = _start(run, settled, pack)
    state = place.state(state)
    shape = (dispatch_steps(run), run.batch_size, run.task.seq_len + 1)
    tokens = place.tokens(
        np.random.default_rng(0).integers(0, run.model.vocab_size, shape, dtype=np.int32)
    )
    state, losses, _ = program(state, h, tokens, 1)
    jax.block_until_ready(losses)
    compiled = time.perf_counter() - begun
    count, spent = 0, 0.0
    while spent < PROBE_SECONDS:
        some = (
            1
            if count == 0
            else min(dispatch_steps(run), max(1, int(PROBE_SECONDS / 3 / (spent / count))))
        )
        begun = time.perf_counter()
        state, losses, _ = program(state, h, tokens, some)
        jax.block_until_ready(losses)
        spent += time.perf_counter() - begun
        count += some
    return compiled, spent / count


def _start(run: RunConfig, how: Execution, pack: int) -> tuple[TrainState, optim.OptimHyperparams]:
    """The state and the numbers of one run, or of `pack` copies of it."""
    state, h = initial_state(shape_of(run), run.seed, how), optim.hyper(run.optim, run.n_steps)
    if pack == 1:
        return state, h
    return stack_states([state] * pack), jax.tree.map(lambda number: jnp.full(pack, number), h)


def _answer(trial: dict[str, Any]) -> tuple[float, float]:
    run = RunConfig.model_validate(trial["run"], strict=False)
    return seconds_per_step(
        run, Execution.model_validate(trial["how"], strict=False), trial["pack"]
    )


def main() -> None:
    """Read a JSON list of {run, how, pack} from stdin; print a JSON list of [compile seconds, seconds a step]."""
    print(json.dumps([_answer(trial) for trial in json.load(sys.stdin)]))  # noqa: T201


if __name__ == "__main__":
    main()
