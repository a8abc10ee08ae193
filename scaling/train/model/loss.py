"""The head and its loss in one: cross-entropy whose gradient is computed beside its value, some tokens at a time.

The logits of a chunk of tokens are made, turned into their gradient and dropped, so that float32 logits of a whole batch
never exist: with 50,000 words they are the largest array of a step. The loss is a mean, so its gradient is known up to one
factor before the backward pass begins, and nothing is computed twice (Hsu 2024, Liger Kernel; Wijmans 2025 recomputes).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scaling.train.model.matmul import matmul, product, row_major
from scaling.train.model.norms import row_sum


class LMHead(NamedTuple):
    """How the last matrix is applied: compute dtype, whether it is the embedding, and the most tokens whose logits exist at once."""

    dtype: str
    tied: bool
    chunk: int | None = None


def logits_NV(x_NM: jax.Array, weight: jax.Array, how: LMHead) -> jax.Array:
    """x W, or x W^T for a tied head: operands in the compute dtype, sums and result float32 (N, V)."""
    return matmul(x_NM, weight, how.dtype, how.tied)


def token_nll(x_NM: jax.Array, weight: jax.Array, target_N: jax.Array, how: LMHead) -> jax.Array:
    """Negative log-likelihood in nats of each target, float32 (N,)."""
    _, nll_CN = jax.lax.scan(
        lambda _, part: (None, _evaluate(part[0], weight, part[1], how).nll_N),
        None,
        _chunked(x_NM, target_N, how),
    )
    return nll_CN.swapaxes(0, 1).reshape(-1)


class TokenScores(NamedTuple):
    """What a model says of each of N targets: its NLL in nats, whether it is the likeliest, sum_v p_v^2, and sum_v p_v worth_v."""

    nll: Any
    hit: Any
    square: Any
    mean: Any


def token_scores(
    x_NM: jax.Array, weight: jax.Array, target_N: jax.Array, worth_V: jax.Array, how: LMHead
) -> TokenScores:
    """`TokenScores` of float32 (N,) each, a chunk of logits at a time."""

    def one(_: None, part: tuple[jax.Array, jax.Array]) -> tuple[None, TokenScores]:
        found = _evaluate(part[0], weight, part[1], how)
        p_NV = found.e_NV / found.sum_N1
        picked_N = jnp.take_along_axis(found.e_NV, part[1][:, None], axis=1)[:, 0]
        return None, TokenScores(
            found.nll_N, picked_N >= 1.0, jnp.square(p_NV).sum(axis=1), p_NV @ worth_V
        )

    _, found = jax.lax.scan(one, None, _chunked(x_NM, target_N, how))
    return TokenScores(*(part_CN.swapaxes(0, 1).reshape(-1) for part_CN in found))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def head_loss(
    x_NM: jax.Array, weight: jax.Array, target_N: jax.Array, z_loss: jax.Array, how: LMHead
) -> tuple[jax.Array, jax.Array]:
    """(objective, loss): loss is the mean NLL in nats a token, the objective adds z_loss x mean(log Z^2) (Chowdhery 2022, section 5).

    The objective alone is differentiated, with respect to `x_NM` and `weight`; the loss is for reading.
    """

    def one(
        sums: tuple[Any, Any], part: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[Any, Any], None]:
        found = _evaluate(part[0], weight, part[1], how)
        return (sums[0] + found.nll_N.sum(), sums[1] + jnp.square(found.partition_N).sum()), None

    (nll, square), _ = jax.lax.scan(
        one, (jnp.float32(0.0), jnp.float32(0.0)), _chunked(x_NM, target_N, how)
    )
    return (nll + z_loss * square) / len(target_N), nll / len(target_N)


class _Evaluated(NamedTuple):
    nll_N: jax.Array
    partition_N: jax.Array
    e_NV: jax.Array
    sum_N1: jax.Array


def _evaluate(x_NM: jax.Array, weight: jax.Array, target_N: jax.Array, how: LMHead) -> _Evaluated:
    scores_NV = logits_NV(x_NM, weight, how)
    picked_N = jnp.take_along_axis(scores_NV, target_N[:, None], axis=1)[:, 0]
    top_N1 = scores_NV.max(axis=1, keepdims=True)
    e_NV = jnp.exp(scores_NV - top_N1)
    sum_N1 = row_sum(e_NV)
    partition_N = (jnp.log(sum_N1) + top_N1)[:, 0]
    return _Evaluated(partition_N - picked_N, partition_N, e_NV, sum_N1)


def _chunked(x_NM: jax.Array, target_N: jax.Array, how: LMHead) -> tuple[jax.Array, jax.Array]:
    """(C, N / C, M) and (C, N / C) with the least C that divides N and keeps chunks small enough.

    Chunk c holds tokens c, c + C, c + 2 C ...: every device of a sharded batch has its share of each chunk.
    """
    n = len(target_N)
    count = next(count for count in range(-(-n // (how.chunk or n)), n + 1) if n % count == 0)
    return x_NM.reshape(n // count, count, -1).swapaxes(0, 1), target_N.reshape(
        n // count, count
    ).swapaxes(0, 1)


def _forward(x_NM, weight, target_N, z_loss, how):  # type: ignore[no-untyped-def]
    """The values and their gradients: d objective / d logits = (softmax (1 + 2 z log Z) - one-hot) / N.

    The matrix's gradient is summed as (M, V), tied or not: of the two ways to transpose that is twice as fast on a CPU.
    """
    n = len(target_N)
    weight_VM = row_major((weight if how.tied else weight.T).astype(how.dtype))

    def one(carry, part):  # type: ignore[no-untyped-def]
        nll, square, grad_MV = carry
        x, target = part
        found = _evaluate(x, weight, target, how)
        scale_N1 = (1.0 + 2.0 * z_loss * found.partition_N[:, None]) / (found.sum_N1 * n)
        hit_NV = jnp.arange(found.e_NV.shape[1], dtype=target.dtype) == target[:, None]
        grad_NV = (found.e_NV * scale_N1 - jnp.where(hit_NV, 1.0 / n, 0.0)).astype(how.dtype)
        grad_MV += product("mn,nv->mv", row_major(x.astype(how.dtype).T), grad_NV)
        grad_x = product("nv,vm->nm", grad_NV, weight_VM)
        return (
            nll + found.nll_N.sum(),
            square + jnp.square(found.partition_N).sum(),
            grad_MV,
        ), grad_x

    start = (jnp.float32(0.0), jnp.float32(0.0), jnp.zeros(weight_VM.shape[::-1], jnp.float32))
    (nll, square, grad_MV), grad_x_CNM = jax.lax.scan(one, start, _chunked(x_NM, target_N, how))
    grad_x_NM = grad_x_CNM.swapaxes(0, 1).reshape(x_NM.shape)
    return ((nll + z_loss * square) / n, nll / n), (
        grad_x_NM,
        grad_MV.T if how.tied else grad_MV,
        square / n,
    )


def _backward(how, kept, grads):  # type: ignore[no-untyped-def]
    grad_x_NM, grad_weight, square = kept
    return grad_x_NM * grads[0], grad_weight * grads[0], None, square * grads[0]


head_loss.defvjp(_forward, _backward)
