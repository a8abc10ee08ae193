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

from scaling.config import Execution, RunConfig
from scaling.config.resolve_execution import noise_group
from scaling.errors import ScalingError
from scaling.store.rows import MetricValue
from scaling.tasks import Task
from scaling.train.sharding import Sharder
from scaling.train.step import ProgramKey, make_grad_fn, program_key

FIRST_SEQUENCE = 2**30  # of those that are measured: beyond the horizon of any run


class GradientNoiseScale:
    """Measures parameters of runs with one `ProgramKey` on the same training sequences.

    They lie after those of any run; where the text ends before, they come from a later epoch: other
    windows of the same text. Raises ScalingError if they cannot be divided among the devices of a
    mesh.
    """

    def __init__(self, run: RunConfig, task: Task, sharder: Sharder) -> None:
        count, self._seq_len = run.evals.noise_sequences, run.task.seq_len
        most = noise_group(run, sharder.execution)
        size = group_size(count, most, sharder.n_batch_shards)
        self._program = noise_program(program_key(run), sharder.execution)
        windows = task.batch("train", FIRST_SEQUENCE // count, count)
        self._groups = sharder.put_tokens(windows.reshape(-1, size, windows.shape[-1]))
        self._group_tokens = size * self._seq_len

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
def noise_program(key: ProgramKey, execution: Execution) -> Any:
    """`run(params, tokens_CBT1, z_loss) -> squares_C, alongs_C, square` of C groups of B sequences.

    With the gradient g_c of each group, squares_C is |g_c|^2, alongs_C is g_c . mean(g_1 .. g_c-1)
    (0 for the first), and `square` is |mean(g_1 .. g_C)|^2. Memory: two arrays of the size of the
    parameters, as for a step, and the activations of one group.
    """
    whole_groups = execution.model_copy(update={"micro_batch": None})
    compute_grads, sharder = make_grad_fn(key, whole_groups), Sharder(execution)

    def run(
        params: Any, tokens_CBT1: jax.Array, z_loss: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        def add_group(
            carry: tuple[Any, jax.Array], tokens_BT1: jax.Array
        ) -> tuple[tuple[Any, jax.Array], tuple[jax.Array, jax.Array]]:
            total, n_seen = carry
            grads, _ = compute_grads(params, tokens_BT1.astype(jnp.int32), z_loss)
            square = optax.tree.vdot(grads, grads)
            along = optax.tree.vdot(grads, total) / jnp.maximum(n_seen, 1.0)
            return (jax.tree.map(jnp.add, total, grads), n_seen + 1.0), (square, along)

        with sharder.in_mesh():
            start = jax.tree.map(jnp.zeros_like, params), jnp.float32(0.0)
            (total, n_seen), (squares_C, alongs_C) = jax.lax.scan(add_group, start, tokens_CBT1)
            return sharder.replicate(
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
    parts = [
        MetricValue("gradient_square", signal, _stderr(of_signal, n), split="train"),
        MetricValue(
            "gradient_variance",
            variance * group_tokens,
            _stderr(of_variance * group_tokens, n),
            split="train",
        ),
    ]
    if signal <= 0.0:
        return parts
    ratio = variance / signal
    stderr = _stderr((of_variance - ratio * of_signal) / signal * group_tokens, n)
    return [MetricValue("noise_scale", ratio * group_tokens, stderr, split="train"), *parts]


def _stderr(influence: np.ndarray, n: int) -> float | None:
    """Of a mean over n groups, from the influences of some of them; None from fewer than two."""
    return float(influence.std(ddof=1) / math.sqrt(n)) if len(influence) > 1 else None
