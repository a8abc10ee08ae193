"""A cell becomes its runs, or is infeasible, with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import get_args

from pydantic import ValidationError

from scaling import accounting, recipe
from scaling.config import (
    IsoflopDesign,
    ModelConfig,
    NConvention,
    RunConfig,
    Sweep,
    TaskConfig,
    TextTask,
)
from scaling.config.base import validation_messages
from scaling.errors import ScalingError
from scaling.plan import memory
from scaling.plan.cells import CellRequest, Settings


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run with what it will cost: exact FLOPs, and an estimate of its memory on a CPU."""

    run: RunConfig
    n_params: dict[str, int]
    flops: float
    memory_bytes: int

    @property
    def run_id(self) -> str:
        """The run's identity."""
        return self.run.run_id


@dataclass
class _Shape:
    """What a size and its settings come to, whatever the budget and the seed.

    FLOPs are those of one token, for C is proportional to D; the memory is known once a run of a
    batch is.
    """

    model: ModelConfig
    n_params: dict[str, int]
    design_flops: float
    exact_flops: float
    memory_bytes: dict[int, int] = field(default_factory=dict)


@dataclass
class RunBuilder:
    """Builds the cells of a sweep, and keeps of each shape (or the reason why there is none) what
    does not depend on the budget.

    `range_warnings` counts the cells in which a rule of the recipe was asked outside its range.
    """

    sweep: Sweep
    task: TaskConfig
    vocab_size: int
    simulated: str | None
    shapes: dict[tuple[float, str], _Shape | str] = field(default_factory=dict)
    range_warnings: Counter[str] = field(default_factory=Counter)

    def runs_of_cell(self, request: CellRequest, settings: Settings) -> list[PlannedRun]:
        """The runs of one size, amount and combination of settings: one for each seed. Raises
        ScalingError with the reason.
        """
        sweep, task = self.sweep, self._task(request, settings)
        shape, seq_len = self._shape(request.size, settings, task), task.seq_len
        n = shape.n_params[sweep.design.params]
        tokens = request.amount
        if request.measure != "tokens":
            tokens = tokens / shape.design_flops if request.measure == "flops" else tokens * n
        sequences = settings.batch_size or recipe.batch_size(n, tokens, seq_len, sweep.recipe)
        batch_tokens = sequences * seq_len
        n_steps = round(tokens / batch_tokens)
        if n_steps < recipe.MIN_STEPS:
            raise recipe.InfeasibleCell(
                f"{n_steps} steps of {batch_tokens} tokens are fewer than {recipe.MIN_STEPS}"
            )
        window, ratio = sweep.design.tokens_per_param_range, n_steps * batch_tokens / n
        if window and not window[0] <= ratio <= window[1]:
            raise recipe.InfeasibleCell(
                f"D/N = {ratio:.3g} lies outside tokens_per_param_range {window[0]:g} to "
                f"{window[1]:g}"
            )
        optim = recipe.optim_for(
            shape.model, n, n_steps, batch_tokens, sweep.recipe, settings.optim
        )
        self.range_warnings.update(
            recipe.range_warnings(
                n,
                tokens,
                sweep.recipe,
                lr_given="lr" in settings.optim,
                batch_given=bool(settings.batch_size or sweep.recipe.batch_tokens),
            )
        )
        try:
            first = RunConfig(
                model=shape.model,
                task=task,
                optim=optim,
                batch_size=sequences,
                n_steps=n_steps,
                seed=request.seeds[0],
                precision=sweep.base.precision,
                evals=sweep.evals,
                simulated=self.simulated,
            )
        except ValidationError as error:
            raise recipe.InfeasibleCell(validation_messages(error)) from None
        # the sweep has validated its seeds, and nothing else differs
        runs = [first, *(first.model_copy(update={"seed": seed}) for seed in request.seeds[1:])]
        if sequences not in shape.memory_bytes:
            shape.memory_bytes[sequences] = memory.estimate(first).total
        flops, memory_bytes = shape.exact_flops * first.tokens, shape.memory_bytes[sequences]
        return [PlannedRun(run, shape.n_params, flops, memory_bytes) for run in runs]

    def _task(self, request: CellRequest, settings: Settings) -> TaskConfig:
        """The task with what the cell changes of it, limited to the unique tokens of the cell, in
        whole windows.
        """
        task = self.task
        if settings.task:
            try:
                task = type(task).model_validate(task.model_dump() | settings.task)
            except ValidationError as error:
                raise recipe.InfeasibleCell(validation_messages(error, "task.")) from None
        if request.unique is None:
            return task
        if not isinstance(task, TextTask):
            raise recipe.InfeasibleCell(
                "a corpus can be limited only where there is one: the task is not text"
            )
        unique_tokens = max(1, round(request.unique / task.seq_len)) * task.seq_len
        return task.model_copy(update={"unique_tokens": unique_tokens})

    def _shape(self, size: float, settings: Settings, task: TaskConfig) -> _Shape:
        key = (size, settings.shape)
        if key not in self.shapes:
            design, seq_len, flops = self.sweep.design, task.seq_len, 0.0
            try:
                model = recipe.model_for(
                    size,
                    self.sweep.recipe,
                    vocab_size=(settings.task and task.fixed_vocab_size) or self.vocab_size,
                    seq_len=seq_len,
                    params=design.params,
                    overrides=settings.model,
                )
                if isinstance(design, IsoflopDesign):
                    flops = accounting.train_flops(model, seq_len, 1, design.flops)
                self.shapes[key] = _Shape(
                    model=model,
                    n_params={
                        name: accounting.n_params(model, seq_len, name)
                        for name in get_args(NConvention)
                    },
                    design_flops=flops,
                    exact_flops=accounting.train_flops(model, seq_len, 1, "exact"),
                )
            except ScalingError as error:
                self.shapes[key] = error.what
        shape = self.shapes[key]
        if isinstance(shape, str):
            raise recipe.InfeasibleCell(shape)
        return shape
