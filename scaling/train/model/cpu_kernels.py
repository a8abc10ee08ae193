"""CPU kernels: hand-written gradients and memory layouts, each with the plain function it equals.

`tests/train/model/test_cpu_kernels.py` compares every kernel and its gradient with `*_reference`.

- XLA's CPU backend multiplies bfloat16 natively (AVX512-BF16, AMX) only where both operands lie
  row-major as the product reads them; every other product is converted to float32 first. Copies
  that pin the layout are cheap: on a Zen 4 core the gradients of a (2048, 128) x (128, 512) product
  go from 100 to 160 and 217 GFLOP/s.
- A sum over rows is faster as a product with a column of ones than as a reduction.
- The backward pass of attention orders its products so that nothing of size T x S is transposed,
  and skips the masked half in blocks of queries: 1.6 times as fast at T = 128.

With `on_cpu=False` the layouts are left to XLA: attention that no device kernel covers (ALiBi,
float32) is computed by the same functions on accelerators.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint

from scaling.config.resolve_execution import attention_blocks

MASKED = -1e30  # finite, so that no difference of two masked scores is NaN
NORM_EPS = 1e-6
Slopes = Callable[[int], np.ndarray] | None  # see `positions.Encoding`

# Matrix products


def row_major(x: Array, on_cpu: bool = True) -> Array:
    """`x`, in memory as its axes stand, where that makes products fast: bfloat16 on a CPU.

    For a result it keeps a later transposition from being folded into the product: that would be a
    bfloat16 product which the backend neither converts nor runs.
    """
    if not on_cpu or x.dtype != jnp.bfloat16:
        return x
    return _pinned(x)


def product(equation: str, a: Array, b: Array, on_cpu: bool = True) -> Array:
    """`jnp.einsum` of two arrays with float32 sums; transpose operands first, with `row_major`."""
    result = jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)
    return _pinned(result) if on_cpu and a.dtype == jnp.bfloat16 else result


def _pinned(x: Array) -> Array:
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def matmul_reference(x_NI: Array, w: Array, dtype: str, transposed: bool = False) -> Array:
    """x W, or x W^T if `transposed`, with operands cast to `dtype`; float32 (N, O)."""
    contracted = (((1,), (int(transposed),)), ((), ()))
    return jax.lax.dot_general(
        x_NI.astype(dtype), w.astype(dtype), contracted, preferred_element_type=jnp.float32
    )


def matmul(x_NI: Array, w: Array, dtype: str, transposed: bool = False) -> Array:
    """`matmul_reference`, for bfloat16 with operands laid out for the half-precision units."""
    if dtype == "bfloat16":
        return _half_matmul(x_NI, w, transposed)
    return matmul_reference(x_NI, w, dtype, transposed)


_dot = functools.partial(product, "ni,io->no")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _half_matmul(x_NI: Array, w: Array, transposed: bool) -> Array:
    return _half_matmul_forward(x_NI, w, transposed)[0]


def _half_matmul_forward(x_NI, w, transposed):  # type: ignore[no-untyped-def]
    x_NI, w = x_NI.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    return _dot(x_NI, row_major(w.T) if transposed else w), (x_NI, w)


def _half_matmul_backward(transposed, saved, grad_NO):  # type: ignore[no-untyped-def]
    """dX = dY W^T and dW = X^T dY; the narrower of X and dY is transposed (see Dense)."""
    x_NI, w = saved
    grad_NO = grad_NO.astype(jnp.bfloat16)
    if transposed:
        return _dot(grad_NO, w), _dot(row_major(grad_NO.T), x_NI)
    return _dot(grad_NO, row_major(w.T)), _dot(row_major(x_NI.T), grad_NO)


_half_matmul.defvjp(_half_matmul_forward, _half_matmul_backward)


# Sums over rows and normalisation


def row_sum(x: Array, on_cpu: bool = True) -> Array:
    """`x.sum(axis=-1, keepdims=True)`."""
    if not on_cpu:
        return x.sum(axis=-1, keepdims=True)
    return jnp.dot(x, jnp.ones((x.shape[-1], 1), x.dtype))


def row_mean(x: Array) -> Array:
    """`x.mean(axis=-1, keepdims=True)`."""
    return row_sum(x) * (1.0 / x.shape[-1])


def rms_normalize_reference(x: Array) -> Array:
    """x / sqrt(mean(x^2) + 1e-6) over the last axis (Zhang and Sennrich 2019, eq. 4)."""
    return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + NORM_EPS)


@jax.custom_vjp
def rms_normalize(x: Array) -> Array:
    """`rms_normalize_reference` with its backward pass written out."""
    return _rms_forward(x)[0]


def _rms_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    scale = jax.lax.rsqrt(row_mean(jnp.square(x)) + NORM_EPS)
    y = x * scale
    return y, (y, scale)


def _rms_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array]:
    y, scale = saved
    return (scale * (grad - y * row_mean(grad * y)),)


rms_normalize.defvjp(_rms_forward, _rms_backward)


# Causal attention. Arrays are group-major: B batch, G key-value heads, J = H / G queries per key,
# T query time, S key time, K head width; Q = J x T rows of one group.


def causal_attention_reference(
    q_BGJTK: Array,
    k_BGTK: Array,
    v_BGTK: Array,
    slopes: Slopes,
    document_BT: Array | None = None,
) -> Array:
    """Softmax attention of scaled queries to the keys at or before them, (B, G, J, T, K).

    With `document_BT` to those of the same document alone.
    """
    _, G, J, T, _ = q_BGJTK.shape
    scores = jnp.einsum("bgjtk,bgsk->bgjts", q_BGJTK, k_BGTK, preferred_element_type=jnp.float32)
    distance_TS = jnp.arange(T)[:, None] - jnp.arange(T)
    if slopes is not None:
        scores -= slopes(G * J).reshape(G, J, 1, 1) * distance_TS
    visible = distance_TS >= 0
    if document_BT is not None:
        same_BTS = document_BT[:, :, None] == document_BT[:, None, :]
        visible &= same_BTS[:, None, None]
    p = jax.nn.softmax(jnp.where(visible, scores, MASKED), axis=-1).astype(v_BGTK.dtype)
    return jnp.einsum("bgjts,bgsk->bgjtk", p, v_BGTK, preferred_element_type=jnp.float32)


def attend_block(
    q_BGJTK: Array,
    k_BGSK: Array,
    v_BGSK: Array,
    slopes: Slopes,
    start: Array | int,
    on_cpu: bool = True,
) -> tuple[Array, Array, Array]:
    """Attention of queries at start .. start + T: result, exp(score - max) and its row sums.

    Shapes (B, G, Q, K), (B, G, Q, S) in the dtype of the operands, (B, G, Q, 1).
    """
    B, G, J, T, K = q_BGJTK.shape
    k_BGKS = row_major(k_BGSK.swapaxes(2, 3), on_cpu)
    scores_BGQS = product("bgqk,bgks->bgqs", q_BGJTK.reshape(B, G, J * T, K), k_BGKS, on_cpu)
    scores_BGJTS = scores_BGQS.reshape(B, G, J, T, -1)
    distance_TS = start + jnp.arange(T)[:, None] - jnp.arange(k_BGSK.shape[2])
    if slopes is not None:
        scores_BGJTS -= slopes(G * J).reshape(G, J, 1, 1) * distance_TS
    scores_BGJTS = jnp.where(distance_TS >= 0, scores_BGJTS, MASKED)
    e_BGJTS = jnp.exp(scores_BGJTS - scores_BGJTS.max(axis=-1, keepdims=True))
    e_BGQS = e_BGJTS.reshape(scores_BGQS.shape)
    sum_BGQ1 = row_sum(e_BGQS, on_cpu)
    e_BGQS = e_BGQS.astype(v_BGSK.dtype)
    return product("bgqs,bgsk->bgqk", e_BGQS, v_BGSK, on_cpu) / sum_BGQ1, e_BGQS, sum_BGQ1


def _query_blocks(length: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each block of queries; keys after a block's end are not computed."""
    size = -(-length // attention_blocks(length))
    return ((first, min(first + size, length)) for first in range(0, length, size))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def causal_attention(
    q_BGJTK: Array, k_BGTK: Array, v_BGTK: Array, slopes: Slopes, on_cpu: bool = True
) -> Array:
    """`causal_attention_reference` in blocks of queries, with its backward pass written out."""
    return _causal_forward(q_BGJTK, k_BGTK, v_BGTK, slopes, on_cpu)[0]


def _causal_forward(q_BGJTK, k_BGTK, v_BGTK, slopes, on_cpu):  # type: ignore[no-untyped-def]
    blocks = [
        attend_block(
            q_BGJTK[:, :, :, first:last],
            k_BGTK[:, :, :last],
            v_BGTK[:, :, :last],
            slopes,
            first,
            on_cpu,
        )
        for first, last in _query_blocks(q_BGJTK.shape[3])
    ]
    B, G, J, _, K = q_BGJTK.shape
    out_BGJTK = jnp.concatenate([out.reshape(B, G, J, -1, K) for out, _, _ in blocks], axis=3)
    return out_BGJTK, (q_BGJTK, k_BGTK, v_BGTK, blocks)


def _causal_backward(slopes, on_cpu, saved, grad_BGJTK):  # type: ignore[no-untyped-def]
    """With P = e / sum: dV = P^T dO, dS = P (dO V^T - rowsum(dO O)), dQ = dS K, dK = dS^T Q.

    Dao 2022, appendix B.2.
    """
    q_BGJTK, k_BGTK, v_BGTK, blocks = saved
    B, G, J, T, K = q_BGJTK.shape
    dtype, dq = q_BGJTK.dtype, []
    rows, dot = (functools.partial(f, on_cpu=on_cpu) for f in (row_major, product))
    dk_BGKT = dv_BGKT = jnp.float32(0.0)
    for (first, last), (out_BGQK, e_BGQS, sum_BGQ1) in zip(_query_blocks(T), blocks, strict=True):
        q_BGQK = q_BGJTK[:, :, :, first:last].reshape(out_BGQK.shape)
        grad_BGQK = grad_BGJTK[:, :, :, first:last].reshape(out_BGQK.shape) / sum_BGQ1
        delta_BGQ1 = row_sum(grad_BGQK * out_BGQK, on_cpu)
        grad_BGQK = grad_BGQK.astype(dtype)
        dp_BGQS = dot("bgqk,bgks->bgqs", grad_BGQK, rows(v_BGTK[:, :, :last].mT))
        ds_BGQS = (e_BGQS * (dp_BGQS - delta_BGQ1)).astype(dtype)
        dq_BGQK = dot("bgqs,bgsk->bgqk", ds_BGQS, k_BGTK[:, :, :last])
        dq.append(dq_BGQK.reshape(B, G, J, last - first, K))
        later = ((0, 0), (0, 0), (0, 0), (0, T - last))
        dk_BGKT += jnp.pad(dot("bgkq,bgqs->bgks", rows(q_BGQK.mT), ds_BGQS), later)
        dv_BGKT += jnp.pad(dot("bgkq,bgqs->bgks", rows(grad_BGQK.mT), e_BGQS), later)
    return (
        jnp.concatenate(dq, axis=3).astype(dtype),
        dk_BGKT.mT.astype(dtype),
        dv_BGKT.mT.astype(dtype),
    )


causal_attention.defvjp(_causal_forward, _causal_backward)
