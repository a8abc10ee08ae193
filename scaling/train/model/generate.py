"""Generation one token at a time, through a cache of keys and values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from scaling.config import ModelConfig
from scaling.train.model.attention import Cache
from scaling.train.model.forward import merge
from scaling.train.model.loss import LMHead, logits_NV
from scaling.train.model.operations import FLOAT32, Compute

Caches = tuple[Cache, ...]


def empty_caches(cfg: ModelConfig, batch: int, length: int, compute: Compute = FLOAT32) -> Caches:
    """A cache per layer for `length` tokens of `batch` sequences: `accounting.kv_cache_bytes`."""
    blank = jnp.zeros((batch, length, cfg.n_kv_heads, cfg.d_head), compute.precision)
    return (Cache(blank, blank),) * cfg.n_layers


def decode(
    cfg: ModelConfig,
    params: Any,
    tokens_BT: Array,
    caches: Caches,
    start: Array | int,
    compute: Compute = FLOAT32,
) -> tuple[Array, Caches]:
    """Logits (B, T, V) of tokens at start .. start + T, and the caches with them."""
    length, new_caches = caches[0].k_BSGK.shape[1], list(caches)
    model, merge_block = merge(cfg, length, compute, params)
    x_NM, context = model.embed(tokens_BT, length, start)
    for i, old in enumerate(caches):
        block: Any = merge_block(params["blocks"][i])
        x_NM, new_caches[i], _ = block(x_NM, context, old)
    head = LMHead(compute, cfg.tie_embeddings)
    logits = logits_NV(model.final_hidden(x_NM), model.output_embedding, head)
    return logits.reshape(*tokens_BT.shape, -1), tuple(new_caches)


def draws(
    cfg: ModelConfig,
    params: Any,
    prompt_BT: Array,
    n_new: int,
    samples: int,
    key: Array | None,
    compute: Compute = FLOAT32,
) -> tuple[Array, Array]:
    """`samples` continuations of each prompt at temperature 1, or a greedy one if `key` is None.

    Tokens, int32 (B, samples, n_new), and the log-likelihood in nats of each continuation (B,
    samples); for use inside `jax.jit`. A prompt is read once, and its keys and values are copied
    for its samples. The last token is never read, so T + n_new - 1 positions suffice.
    """
    B, T = prompt_BT.shape

    def choose(logits_NV: Array, i: Array | int) -> tuple[Array, Array]:
        logits_NV = jax.nn.log_softmax(logits_NV)
        if key is None:
            token_N = logits_NV.argmax(axis=-1)
        else:
            token_N = jax.random.categorical(jax.random.fold_in(key, i), logits_NV)
        likelihood_N1 = jnp.take_along_axis(logits_NV, token_N[:, None], axis=-1)
        return token_N.astype(jnp.int32), likelihood_N1[:, 0]

    def step(carry: tuple[Array, Caches], i: Array) -> tuple[Any, Any]:
        (token_N, caches), position = carry, T - 1 + i
        logits_N1V, caches = decode(cfg, params, token_N[:, None], caches, position, compute)
        token_N, likelihood_N = choose(logits_N1V[:, 0], i)
        return (token_N, caches), (token_N, likelihood_N)

    caches = empty_caches(cfg, B, T + n_new - 1, compute)
    logits_BTV, caches = decode(cfg, params, prompt_BT, caches, 0, compute)
    caches = jax.tree.map(lambda rows: jnp.repeat(rows, samples, axis=0), caches)
    first_N, likelihood_N = choose(jnp.repeat(logits_BTV[:, -1], samples, axis=0), 0)
    _, (rest_IN, more_IN) = jax.lax.scan(step, (first_N, caches), jnp.arange(1, n_new))
    token_NI = jnp.concatenate([first_N[None], rest_IN]).T
    likelihood_N += more_IN.sum(axis=0)
    return token_NI.reshape(B, samples, n_new), likelihood_N.reshape(B, samples)
