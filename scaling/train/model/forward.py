"""The forward pass as pure functions of parameters and tokens: embed, blocks, norm, head.

Layers are unrolled, or scanned over stacked parameters, with or without rematerialisation: choices
of execution that give the same numbers up to rounding. Modules are merged inside the functions, so
a caller sees only arrays. Activations are (N, M) with N = B x T throughout.
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
from scaling.train.model.operations import FLOAT32, Compute, compute_of, keeps_attention
from scaling.train.model.transformer import Block, Transformer
from scaling.train.sharding import BATCH, constrain_activation

Caches = tuple[Cache, ...]
PLAIN = Execution(layers="unrolled")


def make_backbone(
    cfg: ModelConfig,
    seq_len: int,
    precision: Precision,
    execution: Execution = PLAIN,
    separator: int | None = None,
) -> Callable[[Any, jax.Array], tuple[jax.Array, jax.Array, jax.Array | None]]:
    """The function `(params, tokens_BT) -> x_NM, weight, balance`.

    The head's input and its matrix; the load-balance loss, summed over layers, of a mixture of
    experts.

    With `execution.layers == "scan"` the parameters are those of `stack`. Token ids are not checked
    here: an id outside the vocabulary would read some other row. Attention does not cross
    `separator`, the token that ends a document.
    """
    compute = compute_of(precision, execution)
    graphs = _graphdefs(cfg, seq_len, compute)

    def backbone(
        params: dict[str, Any], tokens_BT: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        model = _merge_outer(graphs, params)
        x_NM, context = model.embed(tokens_BT, tokens_BT.shape[1])
        context = context._replace(fused=execution.attention == "fused")
        if separator is not None:
            ends_BT = (tokens_BT == separator).astype(jnp.int32)
            context = context._replace(document_BT=jnp.cumsum(ends_BT, axis=1) - ends_BT)

        def block(x_NM: jax.Array, block_params: Any) -> tuple[jax.Array, jax.Array | None]:
            x_NM, _, balance = nnx.merge(graphs[1], block_params)(x_NM, context, None)
            return constrain_activation(x_NM, BATCH), balance

        run_block = block if execution.remat == "none" else _rematerialised(block, execution)
        x_NM, blocks = constrain_activation(x_NM, BATCH), params["blocks"]
        if execution.layers == "scan":
            x_NM, balances = jax.lax.scan(run_block, x_NM, blocks)
        else:
            balances = []
            for i in range(cfg.n_layers):
                x_NM, balance = run_block(x_NM, blocks[i])
                balances.append(balance)
        total = jnp.sum(jnp.asarray(balances)) if cfg.n_experts > 1 else None
        return model.final_hidden(x_NM), model.output_embedding, total

    return backbone


def make_forward(
    cfg: ModelConfig,
    seq_len: int,
    precision: Precision = "float32",
    execution: Execution = PLAIN,
) -> Callable[[Any, jax.Array], jax.Array]:
    """The pure function `(params, tokens_BT) -> logits_BTV` (float32), for use inside `jax.jit`.

    `precision` is that of the operands of products; parameters, sums and all else stay float32.
    """
    backbone = make_backbone(cfg, seq_len, precision, execution)
    head = LMHead(compute_of(precision, execution), cfg.tie_embeddings)

    def forward(params: Any, tokens_BT: jax.Array) -> jax.Array:
        x_NM, weight, _ = backbone(params, tokens_BT)
        return logits_NV(x_NM, weight, head).reshape(*tokens_BT.shape, -1)

    return forward


def make_decode(
    cfg: ModelConfig, seq_len: int, compute: Compute = FLOAT32
) -> Callable[..., tuple[jax.Array, Caches]]:
    """The pure function `(params, tokens_BT, caches, start) -> logits_BTV, caches`.

    The tokens stand at start .. start + T.
    """
    graphs = _graphdefs(cfg, seq_len, compute)
    head = LMHead(compute, cfg.tie_embeddings)

    def decode(
        params: Any, tokens_BT: jax.Array, caches: Caches, start: jax.Array | int
    ) -> tuple[jax.Array, Caches]:
        model, new_caches = _merge_outer(graphs, params), []
        x_NM, context = model.embed(tokens_BT, caches[0].k_BSGK.shape[1], start)
        for i in range(cfg.n_layers):
            block = nnx.merge(graphs[1], params["blocks"][i])
            x_NM, cache, _ = block(x_NM, context, caches[i])
            new_caches.append(cache)
        logits = logits_NV(model.final_hidden(x_NM), model.output_embedding, head)
        return logits.reshape(*tokens_BT.shape, -1), tuple(new_caches)

    return decode


@functools.lru_cache(maxsize=256)
def _graphdefs(cfg: ModelConfig, seq_len: int, compute: Compute) -> tuple[Any, Any]:
    """Of the model without its blocks, and of one block."""
    outer = nnx.graphdef(Transformer(cfg, seq_len, compute, with_blocks=False))
    return outer, nnx.graphdef(Block(cfg, compute))


def _merge_outer(graphs: tuple[Any, Any], params: dict[str, Any]) -> Transformer:
    outer = {name: value for name, value in params.items() if name != "blocks"}
    return nnx.merge(graphs[0], outer)  # type: ignore[no-any-return]


def _rematerialised(block: Callable[..., Any], execution: Execution) -> Callable[..., Any]:
    policy: Any = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    if execution.remat == "block":
        policy = keeps_attention if execution.attention == "fused" else None
    return jax.checkpoint(block, prevent_cse=execution.layers != "scan", policy=policy)


def stack(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters (or their moments) with all blocks as one, each leaf with an axis of layers."""
    blocks = [params["blocks"][i] for i in range(len(params["blocks"]))]
    return params | {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}


def unstack(params: dict[str, Any], n_layers: int) -> dict[str, Any]:
    """The inverse of `stack`."""
    blocks = {i: jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"]) for i in range(n_layers)}
    return params | {"blocks": blocks}
