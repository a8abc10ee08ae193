"""The products of a mixture of experts: each token through its own experts, none dropped.

Rows are put in order by expert, each expert's rows fill whole blocks, and all blocks are one
batched product, each with the matrix of its expert: `jax.lax.ragged_dot` multiplies with every
expert on a CPU and on a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from scaling.train.model.cpu_kernels import product
from scaling.train.model.operations import Compute
from scaling.train.sharding import BATCH, FSDP, TENSOR, axis_size, gather_cast


def apply_experts(
    x_NM: Array,
    gate_NK: Array,
    expert_NK: Array,
    kernels: Sequence[Array],
    activate: Callable[..., Array],
    compute: Compute,
) -> Array:
    """Sum over a token's K experts of gate x FFN(x), (N, M); `kernels` are (E, M, F) each and, the
    last, (E, F, M).

    In a mesh each device takes its own tokens through its share of each expert's width, gathered
    over `fsdp`; a sum over `tensor` is the only message about activations.
    """
    apply_local = functools.partial(_apply_local, activate=activate, compute=compute)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return apply_local(x_NM, gate_NK, expert_NK, *kernels)
    share = TENSOR if kernels[-1].shape[1] % axis_size(TENSOR) == 0 else None
    tokens = PartitionSpec(BATCH if x_NM.shape[0] % axis_size(BATCH) == 0 else None)

    own = FSDP if kernels[-1].shape[0] % axis_size(FSDP) == 0 else None

    def on_device(x: Array, gate: Array, expert: Array, *kernels: Array) -> Any:
        whole = kernels if own is None else [gather_cast(k, compute.precision) for k in kernels]
        y_NM = apply_local(x, gate, expert, *whole)
        return y_NM if share is None else jax.lax.psum(y_NM, share)

    columns, rows = PartitionSpec(own, None, share), PartitionSpec(own, share)
    return jax.shard_map(  # type: ignore[no-any-return]
        on_device,
        mesh=mesh,
        in_specs=(tokens, tokens, tokens, *[columns] * (len(kernels) - 1), rows),
        out_specs=tokens,
        check_vma=False,
    )(x_NM, gate_NK, expert_NK, *kernels)


def _apply_local(
    x_NM: Array,
    gate_NK: Array,
    expert_NK: Array,
    *kernels: Array,
    activate: Callable[..., Array],
    compute: Compute,
) -> Array:
    (N, K), E, dtype = expert_NK.shape, kernels[0].shape[0], compute.precision
    R = N * K
    size = -(-R // (2 * E))  # half an expert's fair share: at most 3 E blocks and 1.5 R rows
    n_blocks = (R + E * (size - 1)) // size
    hit_RE = expert_NK.reshape(R, 1) == jnp.arange(E)
    rank_RE = jnp.cumsum(hit_RE, axis=0) - 1
    last_E = jnp.cumsum(-(-hit_RE.sum(axis=0) // size))  # of each expert's blocks
    first_E = jnp.concatenate([jnp.zeros(1, last_E.dtype), last_E[:-1]])
    slot_R = jnp.sum((rank_RE + size * first_E) * hit_RE, axis=1)
    token_S = jnp.full(size * n_blocks, N).at[slot_R].set(jnp.arange(R) // K)
    owner_C = jnp.searchsorted(last_E, jnp.arange(n_blocks), side="right").clip(max=E - 1)

    def multiply(rows_SI: Array, kernel_EIO: Array) -> Array:
        rows_CBI = rows_SI.astype(dtype).reshape(n_blocks, size, -1)
        kernel_CIO = kernel_EIO.astype(dtype)[owner_C]
        if compute.on_cpu:
            y_CBO = product("cbi,cio->cbo", rows_CBI, kernel_CIO)
        else:
            y_CBO = jnp.einsum("cbi,cio->cbo", rows_CBI, kernel_CIO)
        return y_CBO.reshape(size * n_blocks, -1)

    rows_SM = x_NM.at[token_S].get(mode="fill", fill_value=0)
    y_SM = multiply(activate(*(multiply(rows_SM, up_EMF) for up_EMF in kernels[:-1])), kernels[-1])
    return jnp.sum(y_SM[slot_R].reshape(N, K, -1) * gate_NK[:, :, None], axis=1)
