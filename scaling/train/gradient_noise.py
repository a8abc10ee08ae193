"""Gradient noise scale: the critical batch size without a sweep over batches.

McCandlish 2018, appendix A. A batch much smaller than the noise scale wastes no tokens, one much
larger wastes nearly all that it adds.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from scaling.config import Execution, RunConfig
from scaling.config.resolve_execution import noise_group
from scaling.errors import ScalingError
from scaling.store.rows import MetricValue
from scaling.tasks import Task
from scaling.train.program import ProgramKey, program_key
from scaling.train.step import make_grad_fn

FIRST_SEQUENCE = 2**30  # of those that are measured: beyond the horizon of any run


class GradientNoiseScale:
    """Measures parameters of runs with one `ProgramKey` on the same training sequences.

    They lie after those of any run; where the text ends before, they come from a later epoch: other
    windows of the same text. Raises ScalingError if they cannot be divided among the devices of a
    mesh.
    """

    def __init__(self, run: RunConfig, task: Task, execution: Execution) -> None:
        count, key = run.evals.noise_sequences, program_key(run, execution)
        size = group_size(count, noise_group(run, execution), key.sharder.n_batch_shards)
        self._program = noise_program(key)
        windows = task.batch("train", FIRST_SEQUENCE // count, count)
        self._groups = key.sharder.put_tokens(windows.reshape(-1, size, windows.shape[-1]))
        self._group_tokens = size * run.task.seq_len

    def measure(self, params: Any, z_loss: float) -> list[MetricValue]:
        """`noise_scale` in tokens, and its parts; without it if |G|^2 is not above 0."""
        squares, alongs, square = (
            np.asarray(number, np.float64)
            for number in self._program(params, self._groups, np.float32(z_loss))
        )
        return estimate(squares, alongs, float(square), self._group_tokens)


def group_size(count: int, most: int, shares: int = 1) -> int:
    """Sequences in a group.

    The largest divisor of `count` up to `most` that is a multiple of `shares`.

    `shares` devices divide a batch. Raises ScalingError if there is none.
    """
    sizes = [
        size for size in range(shares, most + 1, shares) if count % size == 0 and count // size > 1
    ]
    if not sizes:
        raise ScalingError(
            f"evals.noise_sequences = {count} cannot be divided among {shares} devices",
            remedy=f"a multiple of {shares}, at least {2 * shares}",
        )
    return sizes[-1]


@functools.lru_cache(maxsize=64)
def noise_program(key: ProgramKey) -> Any:
    """`run(params, tokens_CBT1, z_loss) -> squares_C, alongs_C, square` of C groups of B sequences.

    With the gradient g_c of each group, squares_C is |g_c|^2, alongs_C is g_c . mean(g_1 .. g_c-1)
    (0 for the first), and `square` is |mean(g_1 .. g_C)|^2. Memory: two arrays of the size of the
    parameters, as for a step, and the activations of one group.
    """
    compute_grads = make_grad_fn(key.with_execution(micro_batch=None))

    def run(params: Any, tokens_CBT1: Array, z_loss: Array) -> Any:
        def add_group(carry: tuple[Any, Array], tokens_BT1: Array) -> Any:
            total, n_seen = carry
            grads, _ = compute_grads(params, tokens_BT1.astype(jnp.int32), z_loss)
            square = optax.tree.vdot(grads, grads)
            along = optax.tree.vdot(grads, total) / jnp.maximum(n_seen, 1.0)
            return (jax.tree.map(jnp.add, total, grads), n_seen + 1.0), (square, along)

        with key.sharder.in_mesh():
            start = jax.tree.map(jnp.zeros_like, params), jnp.float32(0.0)
            (total, n_seen), (squares_C, alongs_C) = jax.lax.scan(add_group, start, tokens_CBT1)
            return key.sharder.replicate(
                (squares_C, alongs_C, optax.tree.vdot(total, total) / jnp.square(n_seen))
            )

    return jax.jit(run)


def estimate(
    squares_C: np.ndarray, alongs_C: np.ndarray, square: float, group_tokens: int
) -> list[MetricValue]:
    """|G|^2, tr(Sigma) of one token and their ratio, from the results of `noise_program`.

    McCandlish 2018, appendix A.1 and eq. 2.9. Both parts are unbiased: with C groups, the square of
    their mean exceeds |G|^2 by tr(Sigma) / tokens, the mean of their squares by C times as much.
    Standard errors are infinitesimal jackknives over the later half of the groups, each compared
    with the mean of those before it: right where |G|^2 is well measured, and up to 1.7 times too
    wide where noise dominates.
    """
    n = len(squares_C)
    variance = (float(squares_C.mean()) - square) * n / (n - 1)  # of the gradient of a group
    signal = square - variance / n
    along, own = alongs_C[(n + 1) // 2 :], squares_C[(n + 1) // 2 :]
    of_signal, of_variance = 2.0 * along, own - 2.0 * along

    def measured(name: str, value: float, influence: np.ndarray) -> MetricValue:
        """With the standard error of a mean over n groups, from the influences of some of them."""
        stderr = float(influence.std(ddof=1) / math.sqrt(n)) if len(influence) > 1 else None
        return MetricValue(name, value, stderr, split="train")

    parts = [
        measured("gradient_square", signal, of_signal),
        measured("gradient_variance", variance * group_tokens, of_variance * group_tokens),
    ]
    if signal <= 0.0:
        return parts
    ratio = variance / signal
    of_ratio = (of_variance - ratio * of_signal) / signal * group_tokens
    return [measured("noise_scale", ratio * group_tokens, of_ratio), *parts]
