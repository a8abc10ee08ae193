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
from scaling.recipe.hyper import learning_rate
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


@dataclass(frozen=True)
class CoordinateRuns:
    """Builds the runs of a recipe. Without recipe.transfer the smallest model is the base."""

    sweep: Sweep
    vocab_size: int
    widths: list[int]
    depths: list[int]
    n_steps: int

    def series(self) -> list[CoordinateSeries]:
        """Every growing side in both parametrisations."""
        return [
            CoordinateSeries(over, name, {n: self._run(over, n, name) for n in sizes})
            for over, sizes in (("width", self.widths), ("depth", self.depths))
            for name in get_args(Parametrisation)
            if sizes
        ]

    @property
    def lr(self) -> float:
        """The learning rate at the base: the sweep's own, or that of its recipe."""
        overrides: Any = self.sweep.base.optim
        if overrides.lr:
            return float(overrides.lr)
        model = self._model(self._transfer().base_width)
        n = n_params(model, self.sweep.base.task.seq_len, "with_head")
        return learning_rate(model, n, 20.0 * n, self.sweep.recipe)

    def _run(self, over: str, number: int, parametrisation: str) -> RunConfig:
        transfer, task = self._transfer(), self.sweep.base.task
        model = self._model(number if over == "width" else self.widths[0])
        smallest = transfer.base_depth or self._model(self.widths[0]).n_layers
        changes = {
            "n_layers": number if over == "depth" else smallest,
            "gains": False,
            "transfer": transfer if parametrisation == "transfer" else None,
        }
        overrides: Any = self.sweep.base.optim
        constant = {"lr": self.lr, "schedule": "constant", "warmup_steps": 0}
        return RunConfig(
            model=model.model_copy(update=changes),
            task=task,
            optim=OptimConfig.model_validate(overrides.model_dump(exclude_none=True) | constant),
            batch_size=max(1, BATCH_TOKENS // task.seq_len),
            n_steps=self.n_steps,
        )

    def _model(self, width: int) -> ModelConfig:
        """The recipe's model of a width, with the sweep's overrides except those of size.

        Raises ScalingError for a width that cannot be built.
        """
        recipe, overrides = self.sweep.recipe, cast(Any, self.sweep.base.model)
        fields = overrides.model_dump(exclude_none=True, exclude=SIZE_FIELDS)
        try:
            return shape(width, self.vocab_size, recipe, fields)
        except InfeasibleCell as error:
            remedy = f"choose multiples of recipe.width_multiple = {recipe.width_multiple}"
            raise ScalingError(
                error.what, where=f"--widths: {error.where}", remedy=remedy
            ) from None

    def _transfer(self) -> MuP:
        """The sweep's own, or one whose base is the smallest model."""
        depth = self.depths[0] if self.depths else None
        transfer = self.sweep.recipe.transfer
        if transfer:
            return transfer.model_copy(update={"base_depth": transfer.base_depth or depth})
        base = self.widths[0]
        return MuP(base_width=base, base_head=self._model(base).d_head, base_depth=depth)
