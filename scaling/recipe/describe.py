"""A predicted N and D as a model that can be built, with the hyper-parameters that the recipe gives
it.
"""

from __future__ import annotations

from typing import Any

from scaling.accounting import n_params
from scaling.config import Recipe
from scaling.recipe.hyper import batch_size, optim_for
from scaling.recipe.shapes import model_for


def describe(
    n: float,
    tokens: float,
    *,
    vocab_size: int = 256,
    seq_len: int = 2048,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """A buildable model of about `n` parameters (with_head) trained on `tokens` tokens, as plain
    values for a prediction.
    """
    rule = recipe or Recipe(size_tolerance=1.0)
    model = model_for(n, rule, vocab_size=vocab_size, seq_len=seq_len)
    counted = n_params(model, seq_len, "with_head")
    sequences = batch_size(counted, tokens, seq_len, rule)
    n_steps = max(1, round(tokens / (sequences * seq_len)))
    optim = optim_for(model, counted, n_steps, sequences * seq_len, rule, {})
    return model.model_dump(mode="json", exclude_none=True) | {
        "n_params": counted,
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
