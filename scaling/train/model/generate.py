"""Sampling from a trained model, one token at a time through a cache of keys and values."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.config import ModelConfig, Precision
from scaling.errors import ScalingError
from scaling.train.model.attention import Cache
from scaling.train.model.forward import Caches, make_decode


def empty_caches(
    cfg: ModelConfig, batch: int, length: int, precision: Precision = "float32"
) -> Caches:
    """One cache a layer for `length` tokens of `batch` sequences; `accounting.kv_cache_bytes` is their size."""
    blank = jnp.zeros((batch, length, cfg.n_kv_heads, cfg.d_head), precision)
    return tuple(Cache(blank, blank) for _ in range(cfg.n_layers))


def prefill(
    cfg: ModelConfig,
    params: Any,
    prompt_BT: jax.Array,
    length: int,
    precision: Precision = "float32",
) -> tuple[jax.Array, Caches]:
    """Logits (B, T, V) of a prompt, and caches of `length` >= T tokens that hold it."""
    caches = empty_caches(cfg, prompt_BT.shape[0], length, precision)
    return make_decode(cfg, length, precision)(params, prompt_BT, caches, 0)


def decode_step(
    cfg: ModelConfig,
    params: Any,
    token_B: jax.Array,
    caches: Caches,
    position: jax.Array | int,
    precision: Precision = "float32",
) -> tuple[jax.Array, Caches]:
    """Logits (B, V) after one more token, which stands at `position`, and the caches that hold it too."""
    length = caches[0].k_BSGK.shape[1]
    logits_BTV, caches = make_decode(cfg, length, precision)(
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
    precision: Precision = "float32",
) -> tuple[jax.Array, jax.Array]:
    """`samples` continuations of each prompt at temperature 1, or one greedy one where `key` is None; for use inside `jax.jit`.

    Tokens, int32 (B, samples, n_new), and the log-likelihood in nats of each continuation (B, samples). A prompt is read once,
    and its keys and values are copied for its samples. The last token is never read, so T + n_new - 1 positions suffice.
    """
    B, T = prompt_BT.shape

    def choose(logits_NV: jax.Array, i: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        logits_NV = jax.nn.log_softmax(logits_NV)
        token_N = (
            logits_NV.argmax(axis=-1)
            if key is None
            else jax.random.categorical(jax.random.fold_in(key, i), logits_NV)
        )
        return token_N.astype(jnp.int32), jnp.take_along_axis(logits_NV, token_N[:, None], axis=-1)[
            :, 0
        ]

    def step(
        carry: tuple[jax.Array, Caches], i: jax.Array
    ) -> tuple[tuple[jax.Array, Caches], tuple[jax.Array, jax.Array]]:
        logits_NV, caches = decode_step(cfg, params, carry[0], carry[1], T - 1 + i, precision)
        token_N, likelihood_N = choose(logits_NV, i)
        return (token_N, caches), (token_N, likelihood_N)

    logits_BTV, caches = prefill(cfg, params, prompt_BT, T + n_new - 1, precision)
    caches = jax.tree.map(lambda rows: jnp.repeat(rows, samples, axis=0), caches)
    first_N, likelihood_N = choose(jnp.repeat(logits_BTV[:, -1], samples, axis=0), 0)
    _, (rest_IN, more_IN) = jax.lax.scan(step, (first_N, caches), jnp.arange(1, n_new))
    token_NI = jnp.concatenate([first_N[None], rest_IN]).T
    return token_NI.reshape(B, samples, n_new), (likelihood_N + more_IN.sum(axis=0)).reshape(
        B, samples
    )


def generate(
    cfg: ModelConfig,
    params: Any,
    prompt_BT: np.ndarray,
    n_new: int,
    key: jax.Array,
    temperature: float = 1.0,
    precision: Precision = "float32",
) -> jax.Array:
    """Continue each prompt by `n_new` tokens, int32 (B, n_new); temperature 0 takes the likeliest token.

    Raises ScalingError for an empty prompt, ids outside the vocabulary, or more tokens than the model has positions for.
    """
    prompt_BT = np.asarray(prompt_BT)
    length = prompt_BT.shape[1] + n_new
    if prompt_BT.size == 0 or n_new < 1:
        raise ScalingError(
            "nothing to continue",
            remedy="give at least one token of prompt and ask for at least one new token",
        )
    if prompt_BT.min() < 0 or prompt_BT.max() >= cfg.vocab_size:
        raise ScalingError(
            f"token ids from {prompt_BT.min()} to {prompt_BT.max()} in the prompt",
            remedy=f"the vocabulary is 0 .. {cfg.vocab_size - 1}",
        )
    if not temperature >= 0.0:
        raise ScalingError(
            f"temperature = {temperature} is not a number from 0 on",
            remedy="0 takes the likeliest token, 1 samples as trained",
        )
    if cfg.pos == "learned" and length > (known := params["position"].shape[0]):
        raise ScalingError(
            f"{length} tokens exceed the {known} positions that the model has learned",
            remedy="shorten the prompt or n_new",
        )
    return _sample(
        cfg,
        n_new,
        temperature == 0.0,
        precision,
        params,
        prompt_BT.astype(np.int32),
        key,
        temperature or 1.0,
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _sample(
    cfg: ModelConfig,
    n_new: int,
    greedy: bool,
    precision: Precision,
    params: Any,
    prompt_BT: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    T = prompt_BT.shape[1]

    def choose(logits_BV: jax.Array, i: jax.Array | int) -> jax.Array:
        if greedy:
            return logits_BV.argmax(axis=-1).astype(jnp.int32)
        return jax.random.categorical(jax.random.fold_in(key, i), logits_BV / temperature).astype(
            jnp.int32
        )

    def step(
        carry: tuple[jax.Array, Caches], i: jax.Array
    ) -> tuple[tuple[jax.Array, Caches], jax.Array]:
        logits_BV, caches = decode_step(cfg, params, carry[0], carry[1], T - 1 + i, precision)
        token_B = choose(logits_BV, i)
        return (token_B, caches), token_B

    logits_BTV, caches = prefill(cfg, params, prompt_BT, T + n_new, precision)
    first_B = choose(logits_BTV[:, -1], 0)
    _, rest_IB = jax.lax.scan(step, (first_B, caches), jnp.arange(1, n_new))
    return jnp.concatenate([first_B[None], rest_IB]).T
