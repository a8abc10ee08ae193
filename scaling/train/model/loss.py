"""The head and its loss in one.

Cross-entropy computed with its gradient, a chunk of tokens at a time.

The logits of a chunk are computed, turned into their gradient and dropped, so that float32 logits
of a whole batch never exist: with 50,000 words they are the largest array of a step. The loss is a
mean, so its gradient is known up to one factor before the backward pass begins, and nothing is
computed twice (Hsu 2024, Liger Kernel; Wijmans 2025 recomputes). This saves memory on every device;
`tests/train/model/test_cpu_kernels.py` has the same without chunks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from scaling.train.model.cpu_kernels import (
    matmul,
    matmul_reference,
    product,
    row_major,
    row_sum,
)
from scaling.train.model.operations import Compute


class LMHead(NamedTuple):
    """How it is computed, whether the matrix is the embedding, tokens per chunk (None: all)."""

    compute: Compute
    tied: bool
    chunk: int | None = None


def logits_NV(x_NM: Array, weight: Array, head: LMHead) -> Array:
    """x W, or x W^T for a tied head: operands in the compute dtype, result float32 (N, V)."""
    if head.compute.on_cpu:
        return matmul(x_NM, weight, head.compute.precision, head.tied)
    return matmul_reference(x_NM, weight, head.compute.precision, head.tied)


def token_nll(x_NM: Array, weight: Array, target_N: Array, head: LMHead) -> Array:
    """Negative log-likelihood in nats of each target, float32 (N,)."""

    def measure(x_NM: Array, target_N: Array) -> Array:
        return _score_chunk(x_NM, weight, target_N, head)[0]

    return _by_chunk(measure, x_NM, target_N, head)  # type: ignore[no-any-return]


class TokenScores(NamedTuple):
    """Of N targets: NLL in nats, whether it is the likeliest, sum_v p_v^2, sum_v p_v value_v."""

    nll: Any
    hit: Any
    square: Any
    mean: Any


def token_scores(
    x_NM: Array, weight: Array, target_N: Array, value_V: Array, head: LMHead
) -> TokenScores:
    """`TokenScores` of float32 (N,) each, a chunk of logits at a time."""

    def measure(x_NM: Array, target_N: Array) -> TokenScores:
        nll_N, _, e_NV, sum_N1 = _score_chunk(x_NM, weight, target_N, head)
        p_NV = e_NV / sum_N1
        picked_N = jnp.take_along_axis(e_NV, target_N[:, None], axis=1)[:, 0]
        square_N = jnp.square(p_NV).sum(axis=1)
        return TokenScores(nll_N, picked_N >= 1.0, square_N, p_NV @ value_V)

    return _by_chunk(measure, x_NM, target_N, head)  # type: ignore[no-any-return]


def _by_chunk(measure: Callable[..., Any], x_NM: Array, target_N: Array, head: LMHead) -> Any:
    """`measure(x_NM, target_N)` of one chunk after the other; its arrays (N,) in order."""
    chunks = _chunked(x_NM, target_N, head)
    _, parts = jax.lax.scan(lambda _, part: (None, measure(*part)), None, chunks)
    return jax.tree.map(lambda part_CN: part_CN.swapaxes(0, 1).reshape(-1), parts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def head_loss(
    x_NM: Array, weight: Array, target_N: Array, z_loss: Array, head: LMHead
) -> tuple[Array, Array]:
    """(objective, loss): loss is the mean NLL in nats per token.

    The objective adds z_loss x mean((log Z)^2) (Chowdhery 2022, section 5). It alone is
    differentiated, with respect to `x_NM` and `weight`.
    """
    return _forward(x_NM, weight, target_N, z_loss, head)[0]  # type: ignore[no-any-return]


def _score_chunk(
    x_NM: Array, weight: Array, target_N: Array, head: LMHead
) -> tuple[Array, Array, Array, Array]:
    """NLL of the targets and log of the partition function (N,), exp(logits - max) (N, V) and its
    sums (N, 1).
    """
    scores_NV = logits_NV(x_NM, weight, head)
    picked_N = jnp.take_along_axis(scores_NV, target_N[:, None], axis=1)[:, 0]
    top_N1 = scores_NV.max(axis=1, keepdims=True)
    e_NV = jnp.exp(scores_NV - top_N1)
    sum_N1 = row_sum(e_NV, head.compute.on_cpu)
    partition_N = (jnp.log(sum_N1) + top_N1)[:, 0]
    return partition_N - picked_N, partition_N, e_NV, sum_N1


def _chunked(x_NM: Array, target_N: Array, head: LMHead) -> tuple[Array, Array]:
    """(C, N / C, M) and (C, N / C) with the least C that divides N and keeps chunks small enough.

    Chunk c has tokens c, c + C, c + 2 C ...: every device of a sharded batch has its share of each.
    """
    n = len(target_N)
    count = next(count for count in range(-(-n // (head.chunk or n)), n + 1) if n % count == 0)
    x_CNM = x_NM.reshape(n // count, count, -1).swapaxes(0, 1)
    return x_CNM, target_N.reshape(n // count, count).swapaxes(0, 1)


def _forward(x_NM, weight, target_N, z_loss, head):  # type: ignore[no-untyped-def]
    """The values and their gradients.

    d objective / d logits = (softmax (1 + 2 z log Z) - one-hot) / N.

    The matrix's gradient is summed as (M, V), tied or not, which is twice as fast on a CPU as
    (V, M).
    """
    n, dtype, on_cpu = len(target_N), head.compute.precision, head.compute.on_cpu
    if not on_cpu:  # cast once, before the chunks
        weight = weight.astype(dtype)
    weight_VM = row_major((weight if head.tied else weight.T).astype(dtype), on_cpu)

    def one(carry, part):  # type: ignore[no-untyped-def]
        nll, square, grad_MV = carry
        x, target = part
        nll_N, partition_N, e_NV, sum_N1 = _score_chunk(x, weight, target, head)
        scale_N1 = (1.0 + 2.0 * z_loss * partition_N[:, None]) / (sum_N1 * n)
        hit_NV = jnp.arange(e_NV.shape[1], dtype=target.dtype) == target[:, None]
        grad_NV = (e_NV * scale_N1 - jnp.where(hit_NV, 1.0 / n, 0.0)).astype(dtype)
        grad_MV += product("mn,nv->mv", row_major(x.astype(dtype).T, on_cpu), grad_NV, on_cpu)
        if on_cpu:
            grad_x = product("nv,vm->nm", grad_NV, weight_VM)
        else:
            grad_x = jnp.dot(grad_NV, weight_VM, preferred_element_type=x.dtype)
        return (nll + nll_N.sum(), square + jnp.square(partition_N).sum(), grad_MV), grad_x

    start = (jnp.float32(0.0), jnp.float32(0.0), jnp.zeros(weight_VM.shape[::-1], jnp.float32))
    (nll, square, grad_MV), grad_x_CNM = jax.lax.scan(one, start, _chunked(x_NM, target_N, head))
    grad_x_NM = grad_x_CNM.swapaxes(0, 1).reshape(x_NM.shape)
    return ((nll + z_loss * square) / n, nll / n), (
        grad_x_NM,
        grad_MV.T if head.tied else grad_MV,
        square / n,
    )


def _backward(head, saved, grads):  # type: ignore[no-untyped-def]
    grad_x_NM, grad_weight, square = saved
    return (
        (grad_x_NM * grads[0]).astype(grad_x_NM.dtype),
        grad_weight * grads[0],
        None,
        square * grads[0],
    )


head_loss.defvjp(_forward, _backward)
