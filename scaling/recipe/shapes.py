"""A size becomes a buildable model: the smooth rule of depth, heads and widths."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from pydantic import ValidationError

from scaling.accounting import n_params
from scaling.config import ModelConfig, NConvention, Recipe
from scaling.config.base import divisors, validation_messages
from scaling.errors import ScalingError
from scaling.formatting import format_count

MAX_WIDTHS = (
    2**20
)  # steps of width_multiple that are tried: beyond 1e13 parameters even in one layer


class InfeasibleCell(ScalingError):
    """A cell of a sweep that cannot be built; the plan lists it with its reason and goes on."""


def head_width(d_model: int, recipe: Recipe) -> int:
    """Width of a head: the smallest divisor of d_model that reaches the target of 32, 64 (from 256)
    or 128 (from 2048).

    A multiple of 8 up to twice the target is preferred to another even width: at d_model 168, heads
    of 56 instead of 42 train 5 % more tokens a second on a CPU. Heads under 32 wide cost loss at
    every size tried; without an even divisor there is one head.
    """
    target = recipe.d_head or (32 if d_model < 256 else 64 if d_model < 2048 else 128)
    widths = [width for width in divisors(d_model) if width >= target]
    whole = (width for width in widths if width % 8 == 0 and width <= 2 * target)
    even = (width for width in widths if width % 2 == 0)
    return next(whole, None) or next(even, d_model)


def shape(d_model: int, vocab_size: int, recipe: Recipe, overrides: dict[str, Any]) -> ModelConfig:
    """The model of a width, with a sweep's overrides. Raises InfeasibleCell with the reason when it
    cannot be built.

    It has d_model / aspect layers and at least two: loss depends weakly on shape (Kaplan 2020,
    fig. 5). A gated feed-forward has two thirds of the width, to a multiple of 8, so that three
    matrices weigh what two did (Shazeer 2020). With `kv_to_ffn` it is wider by what the keys and
    values weigh that shared heads do without (Shazeer 2019): 2 d_model d_head a missing head, where
    a unit of d_ff weighs 2 d_model, 3 d_model when gated.
    """
    d_head = overrides.get("d_head")
    n_heads = overrides.get("n_heads") or max(1, d_model // (d_head or head_width(d_model, recipe)))
    d_head = d_head or max(1, d_model // n_heads)
    n_kv_heads = min(recipe.n_kv_heads or n_heads, n_heads)
    gated, d_ff = overrides.get("ffn") == "swiglu", recipe.ffn_ratio * d_model
    d_ff = max(8, 8 * round(d_ff * 2 / 24)) if gated else max(1, round(d_ff))
    if recipe.kv_to_ffn:
        missing = n_heads - (overrides.get("n_kv_heads") or n_kv_heads)
        d_ff += round(2 * missing * d_head / (3 if gated else 2))
    derived = {
        "n_layers": recipe.n_layers or max(2, round(d_model / recipe.aspect)),
        "d_model": d_model,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_head": d_head,
        "d_ff": d_ff,
        "vocab_size": vocab_size,
        **({"transfer": recipe.transfer, "gains": False} if recipe.transfer else {}),
    }
    try:
        return ModelConfig.model_validate(derived | overrides)
    except ValidationError as error:
        raise InfeasibleCell(validation_messages(error), where=f"d_model = {d_model}") from None


def model_for(
    size: float,
    recipe: Recipe,
    *,
    vocab_size: int,
    seq_len: int,
    params: NConvention = "with_head",
    overrides: dict[str, Any] | None = None,
) -> ModelConfig:
    """The buildable model whose N under `params` lies nearest to `size` in ln N.

    Raises InfeasibleCell when none lies within `recipe.size_tolerance`, and for an override of the
    vocabulary, which is the task's.
    """
    chosen = dict(overrides or {})
    if chosen.pop("vocab_size", vocab_size) != vocab_size:
        raise InfeasibleCell(f"model.vocab_size is the task's, {vocab_size}: leave it out")

    @cache  # the search asks for the same few models again and again
    def built(step: int) -> ModelConfig:
        return shape(recipe.width_multiple * step, vocab_size, recipe, chosen)

    def error(step: int) -> float:
        return math.log(n_params(built(step), seq_len, params) / size)

    low, high = 1, 2
    while error(high) < 0 and high < MAX_WIDTHS:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if error(middle) < 0 else (low, middle)
    best = min((low, high), key=lambda step: abs(error(step)))
    if abs(error(best)) > recipe.size_tolerance:
        counted = format_count(n_params(built(best), seq_len, params))
        raise InfeasibleCell(
            f"no buildable model of {format_count(size)} parameters ({params}); the nearest "
            f"has {counted}"
        )
    return built(best)
