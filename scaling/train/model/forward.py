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
from jax import Array

from scaling.config import Execution, ModelConfig, Precision
from scaling.train.model.loss import LMHead, logits_NV
from scaling.train.model.operations import Compute, keeps_attention
from scaling.train.model.transformer import Block, Transformer
from scaling.train.program import ProgramKey
from scaling.train.sharding import BATCH, constrain_activation

PLAIN = Execution(layers="unrolled")


def make_backbone(key: ProgramKey) -> Callable[[Any, Array], tuple[Array, Array, Array | None]]:
    """The function `(params, tokens_BT) -> x_NM, weight, balance`.

    The head's input and its matrix; the load-balance loss, summed over layers, of a mixture of
    experts.

    With `execution.layers == "scan"` the parameters are those of `stack`. Token ids are not checked
    here: an id outside the vocabulary would read some other row. Attention does not cross the
    `document_separator`, the token that ends a document.
    """
    cfg, execution, separator = key.model, key.execution, key.document_separator

    def backbone(params: dict[str, Any], tokens_BT: Array) -> tuple[Array, Array, Array | None]:
        model, merge_block = merge(cfg, key.seq_len, key.compute, params)
        x_NM, context = model.embed(tokens_BT, tokens_BT.shape[1])
        context = context._replace(fused=execution.attention == "fused")
        if separator is not None:
            ends_BT = (tokens_BT == separator).astype(jnp.int32)
            context = context._replace(document_BT=jnp.cumsum(ends_BT, axis=1) - ends_BT)

        def block(x_NM: Array, block_params: Any) -> Any:
            x_NM, _, balance = merge_block(block_params)(x_NM, context, None)
            return constrain_activation(x_NM, BATCH), balance

        is_scanned = execution.layers == "scan"
        if execution.remat == "block":
            policy: Any = keeps_attention if context.fused else None
            block = jax.checkpoint(block, prevent_cse=not is_scanned, policy=policy)
        x_NM, blocks = constrain_activation(x_NM, BATCH), params["blocks"]
        if is_scanned:
            x_NM, balances = jax.lax.scan(block, x_NM, blocks)
        else:
            balances = [None] * cfg.n_layers
            for i in range(cfg.n_layers):
                x_NM, balances[i] = block(x_NM, blocks[i])
        total = jnp.sum(jnp.asarray(balances)) if cfg.n_experts > 1 else None
        return model.final_hidden(x_NM), model.output_embedding, total

    return backbone


def make_forward(
    cfg: ModelConfig,
    seq_len: int,
    precision: Precision = "float32",
    execution: Execution = PLAIN,
) -> Callable[[Any, Array], Array]:
    """The pure function `(params, tokens_BT) -> logits_BTV` (float32), for use inside `jax.jit`.

    `precision` is that of the operands of products; parameters, sums and all else stay float32.
    """
    key = ProgramKey(cfg, seq_len, execution, precision)
    backbone, head = make_backbone(key), LMHead(key.compute, cfg.tie_embeddings)

    def forward(params: Any, tokens_BT: Array) -> Array:
        x_NM, weight, _ = backbone(params, tokens_BT)
        return logits_NV(x_NM, weight, head).reshape(*tokens_BT.shape, -1)

    return forward


def merge(
    cfg: ModelConfig, seq_len: int, compute: Compute, params: dict[str, Any]
) -> tuple[Transformer, Callable[[Any], Block]]:
    """The model without its blocks, and the function from the parameters of one block to it."""
    outer = nnx.graphdef(Transformer(cfg, seq_len, compute, with_blocks=False))
    block = nnx.graphdef(Block(cfg, compute))
    rest = {name: value for name, value in params.items() if name != "blocks"}
    return nnx.merge(outer, rest), functools.partial(nnx.merge, block)


def stack(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters (or their moments) with all blocks as one, each leaf with an axis of layers."""
    blocks = [params["blocks"][i] for i in range(len(params["blocks"]))]
    return params | {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}


def unstack(params: dict[str, Any], n_layers: int) -> dict[str, Any]:
    """The inverse of `stack`."""
    blocks = {i: jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"]) for i in range(n_layers)}
    return params | {"blocks": blocks}
