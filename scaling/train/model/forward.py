"""Parameters and tokens in, logits or losses out: the pure functions of a model that a program compiles.

The layers are unrolled, or scanned over stacked parameters, with or without rematerialisation: choices of execution that
give the same numbers up to rounding. Modules are merged inside the functions, so that whoever trains sees only arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from scaling.config import Execution, ModelConfig, Precision
from scaling.train.model.attention import Cache
from scaling.train.model.loss import LMHead, logits_NV
from scaling.train.model.transformer import Block, Transformer
from scaling.train.sharding import BATCH, constrain_activation, constrain_embeddings

Caches = tuple[Cache, ...]
PLAIN = Execution(layers="unrolled")


@functools.lru_cache(maxsize=256)
def _outer_graphdef(cfg: ModelConfig, seq_len: int, precision: Precision) -> Any:
    return nnx.graphdef(Transformer(cfg, seq_len, precision, with_blocks=False))


@functools.lru_cache(maxsize=256)
def _block(cfg: ModelConfig, precision: Precision) -> Any:
    return nnx.graphdef(Block(cfg, precision))


def stack(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters (or their moments) with all blocks as one, every leaf with a leading axis of layers."""
    blocks = [params["blocks"][i] for i in range(len(params["blocks"]))]
    return params | {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}


def unstacked(params: dict[str, Any], n_layers: int) -> dict[str, Any]:
    """The inverse of `stack`."""
    blocks = {i: jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"]) for i in range(n_layers)}
    return params | {"blocks": blocks}


def make_backbone(
    cfg: ModelConfig, seq_len: int, precision: Precision, how: Execution = PLAIN
) -> Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]:
    """The function `(params, tokens_BT) -> x_NM, head`: what the last matrix reads after the blocks, and that matrix.

    With `how.layers == "scan"` the parameters are those of `stack`. Token ids are not checked here: an id outside the
    vocabulary would read some other row.
    """
    outside, block = _outer_graphdef(cfg, seq_len, precision), _block(cfg, precision)

    def run(params: dict[str, Any], tokens_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = params | constrain_embeddings(params)
        model = nnx.merge(
            outside, {name: value for name, value in params.items() if name != "blocks"}
        )
        x_NM, place = model.embed(tokens_BT, tokens_BT.shape[1])
        place = place._replace(fused=how.attention == "fused")

        def layer(x_NM: jax.Array, block_params: Any) -> jax.Array:
            return constrain_activation(nnx.merge(block, block_params)(x_NM, place, None)[0], BATCH)

        x_NM = _apply_blocks(
            layer, constrain_activation(x_NM, BATCH), params["blocks"], cfg.n_layers, how
        )
        return model.last(x_NM), model.head

    return run


def _apply_blocks(
    layer: Callable[..., jax.Array], x_NM: jax.Array, blocks: Any, n_layers: int, how: Execution
) -> jax.Array:
    if how.remat == "block":
        layer = jax.checkpoint(layer, prevent_cse=how.layers != "scan")
    elif how.remat == "products":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        layer = jax.checkpoint(layer, prevent_cse=how.layers != "scan", policy=policy)
    if how.layers == "scan":
        return jax.lax.scan(lambda x_NM, params: (layer(x_NM, params), None), x_NM, blocks)[0]
    for i in range(n_layers):
        x_NM = layer(x_NM, blocks[i])
    return x_NM


def make_forward(
    cfg: ModelConfig, seq_len: int, precision: Precision = "float32", how: Execution = PLAIN
) -> Callable[[Any, jax.Array], jax.Array]:
    """The pure function `logits(params, tokens_BT) -> logits_BTV` (float32) of a configuration, for use inside `jax.jit`.

    `precision` is that of the operands of products; parameters, sums and everything else stay float32.
    """
    run = make_backbone(cfg, seq_len, precision, how)

    def logits(params: Any, tokens_BT: jax.Array) -> jax.Array:
        x_NM, head = run(params, tokens_BT)
        return logits_NV(x_NM, head, LMHead(precision, cfg.tie_embeddings)).reshape(
            *tokens_BT.shape, -1
        )

    return logits


def make_decode(
    cfg: ModelConfig, seq_len: int, precision: Precision = "float32"
) -> Callable[..., tuple[jax.Array, Caches]]:
    """The pure function `(params, tokens_BT, caches, start) -> logits_BTV, caches` for tokens at start .. start + T."""
    outside, block = _outer_graphdef(cfg, seq_len, precision), _block(cfg, precision)

    def run(
        params: Any, tokens_BT: jax.Array, caches: Caches, start: jax.Array | int
    ) -> tuple[jax.Array, Caches]:
        model = nnx.merge(
            outside, {name: value for name, value in params.items() if name != "blocks"}
        )
        x_NM, place = model.embed(tokens_BT, caches[0].k_BSGK.shape[1], start)
        written: list[Any] = []
        for i in range(cfg.n_layers):
            x_NM, cache = nnx.merge(block, params["blocks"][i])(x_NM, place, caches[i])
            written.append(cache)
        logits = logits_NV(model.last(x_NM), model.head, LMHead(precision, cfg.tie_embeddings))
        return logits.reshape(*tokens_BT.shape, -1), tuple(written)

    return run
