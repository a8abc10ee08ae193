"""Tuned hyper-parameters: grids of complete runs before a sweep, their optima with standard errors,
and a rule over model size.

An exponent moves from 0.84 to 0.50 by tuning alone (Porian 2024). The package decides which values
to train and what they mean; the caller trains them.
"""

from scaling.tuning.document import (
    MARK,
    CachedTuning,
    Tuned,
    TuningResult,
    check_target,
    load_tuned,
    write_tuned_sweep,
)
from scaling.tuning.field_tuning import Planner, Train, planner
from scaling.tuning.tune import FOLDER, is_pending, table_folders, tune

__all__ = [
    "FOLDER",
    "MARK",
    "CachedTuning",
    "Planner",
    "Train",
    "Tuned",
    "TuningResult",
    "check_target",
    "is_pending",
    "load_tuned",
    "planner",
    "table_folders",
    "tune",
    "write_tuned_sweep",
]
