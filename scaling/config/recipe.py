"""How a size becomes a model and its hyper-parameters, as configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from scaling.config.base import Fraction, Frozen, Params, Positive, PositiveReal, Tokens
from scaling.config.model import MuP

RuleName = Literal["width", "porian", "step-law", "deepseek"]
HALF_LIFE_TOKENS = 17_566.0  # b2 = 0.98 at 512 tokens a step


class PowerRule(Frozen):
    """A measured rule: coef x N^n_power x D^d_power x B^batch_power, N under the design's
    convention, B the tokens of a step. `scaling tune` writes it, with the range it was measured in.
    """

    coef: PositiveReal
    n_power: float = 0.0
    d_power: float = 0.0
    batch_power: float = 0.0
    n_range: tuple[Params, Params] | None = Field(default=None, strict=False)

    @model_validator(mode="after")
    def _ascending(self) -> PowerRule:
        if self.n_range and self.n_range[0] > self.n_range[1]:
            raise ValueError(
                f"n_range runs from {self.n_range[0]:g} down to {self.n_range[1]:g}:"
                " write the smaller size first"
            )
        return self


class Recipe(Frozen):
    """How a size becomes a model and its hyper-parameters; `scaling.recipe` holds the rules and
    their sources.

    `n_layers` fixes the depth (a smooth isoFLOP curve needs one shape rule); without it depth
    follows `d_model / aspect`. The warm-up is at most `warmup_frac` of the steps. The learning rate
    follows `lr_rule`: `width` is `lr_width / d_model`, or, with `transfer`, `lr_width / base_width`
    at every width; the published rules warn outside the range they were measured in. So does
    `batch_rule`, which `batch_tokens` replaces. The second moment forgets half in `b2_half_life`
    tokens. With `kv_to_ffn` what fewer key-value heads save goes to the feed-forward, so that MHA,
    GQA and MQA of one width have the same N. `decay_timescale` sets the weight decay so that
    weights forget over that share of the run; without it there is none. `size_tolerance` is how far
    (in ln N) the nearest buildable model may lie from the size asked for.
    """

    n_layers: Positive | None = None
    aspect: Annotated[float, Field(gt=0.0, le=1e6)] = 64.0
    width_multiple: Positive = 8
    d_head: Positive | None = None
    n_kv_heads: Positive | None = None
    ffn_ratio: Annotated[float, Field(gt=0.0, le=64.0)] = 4.0
    kv_to_ffn: bool = False
    transfer: MuP | None = None
    lr_rule: RuleName | PowerRule = "width"
    lr_width: PositiveReal = 0.16
    warmup_frac: Fraction = 0.1
    batch_rule: Literal["porian", "step-law", "deepseek"] | PowerRule = "porian"
    batch_tokens: Tokens | None = None
    b2_half_life: Tokens | PowerRule = HALF_LIFE_TOKENS
    decay_timescale: Annotated[float, Field(gt=0.0, le=100.0)] | PowerRule | None = None
    size_tolerance: Annotated[float, Field(gt=0.0, le=1.0)] = 0.35

    @model_validator(mode="after")
    def _batch_of_itself(self) -> Recipe:
        if isinstance(self.batch_rule, PowerRule) and self.batch_rule.batch_power:
            raise ValueError("batch_rule cannot have a batch_power: it is what gives the batch")
        return self
