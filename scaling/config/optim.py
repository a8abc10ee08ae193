"""The optimiser, its schedule, and what is measured on the way, as configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scaling.config.base import Disabled, Fraction, Frozen


class OptimConfig(Frozen):
    """AdamW (Loshchilov and Hutter 2019) and its schedule. `clip = false` leaves gradients
    unclipped.

    `wsd` warms up, stays constant, and decays by 1 - sqrt over the last `cooldown_frac` of the
    steps (Hagele 2024).
    """

    name: Literal["adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0.0, le=10.0)]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["cosine", "wsd", "constant"] = "wsd"
    cooldown_frac: Fraction = 0.2
    final_lr_frac: Fraction = 0.0
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    b1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    b2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.98
    eps: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-8
    clip: Annotated[float, Field(gt=0.0)] | Disabled = 1.0
    z_loss: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4

    def cooldown_steps(self, n_steps: int) -> int:
        """Steps of the final decay of `wsd`, at least one."""
        return max(1, round(self.cooldown_frac * n_steps))


class EvalConfig(Frozen):
    """What is measured: `points` evaluations along a run, spaced evenly in log(step), on `tokens`
    held-out tokens.

    `averaged` also measures the average of the weights so far, which forgets all but about the last
    tenth of the steps; `noise_scale` the gradient noise scale in tokens, from `noise_sequences`
    training sequences (McCandlish 2018, appendix A); `by_position` the loss at each position of the
    window. At the end of a run on problems with a right answer, `samples` answers are drawn at
    temperature 1 for each of `problems` held-out ones, and verified.
    """

    points: Annotated[int, Field(ge=1, le=10_000)] = 12
    tokens: Annotated[int, Field(ge=1, le=2**40)] = 65_536
    averaged: bool = False
    noise_scale: bool = False
    noise_sequences: Annotated[int, Field(ge=2, le=65_536)] = 256
    by_position: bool = False
    samples: Annotated[int, Field(ge=1, le=2**20)] | None = None
    problems: Annotated[int, Field(ge=1, le=2**20)] = 256
