"""The compiled programs of a run: many training steps in one dispatch, and one evaluation over all held-out windows."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scaling.config import ModelConfig, Precision
from scaling.lm import optim
from scaling.lm.model import forward, init


class State(NamedTuple):
    """What a run carries from step to step; `step` counts finished updates."""

    params: Any
    moments: Any
    step: jax.Array


def token_nll(logits_BTV: jax.Array, targets_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood in nats and log-partition of each token, both of shape (B, T) and float32."""
    logits_BTV = logits_BTV.astype(jnp.float32)
    partition_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    picked_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return partition_BT - picked_BT, partition_BT


def initial_state(model: ModelConfig, seq_len: int, seed: int) -> State:
    """Parameters drawn from `seed`, zero moments, step 0."""
    params = init(model, seq_len, jax.random.key(seed))
    blank = optim.Hyper(*([jnp.float32(0.0)] * len(optim.Hyper._fields)))
    return State(params, optim.transform(blank, 0.0).init(params), jnp.int32(0))


@functools.lru_cache(maxsize=64)
def train_program(model: ModelConfig, seq_len: int, schedule: str, precision: Precision) -> Any:
    """`run(state, hyper, tokens_KBT1, n) -> state, losses_K, norms_K`: the first n <= K batches, one update each.

    n is traced, so one compilation serves every stretch between two measurements, and where a stretch ends cannot change
    the bits. Losses are nats per token without the z-loss term; entries beyond n are zero.
    """
    logits = forward(model, seq_len, precision)

    def objective(params: Any, tokens_BT1: jax.Array, z_loss: jax.Array) -> tuple[jax.Array, jax.Array]:
        nll_BT, partition_BT = token_nll(logits(params, tokens_BT1[:, :-1]), tokens_BT1[:, 1:])
        loss = nll_BT.mean()
        return loss + z_loss * jnp.square(partition_BT).mean(), loss

    def run(state: State, h: optim.Hyper, tokens_KBT1: jax.Array, n: jax.Array) -> tuple[State, jax.Array, jax.Array]:
        def one(i: jax.Array, carry: tuple[State, jax.Array, jax.Array]) -> tuple[State, jax.Array, jax.Array]:
            (params, moments, step), losses_K, norms_K = carry
            tokens_BT1 = jax.lax.dynamic_index_in_dim(tokens_KBT1, i, keepdims=False).astype(jnp.int32)
            gradient, loss = jax.grad(objective, has_aux=True)(params, tokens_BT1, h.z_loss)
            params, moments, norm = optim.update(schedule, h, params, moments, gradient, step)
            return State(params, moments, step + 1), losses_K.at[i].set(loss), norms_K.at[i].set(norm)

        blank_K = jnp.zeros(tokens_KBT1.shape[0], jnp.float32)
        return jax.lax.fori_loop(0, n, one, (state, blank_K, blank_K))

    return jax.jit(run, donate_argnums=0)


@functools.lru_cache(maxsize=64)
def eval_program(model: ModelConfig, seq_len: int, precision: Precision) -> Any:
    """`measure(params, tokens_MBT1) -> nll_MB`: mean nats per token of every held-out window."""
    logits = forward(model, seq_len, precision)

    def one(params: Any, tokens_BT1: jax.Array) -> jax.Array:
        nll_BT, _ = token_nll(logits(params, tokens_BT1[:, :-1].astype(jnp.int32)), tokens_BT1[:, 1:].astype(jnp.int32))
        return nll_BT.mean(axis=-1)

    return jax.jit(lambda params, tokens_MBT1: jax.lax.map(functools.partial(one, params), tokens_MBT1))
