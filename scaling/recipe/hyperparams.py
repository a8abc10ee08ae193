"""A model and its tokens become batch, learning rate, warm-up, b2 and weight decay: every rule with
its source.

Published learning-rate and batch laws were fitted above about 5M parameters; the width rule is the
default and a ladder is the judge.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError

from scaling.accounting import n_params
from scaling.config import ModelConfig, NConvention, OptimConfig, PowerRule, Recipe, Sweep
from scaling.config.base import validation_messages
from scaling.recipe import rules
from scaling.recipe.shapes import InfeasibleCell, model_for

MIN_BATCH_TOKENS = 512
MIN_STEPS = 20
MIN_WARMUP_STEPS = 100
B2_RANGE = (0.9, 0.9999)
USUAL_SHAPES = 1e8  # parameters from which widths are multiples of 128, as accelerators want them
WIDE_HEADS = 1e9  # and from which heads are 128 wide


def learning_rate(
    model: ModelConfig, n: float, tokens: float, batch_tokens: float, recipe: Recipe
) -> float:
    """The rate that the recipe's rule gives for N parameters, D tokens and the tokens of a step.

    `width`: lr_width / d_model, for the optimum moves as 1 / width (Yang 2022, muP, hidden
    matrices); 0.16 lay within the noise of the best at widths 12, 24 and 40. With `transfer` the
    model itself divides by its width, and the base's rate holds.
    """
    if isinstance(recipe.lr_rule, PowerRule):
        return rules.evaluate(recipe.lr_rule, n, tokens, batch_tokens)
    if recipe.lr_rule == "width":
        return recipe.lr_width / (recipe.transfer.base_width if recipe.transfer else model.d_model)
    return rules.PUBLISHED[recipe.lr_rule].lr(n, tokens)


def batch_size(n: float, tokens: float, seq_len: int, recipe: Recipe) -> int:
    """Sequences in a step, rounded to a power of two: given tokens, or those of the recipe's rule.

    A published rule, below its range, asks for less than the 512 tokens that it gets; a measured
    one is taken at its word.
    """
    rule = recipe.batch_rule
    if isinstance(rule, PowerRule):
        asked = rules.evaluate(rule, n, tokens)
    else:
        asked = max(MIN_BATCH_TOKENS, rules.PUBLISHED[rule].batch_tokens(n, tokens))
    return 2 ** max(0, round(math.log2((recipe.batch_tokens or asked) / seq_len)))


def warmup_steps(n: float, n_steps: int, batch_tokens: int, recipe: Recipe) -> int:
    """N tokens (Porian 2024, section 3.2), at least MIN_WARMUP_STEPS, and at most a fraction of the
    steps.

    The floor is for small models: at 20k parameters 20 steps instead of 100 cost 0.05 nats. Not a
    share of the horizon, so that runs of one size share their beginning.
    """
    return max(
        1,
        min(
            round(recipe.warmup_frac * n_steps), max(math.ceil(n / batch_tokens), MIN_WARMUP_STEPS)
        ),
    )


def b2_of(batch_tokens: int, half_life_tokens: float) -> float:
    """The b2 by which the second moment forgets half within a half-life whatever the batch, inside
    B2_RANGE (Marek 2025; Porian 2024 raises b2 for small batches).
    """
    low, high = B2_RANGE
    return round(min(high, max(low, 0.5 ** (batch_tokens / half_life_tokens))), 4)


def weight_decay(lr: float, n: float, n_steps: int, batch_tokens: float, recipe: Recipe) -> float:
    """1 / (timescale x lr x steps): weights forget over that share of the run (Wang and Aitchison
    2024), which is B / (lr x decay x D); none without a timescale.
    """
    if not recipe.decay_timescale:
        return 0.0
    timescale = rules.evaluate(recipe.decay_timescale, n, n_steps * batch_tokens, batch_tokens)
    return min(10.0, 1.0 / (timescale * lr * n_steps))


def optim_for(
    model: ModelConfig,
    n: float,
    n_steps: int,
    batch_tokens: int,
    recipe: Recipe,
    overrides: dict[str, Any],
) -> OptimConfig:
    """The optimiser of a model and horizon, with a sweep's overrides. Raises InfeasibleCell for one
    that is out of range.
    """
    tokens = float(n_steps * batch_tokens)
    lr = overrides.get("lr") or learning_rate(model, n, tokens, batch_tokens, recipe)
    derived = {
        "lr": lr,
        "warmup_steps": warmup_steps(n, n_steps, batch_tokens, recipe),
        "b2": b2_of(batch_tokens, rules.evaluate(recipe.b2_half_life, n, 1.0, batch_tokens)),
        "weight_decay": weight_decay(lr, n, n_steps, batch_tokens, recipe),
    }
    try:
        return OptimConfig.model_validate(derived | overrides)
    except ValidationError as error:
        raise InfeasibleCell(validation_messages(error, "optim.")) from None


def range_warnings(
    n: float, tokens: float, recipe: Recipe, *, lr_given: bool, batch_given: bool
) -> list[str]:
    """Which of the recipe's rules are asked outside the range in which they were measured, and what
    that means.
    """
    warnings = []
    for name, rule, given in (
        ("lr_rule", recipe.lr_rule, lr_given),
        ("batch_rule", recipe.batch_rule, batch_given),
    ):
        why, label = "", str(rule)
        if isinstance(rule, PowerRule):
            why, label = rules.outside(rule, n), "measured"
        elif rule != "width":
            why = rules.PUBLISHED[rule].outside(n, tokens)
        if why and not given:
            warnings.append(f"recipe.{name} = {label}: {why}")
    return warnings


def describe(
    n: float,
    tokens: float,
    *,
    vocab_size: int = 256,
    seq_len: int = 2048,
    sweep: Sweep | None = None,
    params: NConvention = "with_head",
) -> dict[str, Any]:
    """A buildable model of about `n` parameters (as `params` counts) trained on `tokens` tokens, as
    plain values for a prediction: by the recipe of a sweep, or in usual shapes.
    """
    recipe, sequences = Recipe(), None
    model_options: dict[str, Any] = {}
    optim_options: dict[str, Any] = {}
    if sweep is not None:
        base: Any = sweep.base
        recipe, sequences = sweep.recipe, base.batch_size
        model_options = base.model.model_dump(exclude_none=True)
        optim_options = base.optim.model_dump(exclude_none=True)
    elif n >= USUAL_SHAPES:
        recipe = Recipe(width_multiple=128, d_head=128 if n >= WIDE_HEADS else 64)
    rule = recipe.model_copy(update={"size_tolerance": 1.0})
    model = model_for(
        n, rule, vocab_size=vocab_size, seq_len=seq_len, params=params, overrides=model_options
    )
    counted = n_params(model, seq_len, "with_head")
    sequences = sequences or batch_size(counted, tokens, seq_len, rule)
    n_steps = max(1, round(tokens / (sequences * seq_len)))
    optim = optim_for(model, counted, n_steps, sequences * seq_len, rule, optim_options)
    return model.model_dump(mode="json", exclude_none=True) | {
        "n_params": n_params(model, seq_len, params),
        "params": params,
        "seq_len": seq_len,
        "batch_size": sequences,
        "batch_tokens": sequences * seq_len,
        "n_steps": n_steps,
        "lr": optim.lr,
        "warmup_steps": optim.warmup_steps,
        "b2": optim.b2,
        "weight_decay": optim.weight_decay,
        "schedule": optim.schedule,
    }
