"""Warnings of results: a code that programs test, the data behind it, and a sentence for people."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class WarningCode(StrEnum):
    """What a warning is about. Code tests the code and never the sentence."""

    OTHER = "other"
    HOLDOUT_COVERAGE = "holdout-coverage"  # data: covered, expected, n_test
    HOLDOUT_ONE_SIDED = "holdout-one-sided"  # data: too_high, too_low, n_test
    APPROACHES_DISAGREE = "approaches-disagree"  # data: N* by approach


class ResultWarning(BaseModel):
    """One warning of a fit, a prediction or a plan; `str(warning)` is its sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: WarningCode
    message: str
    data: dict[str, Any] = Field(default_factory=dict)

    def __str__(self) -> str:
        return self.message
