"""One question, answered by a set of runs: the content of a sweep file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, Strict, create_model, model_validator

from scaling.config.base import (
    Count,
    Counts,
    Disabled,
    Frozen,
    OpenFraction,
    Params,
    Positive,
    PositiveReal,
    Precision,
    Seeds,
    Sizes,
    Slug,
    Tokens,
    UpToTen,
)
from scaling.config.design import Axis, Design
from scaling.config.model import ARCHITECTURE, ModelConfig
from scaling.config.optim import EvalConfig, OptimConfig
from scaling.config.recipe import Recipe
from scaling.config.run import check_answers
from scaling.config.task import TaskConfig


def _partial(model: type[BaseModel], name: str) -> Any:
    """The same fields, none required: what a sweep file may override."""
    fields: dict[str, Any] = {
        key: (info.rebuild_annotation() | None, None) for key, info in model.model_fields.items()
    }
    return create_model(name, __base__=Frozen, **fields)


ModelOverrides = _partial(ModelConfig, "ModelOverrides")
OptimOverrides = _partial(OptimConfig, "OptimOverrides")


class Base(Frozen):
    """What all runs of a sweep share; `model` and `optim` override what the recipe derives."""

    task: TaskConfig
    model: ModelOverrides = ModelOverrides()  # type: ignore[valid-type]
    optim: OptimOverrides = OptimOverrides()  # type: ignore[valid-type]
    batch_size: Positive | None = None
    precision: Precision = "float32"


class Replicates(Frozen):
    """Further seeds at chosen cells: those of these sizes and these amounts (budgets, tokens, or
    tokens per parameter); absent means all.
    """

    seeds: Seeds
    sizes: Sizes | None = None
    amounts: Counts | None = None


class Tuning(Frozen):
    """A field that is tuned before the sweep is trained: a grid of `n_values` values, each `factor`
    times the one before, about what the recipe says, at the smallest, a middle and the largest size
    (or at `sizes`), and at each of `batch_sizes` (sequences), which give the rule a power of the
    batch.

    Each value is first trained by a short run, a complete one of the fraction `short_run_frac` of
    the horizon; values whose loss lies more than `margin` (relative) above the best are not trained
    further. `short_run_frac = false` trains all. A best value at the end of the grid extends it, by
    up to `max_extensions` values. The horizon is `tokens_per_param`, or the geometric mean of the
    tokens that the design asks of a size. A batch is counted in tokens, b2 by its half-life in
    tokens, weight decay by the share of the run that weights remember (1 / (lr x decay x steps)); a
    later table starts from the rules of the earlier ones.
    """

    field: Literal["optim.lr", "batch_size", "optim.b2", "optim.weight_decay"] = "optim.lr"
    sizes: Sizes | None = None
    batch_sizes: Annotated[tuple[Positive, ...], Strict(False), Field(min_length=2)] | None = None
    n_values: Annotated[int, Field(ge=3, le=15)] = 5
    factor: Annotated[float, Field(gt=1.0, le=16.0)] = 2.0
    tokens_per_param: Count | None = None
    short_run_frac: OpenFraction | Disabled = 0.25
    margin: UpToTen = 0.03
    max_extensions: Annotated[int, Field(ge=0, le=20)] = 4
    seeds: Seeds = (0,)

    @model_validator(mode="after")
    def _of_a_batch(self) -> Tuning:
        if self.field == "batch_size" and self.batch_sizes:
            raise ValueError("batch_sizes is for fields other than the batch itself")
        return self


class Forecast(Frozen):
    """What a fit said of a cell before it was trained, with the interval for one run; the report
    sets it against what was measured.

    `seen` is the largest budget of FLOPs among the runs that the fit rests on.
    """

    size: Params
    tokens: Tokens
    flops: Count
    loss: PositiveReal
    lo: PositiveReal | None = None
    hi: PositiveReal | None = None
    ci: OpenFraction = 0.95
    seen: Count | None = None
    role: Annotated[str, Field(max_length=40)] = "optimum"
    source: Annotated[str, Field(max_length=4096)] = ""

    @model_validator(mode="after")
    def _inside(self) -> Forecast:
        if not (self.lo or 0.0) <= self.loss <= (self.hi or self.loss):
            raise ValueError(f"loss = {self.loss:g} lies outside its own interval, lo to hi")
        return self


class Sweep(Frozen):
    """One question, answered by a set of runs: the content of a sweep file."""

    name: Slug
    question: Annotated[str, Field(max_length=2000)] = ""
    design: Design
    base: Base
    recipe: Recipe = Recipe()
    axes: Annotated[tuple[Axis, ...], Strict(False)] = ()
    seeds: Seeds = (0,)
    replicates: Annotated[tuple[Replicates, ...], Strict(False)] = ()
    tuning: Annotated[tuple[Tuning, ...], Strict(False)] = ()
    forecasts: Annotated[tuple[Forecast, ...], Strict(False)] = ()
    evals: EvalConfig = EvalConfig()

    @model_validator(mode="after")
    def _answerable(self) -> Sweep:
        check_answers(self.base.task, self.evals)
        return self

    @property
    def supports_law_fit(self) -> bool:
        """Whether one law of N and D can be fitted to its runs: they learn text or facts, no
        variants of the model are compared, and they are not the few that test a forecast.
        """
        compared = {
            axis.field for axis in self.axes if axis.role == "scientific" and len(axis.values) > 1
        }
        learns_text = self.base.task.kind in ("text", "synthetic")
        variants = {f"model.{name}" for name in (*ARCHITECTURE, "n_kv_heads")}
        return learns_text and not compared & variants and not self.forecasts
