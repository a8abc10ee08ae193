"""Generation one token at a time, through a cache of keys and values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from scaling.config import ModelConfig
from scaling.train.model.attention import Cache
from scaling.train.model.forward import Caches, make_decode
from scaling.train.model.operations import FLOAT32, Compute


def empty_caches(cfg: ModelConfig, batch: int, length: int, compute: Compute = FLOAT32) -> Caches:
    """A cache per layer for `length` tokens of `batch` sequences: `accounting.kv_cache_bytes`."""
    blank = jnp.zeros((batch, length, cfg.n_kv_heads, cfg.d_head), compute.precision)
    return tuple(Cache(blank, blank) for _ in range(cfg.n_layers))


def prefill(
    cfg: ModelConfig,
    params: Any,
    prompt_BT: jax.Array,
    length: int,
    compute: Compute = FLOAT32,
) -> tuple[jax.Array, Caches]:
    """Logits (B, T, V) of a prompt, and its caches with space for `length` tokens."""
    caches = empty_caches(cfg, prompt_BT.shape[0], length, compute)
    return make_decode(cfg, length, compute)(params, prompt_BT, caches, 0)


def decode_step(
    cfg: ModelConfig,
    params: Any,
    token_B: jax.Array,
    caches: Caches,
    position: jax.Array | int,
    compute: Compute = FLOAT32,
) -> tuple[jax.Array, Caches]:
    """Logits (B, V) after one more token, at `position`, and the caches with it."""
    length = caches[0].k_BSGK.shape[1]
    logits_BTV, caches = make_decode(cfg, length, compute)(
        params, token_B[:, None], caches, position
    )
    return logits_BTV[:, 0], caches


def draws(
    cfg: ModelConfig,
    params: Any,
    prompt_BT: jax.Array,
    n_new: int,
    samples: int,
    key: jax.Array | None,
    compute: Compute = FLOAT32,
) -> tuple[jax.Array, jax.Array]:
    """`samples` continuations of each prompt at temperature 1, or a greedy one if `key` is None.

    Tokens, int32 (B, samples, n_new), and the log-likelihood in nats of each continuation (B,
    samples); for use inside `jax.jit`. A prompt is read once, and its keys and values are copied
    for its samples. The last token is never read, so T + n_new - 1 positions suffice.
    """
    B, T = prompt_BT.shape

    def choose(logits_NV: jax.Array, i: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        logits_NV = jax.nn.log_softmax(logits_NV)
        if key is None:
            token_N = logits_NV.argmax(axis=-1)
        else:
            token_N = jax.random.categorical(jax.random.fold_in(key, i), logits_NV)
        likelihood_N1 = jnp.take_along_axis(logits_NV, token_N[:, None], axis=-1)
        return token_N.astype(jnp.int32), likelihood_N1[:, 0]

    def step(carry: tuple[jax.Array, Caches], i: jax.Array) -> tuple[Any, Any]:
        logits_NV, caches = decode_step(cfg, params, *carry, T - 1 + i, compute)
        token_N, likelihood_N = choose(logits_NV, i)
        return (token_N, caches), (token_N, likelihood_N)

    logits_BTV, caches = prefill(cfg, params, prompt_BT, T + n_new - 1, compute)
    caches = jax.tree.map(lambda rows: jnp.repeat(rows, samples, axis=0), caches)
    first_N, likelihood_N = choose(jnp.repeat(logits_BTV[:, -1], samples, axis=0), 0)
    _, (rest_IN, more_IN) = jax.lax.scan(step, (first_N, caches), jnp.arange(1, n_new))
    token_NI = jnp.concatenate([first_N[None], rest_IN]).T
    likelihood_N += more_IN.sum(axis=0)
    return token_NI.reshape(B, samples, n_new), likelihood_N.reshape(B, samples)
