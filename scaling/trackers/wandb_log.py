"""W&B, offline or online: the sweep is the group, and a run keeps its id."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from scaling.trackers.export import RunLog

PROJECT = "scaling"
FINISHED = "scaling-finished"  # a file in the folder of an offline run that was logged to its end


def wandb_mode() -> str:
    """WANDB_MODE, or whether a login is stored: a question for a key would wait forever."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")


def log_wandb(out: Path, mode: str, run: RunLog) -> bool:
    """Log a run to the project WANDB_PROJECT (or "scaling"), with its files below `out`.

    Online, where an earlier attempt was cut short, it goes on at the step that W&B has come to.
    """
    import wandb

    for folder in out.glob(f"wandb/offline-run-*-{run.run_id}"):
        if (folder / FINISHED).exists():
            return False
        shutil.rmtree(folder)  # what a kill has left
    out.mkdir(parents=True, exist_ok=True)
    session = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        group=run.sweep,
        id=run.run_id,
        name=run.run_id,
        dir=str(out),
        config=dict(run.settings),
        mode=mode,  # type: ignore[arg-type]
        resume=None if mode == "offline" else "allow",  # offline the id alone decides
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            console="off",
            x_disable_stats=True,
            x_disable_meta=True,
            disable_git=True,
            save_code=False,
        ),
    )
    new = [point for point in run.points if point.step >= session.starting_step]
    for point in new:
        session.log(dict(point.values), step=point.step)
    session.finish()
    for folder in out.glob(f"wandb/offline-run-*-{run.run_id}"):
        (folder / FINISHED).touch()
    return bool(new)
