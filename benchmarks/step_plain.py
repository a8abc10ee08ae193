"""The yardstick of `steps.py`, which needs no peer: a transformer as one writes it in plain jax and
optax, without tricks.

`python -m benchmarks.step_plain CELL` is nanoGPT's architecture with (batch, time, width)
activations, attention by einsum,
a loop over layers, `optax.adamw` behind a clip, and one `jax.jit` with donated state. `python -m
benchmarks.step_plain peak`
is the machine's float32 matmul instead: seconds of one product of two 1024 x 1024 matrices.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.step_serve import seconds_per_step, serve

BATCHES = 8
PEAK_SIDE = 1024


def initial(cell: dict[str, Any]) -> dict[str, Any]:
    """Parameters: tied embedding, learned positions, blocks of four matrices,
    gains of LayerNorm.
    """
    random, d = np.random.default_rng(0), cell["d_model"]

    def matrix(*shape: int) -> jax.Array:
        return jnp.asarray(0.02 * random.standard_normal(shape), jnp.float32)

    def block() -> dict[str, jax.Array]:
        return {
            "ln1": jnp.ones(d),
            "qkv": matrix(d, 3 * d),
            "out": matrix(d, d),
            "ln2": jnp.ones(d),
            "up": matrix(d, 4 * d),
            "down": matrix(4 * d, d),
        }

    blocks = [block() for _ in range(cell["n_layers"])]
    return {
        "wte": matrix(cell["vocab_size"], d),
        "wpe": matrix(cell["seq_len"], d),
        "blocks": blocks,
        "ln": jnp.ones(d),
    }


def layer_norm(x_BTM: jax.Array, gain_M: jax.Array) -> jax.Array:
    """LayerNorm without a bias."""
    centred = x_BTM - x_BTM.mean(-1, keepdims=True)
    return gain_M * centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)


def attention(x_BTM: jax.Array, block: dict[str, jax.Array], n_heads: int) -> jax.Array:
    """Causal softmax attention."""
    B, T, M = x_BTM.shape
    q_BTHK, k_BTHK, v_BTHK = (
        part.reshape(B, T, n_heads, -1) for part in jnp.split(x_BTM @ block["qkv"], 3, axis=-1)
    )
    scores_BHTS = jnp.einsum("bthk,bshk->bhts", q_BTHK, k_BTHK) / jnp.sqrt(M // n_heads)
    scores_BHTS = jnp.where(jnp.tril(jnp.ones((T, T), bool)), scores_BHTS, -jnp.inf)
    mixed_BTHK = jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores_BHTS, axis=-1), v_BTHK)
    return mixed_BTHK.reshape(B, T, M) @ block["out"]


def loss(params: dict[str, Any], tokens_BT1: jax.Array, n_heads: int) -> jax.Array:
    """Mean cross-entropy of the next token."""
    tokens_BT, targets_BT = tokens_BT1[:, :-1], tokens_BT1[:, 1:]
    x_BTM = params["wte"][tokens_BT] + params["wpe"]
    for block in params["blocks"]:
        x_BTM = x_BTM + attention(layer_norm(x_BTM, block["ln1"]), block, n_heads)
        x_BTM = x_BTM + jax.nn.gelu(layer_norm(x_BTM, block["ln2"]) @ block["up"]) @ block["down"]
    logits_BTV = layer_norm(x_BTM, params["ln"]) @ params["wte"].T
    return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, targets_BT).mean()


def plain(cell: dict[str, Any]) -> tuple[Callable[[int], object], dict[str, Any]]:
    """The training step."""
    adamw = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-3, b2=0.95, weight_decay=0.1)
    )
    params = initial(cell)
    state = params, adamw.init(params)
    tokens = np.random.default_rng(0).integers(
        0, cell["vocab_size"], (BATCHES, cell["batch"], cell["seq_len"] + 1), dtype=np.int32
    )

    def step(state: Any, tokens_BT1: jax.Array) -> tuple[Any, jax.Array]:
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params, tokens_BT1, cell["n_heads"])
        updates, moments = adamw.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    program = jax.jit(step, donate_argnums=0)

    def take(count: int) -> None:
        nonlocal state
        for i in range(count):
            state, value = program(state, tokens[i % BATCHES])
        jax.block_until_ready((state, value))

    return take, {
        "n_params": sum(leaf.size for leaf in jax.tree.leaves((params["blocks"], params["ln"])))
    }


def peak() -> tuple[Callable[[int], object], dict[str, Any]]:
    """Square float32 matmuls."""
    side = jnp.asarray(
        np.random.default_rng(0).standard_normal((PEAK_SIDE, PEAK_SIDE)), jnp.float32
    )
    product = jax.jit(jnp.matmul)

    def take(count: int) -> None:
        for _ in range(count):
            product(side, side).block_until_ready()

    return take, {
        "flops": 2 * PEAK_SIDE**3,
        "versions": {"jax": jax.__version__, "optax": optax.__version__},
    }


def main() -> None:
    """Get ready, warm up, serve."""
    take, facts = peak() if sys.argv[1] == "peak" else plain(json.loads(sys.argv[1]))
    take(2)
    serve(lambda: seconds_per_step(take), facts)


if __name__ == "__main__":
    main()
