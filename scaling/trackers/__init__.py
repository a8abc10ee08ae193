"""Finished runs in experiment trackers: W&B, TensorBoard and MLflow, as each run of a sweep ends
(`scaling run --track`) or afterwards (`scaling results export`).

Optional: the rows in Parquet are the truth, and each run is logged once, from its rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.errors import ScalingError, unknown_choice
from scaling.files import check_local

if TYPE_CHECKING:
    from scaling.trackers.export import RunLog

TRACKERS = ("wandb", "tensorboard", "mlflow")  # each the name of its package, too


def check(kinds: Sequence[str], where: str) -> None:
    """Raise ScalingError for a tracker that is not known, or whose package is not installed;
    `where` is the option that named it.
    """
    for kind in kinds:
        if kind not in TRACKERS:
            raise unknown_choice("tracker", kind, TRACKERS, where=where)
        if find_spec(kind) is None:
            raise ScalingError(
                f"{kind} needs a package that is not installed",
                where=where,
                remedy='pip install -e ".[trackers]"',
            )


def open_tracker(kind: str, out: str) -> Callable[[RunLog], bool]:
    """The tracker of a kind that writes to `out`: a folder, or for MLflow a URI. It logs a run, and
    says False where it has it already. Imports its package, which takes seconds.
    """
    if kind != "mlflow":
        check_local(Path(out))
    if kind == "wandb":
        from scaling.trackers.wandb_log import log_wandb, wandb_mode

        return partial(log_wandb, Path(out), wandb_mode())
    if kind == "tensorboard":
        from scaling.trackers.tensorboard_log import log_tensorboard

        return partial(log_tensorboard, Path(out))
    from scaling.trackers.mlflow_log import open_mlflow

    return open_mlflow(out)


def default_out(folder: Path, kind: str) -> str:
    """Where a sweep in training is logged: in its own folder, or where MLFLOW_TRACKING_URI says."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") if kind == "mlflow" else None
    return uri or str(folder / "tracking" / kind)
