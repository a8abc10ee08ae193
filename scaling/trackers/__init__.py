"""Runs in other people's trackers: W&B, TensorBoard and MLflow, while a sweep trains (`scaling run --track`) and afterwards from its
rows (`scaling results export`). Optional, and never in the way: the rows in Parquet are the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from scaling.errors import ScalingError, unknown_choice

KINDS = ("wandb", "tensorboard", "mlflow")  # each the name of its package, too


def check(kinds: Sequence[str], where: str) -> None:
    """Raise ScalingError for a tracker that is not known, or whose package is not installed; `where` is the option that named it."""
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_choice("tracker", kind, KINDS, where=where)
        if find_spec(kind) is None:
            raise ScalingError(
                f"{kind} needs a package that is not installed",
                where=where,
                remedy='pip install -e ".[trackers]"',
            )
