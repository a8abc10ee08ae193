"""Causal self-attention with any number of key-value heads, over sequences or through a cache."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from scaling.train.model.cpu_kernels import attend_block, causal_attention


class Cache(NamedTuple):
    """Keys and values of one layer for S tokens; rows after the current length are not written."""

    k_BSGK: jax.Array
    v_BSGK: jax.Array

    def write(self, k_BTGK: jax.Array, v_BTGK: jax.Array, start: jax.Array | int) -> Cache:
        """The cache with the keys and values of tokens start .. start + T."""

        def update(old: jax.Array, new: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), start, axis=1)

        return Cache(update(self.k_BSGK, k_BTGK), update(self.v_BSGK, v_BTGK))


def attend(
    q_BTHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGK: jax.Array,
    alibi: bool,
    start: jax.Array | int | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Softmax attention of each query to the keys at or before it, float32 (B, T, H, K).

    n_heads / n_kv_heads queries share a key (Ainslie 2023): H = G is MHA, G = 1 is MQA. Scores are
    multiplied by `scale`, by default 1 / sqrt(d_head) (Vaswani 2017, eq. 1). With `start` the
    queries stand at start .. start + T of the S keys.
    """
    B, T, H, K = q_BTHK.shape
    G = k_BSGK.shape[2]
    scaled_BTHK = (q_BTHK * (scale or K**-0.5)).astype(q_BTHK.dtype)
    q_BGJTK = scaled_BTHK.reshape(B, T, G, H // G, K).transpose(0, 2, 3, 1, 4)
    k_BGSK, v_BGSK = k_BSGK.transpose(0, 2, 1, 3), v_BSGK.transpose(0, 2, 1, 3)
    if start is None:
        out_BGJTK = causal_attention(q_BGJTK, k_BGSK, v_BGSK, alibi)
    else:
        out_BGJTK = attend_block(q_BGJTK, k_BGSK, v_BGSK, alibi, start)[0].reshape(q_BGJTK.shape)
    return out_BGJTK.transpose(0, 3, 1, 2, 4).reshape(B, T, H, K)


def attend_fused(
    q_BTHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, scale: float | None = None
) -> jax.Array:
    """`attend` by the device's own kernel, which keeps no T x S array; float32 (B, T, H, K).

    On an NVIDIA GPU that is cuDNN's flash attention.
    """
    kernel: Literal["cudnn"] | None = "cudnn" if jax.default_backend() == "gpu" else None
    mixed_BTHK = jax.nn.dot_product_attention(
        q_BTHK, k_BSGK, v_BSGK, scale=scale, is_causal=True, implementation=kernel
    )
    return mixed_BTHK.astype(jnp.float32)
