"""Warnings of results: a code that programs test, the data behind it, and a sentence for people."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class WarningCode(StrEnum):
    """What a warning is about. Code tests the code and never the sentence."""

    OTHER = "other"
    CORRUPT_FILE = "corrupt_file"
    FEW_PREFIXES = "few_prefixes"
    FLOPS_DISAGREE = "flops_disagree"
    GRID_EDGE = "grid_edge"
    HYPERPARAMETERS_VARY = "hyperparameters_vary"
    MIXED_DATA = "mixed_data"
    REPEATED_ROWS = "repeated_rows"
    RUN_STATE = "run_state"
    UNLIKELY_UNIT = "unlikely_unit"
    UNPLANNED_RUNS = "unplanned_runs"


class ResultWarning(BaseModel):
    """One warning of a fit, a prediction or a plan; `str(warning)` is its sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: WarningCode
    message: str
    data: dict[str, Any] = Field(default_factory=dict)

    def __str__(self) -> str:
        return self.message
