"""Warnings of results: a code that programs test, the data behind it, and a sentence for people."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class WarningCode(StrEnum):
    """What a warning is about. Code tests the code and never the sentence."""

    OTHER = "other"
    # a prepared corpus
    NO_DOCUMENT_SEPARATOR = "no_document_separator"
    LOSSY_TOKENIZER = "lossy_tokenizer"
    DUPLICATE_DOCUMENTS = "duplicate_documents"
    SKIPPED_FILES = "skipped_files"
    # the tables and folders that were read
    CORRUPT_FILE = "corrupt_file"
    CORRUPT_LEDGER = "corrupt_ledger"
    FEW_PREFIXES = "few_prefixes"
    FLOPS_DISAGREE = "flops_disagree"
    GRID_EDGE = "grid_edge"
    HYPERPARAMETERS_VARY = "hyperparameters_vary"
    MIXED_DATA = "mixed_data"
    REPEATED_ROWS = "repeated_rows"
    RUN_STATE = "run_state"
    UNLIKELY_UNIT = "unlikely_unit"
    UNPLANNED_RUNS = "unplanned_runs"
    UNFINISHED_SWEEP = "unfinished_sweep"
    # the data of a fit
    FEW_POINTS = "few_points"
    ONE_RATIO = "one_ratio"
    REPEATED_DATA = "repeated_data"
    NO_HOLDOUT = "no_holdout"
    HOLDOUT_COVERAGE = "holdout_coverage"
    HOLDOUT_ONE_SIDED = "holdout_one_sided"
    CRITICAL_BATCH = "critical_batch"
    # its optimum
    AT_BOUND = "at_bound"
    ILL_CONDITIONED = "ill_conditioned"
    OTHER_MINIMA = "other_minima"
    STARTS_DISAGREE = "starts_disagree"
    NEAR_FLOOR = "near_floor"
    NOT_CONVERGED = "not_converged"
    NOT_IDENTIFIED = "not_identified"
    FAILED_RESAMPLES = "failed_resamples"
    NO_INTERVALS = "no_intervals"
    FEW_RESAMPLES = "few_resamples"
    # its diagnostics
    LACK_OF_FIT = "lack_of_fit"
    RUNS_ABOVE_LAW = "runs_above_law"
    FAR_OFF_LAW = "far_off_law"
    FLAGGED_POINTS_DECIDE = "flagged_points_decide"
    # the approaches to the frontier
    BUDGET_UNAVAILABLE = "budget_unavailable"
    FEW_BUDGETS = "few_budgets"
    RUNS_UNUSED = "runs_unused"
    APPROXIMATE_BUDGETS = "approximate_budgets"
    EXPONENTS_SUM = "exponents_sum"
    FINAL_LOSSES_ONLY = "final_losses_only"
    GRID_BIAS = "grid_bias"
    # a prediction
    FIT_STATUS = "fit_status"
    PUBLISHED_CAVEAT = "published_caveat"
    EXTRAPOLATION = "extrapolation"
    BELOW_DATA = "below_data"
    OUTSIDE_DATA = "outside_data"
    LAW_FORM = "law_form"
    UNPLANNED_COST = "unplanned_cost"
    UNTESTED = "untested"
    MISSED_BY_ALL = "missed_by_all"
    APPROACHES_DISAGREE = "approaches_disagree"
    NO_MODEL = "no_model"
    # a plan or a design
    OUTSIDE_RULE_RANGE = "outside_rule_range"
    NARROW_RATIO = "narrow_ratio"
    FEW_SIZES = "few_sizes"
    OFF_CENTRE = "off_centre"
    IMPRECISE_TARGET = "imprecise_target"
    AXES_MULTIPLY_COST = "axes_multiply_cost"
    # a tuning
    NO_SHORT_RUNS = "no_short_runs"
    EDGE_OPTIMUM = "edge_optimum"
    GRID_OPTIMUM = "grid_optimum"
    UNCERTAIN_OPTIMUM = "uncertain_optimum"


class ResultWarning(BaseModel):
    """One warning of a fit, a prediction or a plan; `str(warning)` is its sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: WarningCode
    message: str
    data: dict[str, Any] = Field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


def warn(code: WarningCode, message: str, **data: Any) -> ResultWarning:
    """A warning with the data behind its sentence."""
    return ResultWarning(code=code, message=message, data=data)
