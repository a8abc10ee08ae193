"""W&B, offline or online: the sweep is the group, and a run keeps its id, so that a later session
continues it.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError
from scaling.points.tracker_logs import wandb_ended, wandb_history
from scaling.trackers.run_log import Point, RunInfo, Status

PROJECT = "scaling"
WRITE_SECONDS = 10.0  # that W&B's own process may take to write an offline run to its end


class WandB:
    """Runs of the project WANDB_PROJECT (or "scaling"), with their files below `out`.

    Offline where WANDB_MODE says so, or says nothing and no login is stored: a question for a key
    would wait forever.
    """

    def __init__(self, out: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.out = out
        self.mode: Any = os.environ.get("WANDB_MODE") or (
            "online" if wandb.login(prompt=False) else "offline"
        )

    def open(self, run: RunInfo) -> WandBLog:
        """The run of this id; what an offline run has logged before is read from its files."""
        return WandBLog(self, run)

    def session_files(self, run_id: str) -> list[Path]:
        """The files of an offline run, one for each session, in order of time."""
        return sorted(self.out.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))

    def begin(self, run: RunInfo) -> Any:
        """A new session of a run, as `wandb.init` gives it."""
        import wandb

        self.out.mkdir(parents=True, exist_ok=True)
        # a folder is named after its second: another session within it would overwrite the first
        while any(self.out.glob(f"wandb/*run-{datetime.now():%Y%m%d_%H%M%S}-{run.run_id}")):
            time.sleep(0.05)
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=run.sweep,
            id=run.run_id,
            name=run.run_id,
            dir=str(self.out),
            config=dict(run.settings),
            mode=self.mode,
            resume=None if self.mode == "offline" else "allow",  # offline the id alone decides
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


class WandBLog:
    """One run in W&B, begun when there is something that it takes: its history only goes forward.

    Of an online run only its number of steps is known, once it is begun.
    """

    def __init__(self, tracker: WandB, run: RunInfo) -> None:
        self._tracker, self._info = tracker, run
        self._run: Any = None
        self.steps: dict[str, set[int]] = defaultdict(set)
        for path in tracker.session_files(run.run_id):
            for step, values in wandb_history(path):
                for name in values:
                    self.steps[name].add(step)
        self._step = max((max(steps) for steps in self.steps.values()), default=-1)

    def write(self, point: Point) -> bool:
        """One row of history; False for a step below the last, which W&B does not take."""
        if point.step < self._step:
            return False
        if self._run is None:
            self._run = self._tracker.begin(self._info)
            if self._run.resumed:
                self._step = max(self._step, self._run.starting_step)
        if point.step < self._step:
            return False
        self._run.log(dict(point.values), step=point.step)
        self._step = point.step
        return True

    def end(self, status: Status, last: Mapping[str, float]) -> None:
        """The last values as the summary, then close; nothing is begun for a run of which W&B has
        all.
        """
        if self._run is None:
            return
        self._run.summary.update({**last, "status": status})
        self._run.finish(exit_code=0 if status in ("done", "diverged") else 1)
        if self._tracker.mode == "offline":  # the next session reads this file to its last record
            path = self._tracker.session_files(self._info.run_id)[-1]
            deadline = time.monotonic() + WRITE_SECONDS
            while not is_whole(path) and time.monotonic() < deadline:
                time.sleep(0.05)


def is_whole(path: Path) -> bool:
    """Whether an offline run's file ends as one that was finished."""
    try:
        return wandb_ended(path)
    except ScalingError:
        return False
