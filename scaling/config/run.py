"""One run: everything that decides its numbers, and its identity."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import Field, model_validator

from scaling.config.base import Frozen, Positive, Precision
from scaling.config.model import ModelConfig
from scaling.config.optim import EvalConfig, OptimConfig
from scaling.config.task import TaskConfig

MAX_TOKENS = 2**63  # a row counts tokens in 64 bits


class RunConfig(Frozen):
    """Everything that decides the numbers of one run, and nothing else.

    `simulated` names the law that a simulated run's losses come from, as in
    "published:hoffmann2022"; a real run has none, so the two never share an identity.
    """

    model: ModelConfig
    task: TaskConfig
    optim: OptimConfig
    batch_size: Positive
    n_steps: Positive
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Precision = "float32"
    evals: EvalConfig = EvalConfig()
    simulated: Annotated[str, Field(pattern=r"^published:[a-z0-9.-]{1,64}$")] | None = None

    @model_validator(mode="after")
    def _trainable(self) -> RunConfig:
        if self.optim.warmup_steps > self.n_steps:
            raise ValueError(
                f"optim.warmup_steps = {self.optim.warmup_steps} exceeds n_steps = {self.n_steps}"
            )
        if (cooldown := self.optim.cooldown_steps or 0) > self.n_steps:
            raise ValueError(f"optim.cooldown_steps = {cooldown} exceeds n_steps = {self.n_steps}")
        check_answers(self.task, self.evals)
        if self.tokens >= MAX_TOKENS:
            raise ValueError(
                f"{self.tokens:.3g} training tokens are more than a row can hold ({MAX_TOKENS:.3g})"
            )
        return self

    @property
    def batch_tokens(self) -> int:
        """Tokens in one optimiser step."""
        return self.batch_size * self.task.seq_len

    @property
    def tokens(self) -> int:
        """Training tokens D of the whole run."""
        return self.batch_tokens * self.n_steps

    @property
    def stable_steps(self) -> int:
        """Steps that do not depend on the horizon: all before the cooldown of `wsd`, none of
        `cosine`.
        """
        if self.optim.schedule == "wsd":
            return self.n_steps - self.optim.cooldown(self.n_steps)
        return self.n_steps if self.optim.schedule == "constant" else 0

    @property
    def prefix_key(self) -> str:
        """Runs of one key are identical up to the shorter one's `stable_steps`; horizons differ."""
        values = [getattr(self, name) for name, _, _ in _IDENTITY if name != "n_steps"]
        return "\n".join(
            [value.canonical() if isinstance(value, Frozen) else str(value) for value in values]
        )

    def canonical(self) -> str:
        """The JSON that identifies the run, as that of its parts.

        Put together here, for a plan asks for the identity of a hundred thousand runs that share
        their parts.
        """
        parts = []
        for name, required, default in _IDENTITY:
            value = getattr(self, name)
            if required or value != default:
                text = value.canonical() if isinstance(value, Frozen) else str(value)
                if isinstance(value, str):  # `json.dumps` of a number takes ten times as long
                    text = json.dumps(value)
                parts.append(f'"{name}":{text}')
        return "{" + ",".join(parts) + "}"

    @property
    def run_id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of `canonical()`."""
        known: str | None = getattr(self, "_run_id", None)
        if known is None:
            known = hashlib.sha256(self.canonical().encode()).hexdigest()[:12]
            object.__setattr__(self, "_run_id", known)
        return known


def check_answers(task: TaskConfig, evals: EvalConfig) -> None:
    """Raises ValueError where answers should be drawn to problems of a task that has none."""
    if evals.samples and not task.answerable:
        raise ValueError(
            f"evals.samples = {evals.samples}, "
            f'but the task "{task.kind}" has no answers to verify: '
            'use "arithmetic", or leave it out'
        )


_IDENTITY = [
    (name, info.is_required(), info.default)
    for name, info in sorted(RunConfig.model_fields.items())
]
