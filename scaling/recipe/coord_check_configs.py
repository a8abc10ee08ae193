"""The runs of muP's coordinate check: the recipe's model at growing width or depth, in standard
parametrisation and with transfer, all at the base's learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from scaling.accounting import n_params
from scaling.config import ModelConfig, MuP, OptimConfig, RunConfig, Sweep
from scaling.errors import ScalingError
from scaling.recipe.hyperparams import learning_rate
from scaling.recipe.shapes import InfeasibleCell, shape

BATCH_TOKENS = 1024  # per step: activation sizes do not need the sweep's batch
Parametrisation = Literal["standard", "transfer"]
SIZE_FIELDS = {"d_model", "n_layers", "d_ff", "n_heads", "n_kv_heads", "vocab_size"}


@dataclass(frozen=True)
class CoordinateSeries:
    """One run for each width or depth, in one parametrisation."""

    over: str
    parametrisation: Parametrisation
    runs: Mapping[int, RunConfig]


def coordinate_series(
    sweep: Sweep, vocab_size: int, widths: list[int], depths: list[int], n_steps: int
) -> tuple[float, list[CoordinateSeries]]:
    """The learning rate at the base (the sweep's own, or that of its recipe), and every growing
    side in both parametrisations. Without recipe.transfer the smallest model is the base.

    Raises ScalingError for a width that cannot be built.
    """
    recipe, base, task = sweep.recipe, cast(Any, sweep.base), sweep.base.task
    overrides = base.model.model_dump(exclude_none=True, exclude=SIZE_FIELDS)
    optim = base.optim.model_dump(exclude_none=True)

    def model_of(width: int) -> ModelConfig:
        try:
            return shape(width, vocab_size, recipe, overrides)
        except InfeasibleCell as error:
            remedy = f"choose multiples of recipe.width_multiple = {recipe.width_multiple}"
            raise ScalingError(
                error.what, where=f"--widths: {error.where}", remedy=remedy
            ) from None

    smallest, depth = model_of(widths[0]), depths[0] if depths else None
    transfer = recipe.transfer or MuP(base_width=widths[0], base_head=smallest.d_head)
    transfer = transfer.model_copy(update={"base_depth": transfer.base_depth or depth})
    if not optim.get("lr"):
        model = model_of(transfer.base_width)
        n = n_params(model, task.seq_len, "with_head")
        optim["lr"] = learning_rate(model, n, 20.0 * n, BATCH_TOKENS, recipe)
    constant = OptimConfig.model_validate(optim | {"schedule": "constant", "warmup_steps": 0})
    n_layers = transfer.base_depth or smallest.n_layers

    def run(over: str, number: int, parametrisation: Parametrisation) -> RunConfig:
        model = model_of(number) if over == "width" else smallest
        changes = {
            "n_layers": number if over == "depth" else n_layers,
            "gains": False,
            "transfer": transfer if parametrisation == "transfer" else None,
        }
        return RunConfig(
            model=model.model_copy(update=changes),
            task=task,
            optim=constant,
            batch_size=max(1, BATCH_TOKENS // task.seq_len),
            n_steps=n_steps,
        )

    return constant.lr, [
        CoordinateSeries(over, name, {number: run(over, number, name) for number in numbers})
        for over, numbers in (("width", widths), ("depth", depths))
        for name in get_args(Parametrisation)
        if numbers
    ]
