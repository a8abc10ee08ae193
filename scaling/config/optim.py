"""The optimiser, its schedule, and what is measured on the way, as configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Strict, field_validator

from scaling.config.base import Disabled, Fraction, Frozen, PositiveReal, UpToTen

OptimizerName = Literal["adamw", "muon"]


class OptimConfig(Frozen):
    """The optimiser and its schedule. `clip = false` leaves gradients unclipped.

    `adamw` (Loshchilov and Hutter 2019), or `muon` (Jordan 2024) for the matrices of the blocks
    with AdamW for all else, its steps as large as AdamW's.

    `wsd` warms up, stays constant, and decays by 1 - sqrt over the last `cooldown_frac` of the
    steps, or the last `cooldown_steps` (Hagele 2024).
    """

    name: OptimizerName = "adamw"
    lr: UpToTen
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["cosine", "wsd", "constant"] = "wsd"
    cooldown_frac: Fraction = 0.2
    cooldown_steps: Annotated[int, Field(ge=1)] | None = None
    final_lr_frac: Fraction = 0.0
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    b1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    b2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.98
    eps: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-8
    clip: PositiveReal | Disabled = 1.0
    z_loss: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4

    def cooldown(self, n_steps: int) -> int:
        """Steps of the final decay of `wsd`, at least one."""
        return self.cooldown_steps or max(1, round(self.cooldown_frac * n_steps))


class EvalSet(Frozen):
    """Another corpus on whose held-out split the loss is measured, as split `val:NAME`: a folder
    written by `scaling data prepare` with the tokenizer of the training corpus.

    `digest` is the SHA-256 of its tokens. The planner fills it in.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
    corpus: Annotated[str, Field(min_length=1, max_length=4096)]
    digest: str | None = None


class EvalConfig(Frozen):
    """What is measured: `points` evaluations along a run, spaced evenly in log(step), on `tokens`
    held-out tokens.

    `averaged` also measures the average of the weights so far, which forgets all but about the last
    tenth of the steps; `noise_scale` the gradient noise scale in tokens, from `noise_sequences`
    training sequences (McCandlish 2018, appendix A); `by_position` the loss at each position of the
    window. At the end of a run on problems with a right answer, `samples` answers are drawn at
    temperature 1 for each of `problems` held-out ones, and verified. `sets` are further corpora
    (`[[evals.sets]]`) on which the loss is measured, for `scaling fit --eval-set NAME`.
    """

    points: Annotated[int, Field(ge=1, le=10_000)] = 12
    tokens: Annotated[int, Field(ge=1, le=2**40)] = 65_536
    averaged: bool = False
    noise_scale: bool = False
    noise_sequences: Annotated[int, Field(ge=2, le=65_536)] = 256
    by_position: bool = False
    samples: Annotated[int, Field(ge=1, le=2**20)] | None = None
    problems: Annotated[int, Field(ge=1, le=2**20)] = 256
    sets: Annotated[tuple[EvalSet, ...], Strict(False), Field(max_length=32)] = ()

    @field_validator("sets")
    @classmethod
    def _names_differ(cls, sets: tuple[EvalSet, ...]) -> tuple[EvalSet, ...]:
        names = [item.name for item in sets]
        if len(set(names)) < len(names):
            raise ValueError("two evaluation sets have one name")
        return sets

    def _identity(self) -> dict[str, Any]:
        """The digest identifies a corpus, not the folder that it happens to lie in."""
        data = super()._identity()
        for item in data.get("sets", ()):
            if item.get("digest"):
                del item["corpus"]
        return data
