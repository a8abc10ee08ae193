"""A predicted N and D as a model that can be built, with the hyper-parameters that the recipe gives
it.
"""

from __future__ import annotations

from typing import Any

from scaling.accounting import n_params
from scaling.config import NConvention, Recipe, Sweep
from scaling.recipe.hyper import batch_size, optim_for
from scaling.recipe.shapes import model_for

USUAL_SHAPES = 1e8  # parameters from which widths are multiples of 128, as accelerators want them
WIDE_HEADS = 1e9  # and from which heads are 128 wide


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
    recipe, model_options, optim_options, sequences = Recipe(), {}, {}, None
    if sweep is not None:
        recipe, sequences = sweep.recipe, sweep.base.batch_size
        model_options = sweep.base.model.model_dump(exclude_none=True)  # type: ignore[attr-defined]
        optim_options = sweep.base.optim.model_dump(exclude_none=True)  # type: ignore[attr-defined]
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
