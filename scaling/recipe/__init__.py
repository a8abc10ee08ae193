"""A size becomes a buildable model and its hyper-parameters: every rule with its source and its
range.
"""

from scaling.recipe.hyperparams import (
    MIN_BATCH_TOKENS,
    MIN_STEPS,
    b2_of,
    batch_size,
    describe,
    learning_rate,
    optim_for,
    range_warnings,
    warmup_steps,
)
from scaling.recipe.rules import PUBLISHED
from scaling.recipe.shapes import InfeasibleCell, model_for, shape
