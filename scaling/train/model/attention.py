"""Causal self-attention with any number of key-value heads, over sequences or through a cache."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
from jax import Array

from scaling.train.model.cpu_kernels import (
    Slopes,
    attend_block,
    causal_attention,
    causal_attention_reference,
)
from scaling.train.model.operations import FLOAT32, Compute
from scaling.train.sharding import BATCH, TENSOR, over_devices


class Cache(NamedTuple):
    """Keys and values of one layer for S tokens; rows after the current length are not written."""

    k_BSGK: Array
    v_BSGK: Array

    def write(self, k_BTGK: Array, v_BTGK: Array, start: Array | int) -> Cache:
        """The cache with the keys and values of tokens start .. start + T."""

        def update(old: Array, new: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), start, axis=1)

        return Cache(update(self.k_BSGK, k_BTGK), update(self.v_BSGK, v_BTGK))


def attend(
    q_BTHK: Array,
    k_BSGK: Array,
    v_BSGK: Array,
    slopes: Slopes = None,
    start: Array | int | None = None,
    scale: float | None = None,
    *,
    on_cpu: bool = True,
    document_BT: Array | None = None,
) -> Array:
    """Softmax attention of each query to the keys at or before it, float32 (B, T, H, K).

    n_heads / n_kv_heads queries share a key (Ainslie 2023): H = G is MHA, G = 1 is MQA. Scores are
    multiplied by `scale`, by default 1 / sqrt(d_head) (Vaswani 2017, eq. 1), and lose `slopes`
    per token of distance (`positions.Encoding`). With `start` the
    queries stand at start .. start + T of the S keys. With `document_BT` a query attends to keys of
    its own document alone.
    """
    B, T, H, K = q_BTHK.shape
    G = k_BSGK.shape[2]
    scaled_BTHK = (q_BTHK * (scale or K**-0.5)).astype(q_BTHK.dtype)
    q_BGJTK = scaled_BTHK.reshape(B, T, G, H // G, K).transpose(0, 2, 3, 1, 4)
    k_BGSK, v_BGSK = k_BSGK.transpose(0, 2, 1, 3), v_BSGK.transpose(0, 2, 1, 3)
    if document_BT is not None:
        out_BGJTK = causal_attention_reference(q_BGJTK, k_BGSK, v_BGSK, slopes, document_BT)
    elif start is None:
        out_BGJTK = causal_attention(q_BGJTK, k_BGSK, v_BGSK, slopes, on_cpu)
    else:
        out_BGQK, _, _ = attend_block(q_BGJTK, k_BGSK, v_BGSK, slopes, start, on_cpu)
        out_BGJTK = out_BGQK.reshape(q_BGJTK.shape)
    return out_BGJTK.transpose(0, 3, 1, 2, 4).reshape(B, T, H, K)


def attend_fused(
    q_BTHK: Array,
    k_BSGK: Array,
    v_BSGK: Array,
    scale: float | None = None,
    compute: Compute = FLOAT32,
    document_BT: Array | None = None,
) -> Array:
    """`attend` by the device's own kernel, which keeps no T x S array, in the operands' dtype.

    cuDNN's flash attention on an NVIDIA GPU, splash attention (Pallas) on a TPU.
    """
    if compute.kind != "tpu":
        kernel = "cudnn" if compute.kind == "gpu" else None
        mask_B1TS = None
        if document_BT is not None:
            mask_B1TS = (document_BT[:, :, None] == document_BT[:, None, :])[:, None]
        return jax.nn.dot_product_attention(
            q_BTHK,
            k_BSGK,
            v_BSGK,
            mask=mask_B1TS,
            scale=scale,
            is_causal=True,
            implementation=kernel,  # type: ignore[arg-type]
        )
    attend_shard: Any = functools.partial(_splash, scale=scale or q_BTHK.shape[-1] ** -0.5)
    documents = () if document_BT is None else (document_BT,)
    arrays = q_BTHK, k_BSGK, v_BSGK, *documents
    return over_devices(attend_shard, (BATCH, None, TENSOR), *arrays)  # type: ignore[no-any-return]


def _splash(
    q_BTHK: Array,
    k_BSGK: Array,
    v_BSGK: Array,
    document_BT: Array | None = None,
    *,
    scale: float,
) -> Array:
    """On one TPU."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as splash,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    B, T, H, K = q_BTHK.shape
    G = k_BSGK.shape[2]
    block = next(size for size in (512, 256, 128) if T % size == 0)
    blocks = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        use_fused_bwd_kernel=True,
    )
    mask = masks.MultiHeadMask([masks.CausalMask((T, T)) for _ in range(H // G)])
    attend_group = splash.make_splash_mqa(mask, head_shards=1, q_seq_shards=1, block_sizes=blocks)
    q_BGJTK = (q_BTHK * scale).astype(q_BTHK.dtype).reshape(B, T, G, H // G, K)
    operands = (
        q_BGJTK.transpose(0, 2, 3, 1, 4),
        k_BSGK.transpose(0, 2, 1, 3),
        v_BSGK.transpose(0, 2, 1, 3),
    )
    if document_BT is None:
        out_BGJTK = jax.vmap(jax.vmap(attend_group))(*operands)
    else:
        segments = splash.SegmentIds(document_BT, document_BT)
        over_groups = jax.vmap(attend_group, in_axes=(0, 0, 0, None))
        out_BGJTK = jax.vmap(over_groups)(*operands, segments)
    return out_BGJTK.transpose(0, 3, 1, 2, 4).reshape(B, T, H, K)
