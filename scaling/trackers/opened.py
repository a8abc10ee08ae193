"""A tracker by its name: the one place that knows all of them."""

from __future__ import annotations

import os
from pathlib import Path

from scaling.trackers.series import Tracker


def opened(kind: str, out: str) -> Tracker:
    """The tracker of a kind that writes to `out`: a folder, or for MLflow a URI. Imports its package, which takes seconds."""
    if kind == "wandb":
        from scaling.trackers.wandb_log import WandB

        return WandB(Path(out))
    if kind == "tensorboard":
        from scaling.trackers.tensorboard_log import TensorBoard

        return TensorBoard(Path(out))
    from scaling.trackers.mlflow_log import MLflow

    return MLflow(out)


def place(folder: Path, kind: str) -> str:
    """Where a sweep in training is logged: below its own folder, or where MLFLOW_TRACKING_URI says."""
    given = os.environ.get("MLFLOW_TRACKING_URI") if kind == "mlflow" else None
    return given or str(folder / "tracking" / kind)
