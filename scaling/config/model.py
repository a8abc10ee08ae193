"""The transformer as configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from scaling.config.base import Frozen, Positive


class MuP(Frozen):
    """Learning rates of a base shape apply at every width: maximal-update parametrisation
    (Yang 2022, table 8), and with `base_depth` at every depth (CompleteP, Dey 2025, table 1, alpha
    = 1).

    At the base shape nothing changes. `base_head` is the head width there; without it the width of
    heads is taken to be fixed.
    """

    base_width: Positive
    base_head: Positive | None = None
    base_depth: Positive | None = None


class ModelConfig(Frozen):
    """A decoder-only transformer. MHA, GQA and MQA are a property of `n_kv_heads`: all, some, or
    one.

    `bias` adds biases to the projections and to LayerNorm; `ffn = "swiglu"` has three matrices of
    width `d_ff`; without `gains` the norms before attention, feed-forward and head multiply by
    nothing (gains spoil the transfer over widths, Lingle 2024). With `n_experts` above 1 each
    feed-forward part is a mixture of experts of width `d_ff`, `top_k` for each token (Fedus 2021);
    `load_balance` is the coefficient of its auxiliary loss.
    """

    n_layers: Positive
    d_model: Positive
    n_heads: Positive
    n_kv_heads: Positive
    d_head: Positive
    d_ff: Positive
    vocab_size: Annotated[int, Field(gt=1, le=2**31)]
    tie_embeddings: bool = False
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    pos: Literal["none", "learned", "sinusoidal", "rope", "alibi"] = "rope"
    ffn: Literal["gelu", "swiglu", "relu2"] = "gelu"
    qk_norm: bool = True
    bias: bool = False
    gains: bool = True
    n_experts: Annotated[int, Field(gt=0, le=4096)] = 1
    top_k: Positive = 1
    load_balance: Annotated[float, Field(ge=0.0, le=100.0)] = 0.01
    transfer: MuP | None = None

    @model_validator(mode="after")
    def _buildable(self) -> ModelConfig:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads = {self.n_heads} is not a multiple of n_kv_heads = {self.n_kv_heads}"
            )
        if self.pos == "rope" and self.d_head % 2:
            raise ValueError(f'pos = "rope" rotates pairs: d_head = {self.d_head} must be even')
        if self.pos == "sinusoidal" and self.d_model % 2:
            raise ValueError(
                f'pos = "sinusoidal" fills pairs: d_model = {self.d_model} must be even'
            )
        if self.top_k > self.n_experts:
            raise ValueError(f"top_k = {self.top_k} exceeds n_experts = {self.n_experts}")
        if self.n_experts > 1 and self.bias:
            raise ValueError("experts have no biases: bias = true needs n_experts = 1")
        return self


# fields that are no size: no law of N and D spans models that differ in one
ARCHITECTURE = (
    "norm",
    "pos",
    "ffn",
    "qk_norm",
    "gains",
    "bias",
    "tie_embeddings",
    "n_experts",
    "top_k",
)


def differing_parts(models: Iterable[ModelConfig]) -> tuple[str, ...]:
    """The parts of the architecture in which models differ: no sizes, and key-value heads only at
    one shape.
    """
    distinct = set(models)
    parts = [name for name in ARCHITECTURE if len({getattr(each, name) for each in distinct}) > 1]
    shapes = {(m.n_layers, m.d_model, m.n_heads): m.n_kv_heads for m in distinct}
    if any(shapes[m.n_layers, m.d_model, m.n_heads] != m.n_kv_heads for m in distinct):
        parts.append("n_kv_heads")
    return tuple(parts)
