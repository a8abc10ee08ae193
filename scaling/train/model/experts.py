"""The products of a mixture of experts: each token's rows through its own experts, none dropped.

Rows are put in order by expert, and each expert's rows fill whole blocks. On a CPU all blocks are
one batched product with the matrix of each block's expert: `jax.lax.ragged_dot` multiplies there
with every expert. Elsewhere blocks are single rows and the product is a ragged one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from scaling.train.model.cpu_kernels import product
from scaling.train.model.operations import Compute
from scaling.train.sharding import BATCH, TENSOR, axis_size


def apply_experts(
    x_NM: jax.Array,
    gate_NK: jax.Array,
    expert_NK: jax.Array,
    up_EMF: jax.Array,
    down_EFM: jax.Array,
    activate: Callable[[jax.Array], jax.Array],
    compute: Compute,
) -> jax.Array:
    """Sum over a token's K experts of gate x FFN(x), float32 (N, M).

    In a mesh each device takes its own tokens (BATCH) through its own experts (TENSOR); the sum
    over `tensor` is the only message about activations.
    """
    compute_local = functools.partial(_apply_local, activate=activate, compute=compute)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return compute_local(x_NM, gate_NK, expert_NK, up_EMF, down_EFM)
    own = TENSOR if up_EMF.shape[0] % axis_size(TENSOR) == 0 else None
    tokens = PartitionSpec(BATCH if x_NM.shape[0] % axis_size(BATCH) == 0 else None)

    def on_device(x: jax.Array, gate: jax.Array, expert: jax.Array, *kernels: jax.Array):  # type: ignore[no-untyped-def]
        if own is None:
            return compute_local(x, gate, expert, *kernels)
        first = jax.lax.axis_index(TENSOR) * kernels[0].shape[0]
        return jax.lax.psum(compute_local(x, gate, expert - first, *kernels), TENSOR)

    return jax.shard_map(  # type: ignore[no-any-return]
        on_device,
        mesh=mesh,
        in_specs=(tokens,) * 3 + (PartitionSpec(own),) * 2,
        out_specs=tokens,
        check_vma=False,
    )(x_NM, gate_NK, expert_NK, up_EMF, down_EFM)


def _apply_local(
    x_NM: jax.Array,
    gate_NK: jax.Array,
    expert_NK: jax.Array,
    up_EMF: jax.Array,
    down_EFM: jax.Array,
    activate: Callable[[jax.Array], jax.Array],
    compute: Compute,
) -> jax.Array:
    """`apply_experts` of the experts 0 .. E - 1; others, on other devices, add nothing."""
    (N, K), E = expert_NK.shape, up_EMF.shape[0]
    R, dtype = N * K, compute.precision
    # half of an expert's fair share: at most 3 E blocks, and half as many rows again are padding
    size = -(-R // (2 * E)) if compute.on_cpu else 1
    n_blocks = (R + E * (size - 1)) // size
    hit_RE = expert_NK.reshape(R, 1) == jnp.arange(E)
    rank_R = jnp.sum((jnp.cumsum(hit_RE, axis=0) - 1) * hit_RE, axis=1)
    blocks_E = -(-hit_RE.sum(axis=0) // size)
    last_E = jnp.cumsum(blocks_E)
    slot_R = rank_R + size * jnp.sum((last_E - blocks_E) * hit_RE, axis=1)
    slot_R = jnp.where(hit_RE.any(axis=1), slot_R, size * n_blocks)
    token_S = jnp.full(size * n_blocks, N).at[slot_R].set(jnp.arange(R) // K, mode="drop")
    owner_C = jnp.searchsorted(last_E, jnp.arange(n_blocks), side="right").clip(max=E - 1)

    def multiply(rows_SI: jax.Array, kernel_EIO: jax.Array) -> jax.Array:
        rows_SI, kernel_EIO = rows_SI.astype(dtype), kernel_EIO.astype(dtype)
        if not compute.on_cpu:
            return jax.lax.ragged_dot(rows_SI, kernel_EIO, blocks_E.astype(jnp.int32))
        rows_CBI = rows_SI.reshape(n_blocks, size, -1)
        return product("cbi,cio->cbo", rows_CBI, kernel_EIO[owner_C]).reshape(size * n_blocks, -1)

    rows_SM = x_NM.at[token_S].get(mode="fill", fill_value=0)
    y_SM = multiply(activate(multiply(rows_SM, up_EMF)), down_EFM)
    y_NKM = y_SM.at[slot_R].get(mode="fill", fill_value=0).reshape(N, K, -1)
    return jnp.sum(y_NKM * gate_NK[:, :, None], axis=1)
