"""Hyper-parameters as part of the law: ladders of complete runs, their optima with standard errors, and a rule that transfers.

An exponent moves from .84 to .50 by tuning alone (Porian 2024). This room decides which rungs to train and what they mean; who
trains them is the caller's business.
"""

from scaling.tuning.document import MARK, CachedTuning, document, emit, load_tuned, publish
from scaling.tuning.field_tuning import Planner, Train, planner
from scaling.tuning.tune import FOLDER, Tuned, is_pending, stage_folders, tune

__all__ = [
    "FOLDER",
    "MARK",
    "CachedTuning",
    "Planner",
    "Train",
    "Tuned",
    "document",
    "emit",
    "is_pending",
    "load_tuned",
    "planner",
    "publish",
    "stage_folders",
    "tune",
]
