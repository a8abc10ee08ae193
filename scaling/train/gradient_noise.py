"""How noisy the gradient of a run is: the critical batch size without a sweep over batches (McCandlish 2018, appendix A).

A batch much smaller than the noise scale wastes no tokens, one much larger wastes nearly all of what it adds.
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
from scaling.train.step import ProgramKey, make_grad_fn, shape_of

FAR = 2**30  # training sequences before those that are measured: beyond the horizon of any run


class GradientNoiseScale:
    """Measures any parameters of runs of one shape on the same training sequences, which lie far behind those of any run.

    Where text ends before, they come from a later epoch: other windows of the same text. Raises ScalingError where the
    sequences cannot be divided among the devices of a mesh.
    """

    def __init__(self, run: RunConfig, task: Task, place: Sharder) -> None:
        count, self._seq_len = run.evals.noise_sequences, run.task.seq_len
        size = group_size(
            count, noise_group(run, place.how), place.how.mesh.data * place.how.mesh.fsdp
        )
        self._program = noise_program(shape_of(run), place.how)
        windows = task.batch("train", FAR // count, count)
        self._groups = place.tokens(windows.reshape(-1, size, windows.shape[-1]))
        self._group_tokens = size * self._seq_len

    def measure(self, params: Any, z_loss: float) -> list[MetricValue]:
        """`noise_scale` in tokens, and its parts; it is left out where the square of the gradient cannot be told from 0."""
        squares, alongs, square = (
            np.asarray(number, np.float64)
            for number in self._program(params, self._groups, np.float32(z_loss))
        )
        return estimate(squares, alongs, float(square), self._group_tokens)


def group_size(count: int, most: int, shares: int = 1) -> int:
    """Sequences in a group, at most `most`: a divisor of `count` and a multiple of `shares`, the devices that divide a batch.

    Raises ScalingError where there is none.
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
def noise_program(shape: ProgramKey, how: Execution) -> Any:
    """`run(params, tokens_CBT1, z_loss) -> squares_C, alongs_C, square` of the gradients g_c of C groups of B sequences.

    squares_C is |g_c|^2, alongs_C is g_c . mean(g_1 .. g_c-1) (0 for the first), and `square` is |mean(g_1 .. g_C)|^2. It holds
    two arrays of the size of the parameters, as a step does, and the activations of one group.
    """
    gradient, place = (
        make_grad_fn(shape, how.model_copy(update={"micro_batch": None})),
        Sharder(how),
    )

    def run(
        params: Any, tokens_CBT1: jax.Array, z_loss: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        def one(
            carry: tuple[Any, jax.Array], tokens_BT1: jax.Array
        ) -> tuple[tuple[Any, jax.Array], tuple[jax.Array, jax.Array]]:
            total, seen = carry
            found, _ = gradient(params, tokens_BT1.astype(jnp.int32), z_loss)
            numbers = (
                optax.tree.vdot(found, found),
                optax.tree.vdot(found, total) / jnp.maximum(seen, 1.0),
            )
            return (jax.tree.map(jnp.add, total, found), seen + 1.0), numbers

        with place.traced():
            start = jax.tree.map(jnp.zeros_like, params), jnp.float32(0.0)
            (total, seen), (squares_C, alongs_C) = jax.lax.scan(one, start, tokens_CBT1)
            return place.whole(
                (squares_C, alongs_C, optax.tree.vdot(total, total) / jnp.square(seen))
            )

    return jax.jit(run)


def estimate(
    squares_C: np.ndarray, alongs_C: np.ndarray, square: float, group_tokens: int
) -> list[MetricValue]:
    """|G|^2, tr(Sigma) of one token and their ratio, from what `noise_program` returns (McCandlish 2018, appendix A.1 and eq. 2.9).

    Both parts are unbiased: with C groups, the square of their mean exceeds |G|^2 by tr(Sigma) / tokens, the mean of their
    squares by C times as much. Standard errors are infinitesimal jackknives over the later half of the groups, each held
    against the mean of those before it: right where |G|^2 is well measured, and up to 1.7 times too wide where noise rules.
    """
    n = len(squares_C)
    variance = (float(squares_C.mean()) - square) * n / (n - 1)  # of the gradient of a group
    signal = square - variance / n
    along, own = alongs_C[(n + 1) // 2 :], squares_C[(n + 1) // 2 :]
    of_signal, of_variance = 2.0 * along, own - 2.0 * along
    found = [
        MetricValue("gradient_square", signal, _stderr(of_signal, n), split="train"),
        MetricValue(
            "gradient_variance",
            variance * group_tokens,
            _stderr(of_variance * group_tokens, n),
            split="train",
        ),
    ]
    if signal <= 0.0:
        return found
    ratio = variance / signal
    stderr = _stderr((of_variance - ratio * of_signal) / signal * group_tokens, n)
    return [MetricValue("noise_scale", ratio * group_tokens, stderr, split="train"), *found]


def _stderr(influence: np.ndarray, n: int) -> float | None:
    """Of a mean over n groups, from the influence of some; None from fewer than two."""
    return float(influence.std(ddof=1) / math.sqrt(n)) if len(influence) > 1 else None
