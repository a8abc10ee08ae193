"""W&B, offline or online: the sweep is the group, and a run keeps its id, so that a later session
continues it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError
from scaling.points.tracker_logs import wandb_ended, wandb_history
from scaling.store.rows import EndKind
from scaling.trackers.run_log import Point, RunInfo, RunLog

PROJECT = "scaling"
WRITE_SECONDS = 60.0  # that W&B's own process may take to write an offline run to its end


def wandb_mode() -> str:
    """WANDB_MODE, or whether a login is stored: a question for a key would wait forever."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")


class WandBLog(RunLog):
    """One run of the project WANDB_PROJECT (or "scaling"), with its files below `out`; begun when
    there is something that it takes: its history only goes forward.

    What an offline run has logged before is read from its files; of an online run only its number
    of steps is known, once it is begun.
    """

    def __init__(self, out: Path, mode: str, run: RunInfo) -> None:
        super().__init__(run)
        self._out, self._mode = out, mode
        self._session: Any = None
        for path in self._files():
            for step, values in wandb_history(path):
                for name in values:
                    self.steps[name].add(step)
        self._step = max((max(steps) for steps in self.steps.values()), default=-1)

    def _files(self) -> list[Path]:
        """The files of an offline run, one for each session, in order of time."""
        return sorted(self._out.glob(f"wandb/offline-run-*/run-{self.run.run_id}.wandb"))

    def _begin(self) -> Any:
        """A new session of the run, as `wandb.init` gives it."""
        import wandb

        run_id, mode = self.run.run_id, self._mode
        self._out.mkdir(parents=True, exist_ok=True)
        # a folder is named after its second: another session within it would overwrite the first
        while any(self._out.glob(f"wandb/*run-{datetime.now():%Y%m%d_%H%M%S}-{run_id}")):
            time.sleep(0.05)
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=self.run.sweep,
            id=run_id,
            name=run_id,
            dir=str(self._out),
            config=dict(self.run.settings),
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

    def write(self, point: Point) -> bool:
        """One row of history; False for a step below the last, which W&B does not take."""
        if point.step >= self._step and self._session is None:
            self._session = self._begin()
            if self._session.resumed:
                self._step = max(self._step, self._session.starting_step)
        if point.step < self._step:
            return False
        self._session.log(dict(point.values), step=point.step)
        self._step = point.step
        return True

    def end(self, status: EndKind, points: Iterable[Point] = ()) -> None:
        """The last values as the summary, then close; nothing is begun for a run of which W&B has
        all.
        """
        if self._session is None:
            return
        for point in points:
            self._session.summary.update(dict(point.values))
        self._session.summary.update({"status": status})
        self._session.finish(exit_code=0 if status in ("done", "diverged") else 1)
        if self._mode == "offline":  # the next session reads this file to its last record
            path, deadline = self._files()[-1], time.monotonic() + WRITE_SECONDS
            while not is_whole(path) and time.monotonic() < deadline:
                time.sleep(0.05)


def is_whole(path: Path) -> bool:
    """Whether an offline run's file ends as one that was finished."""
    try:
        return wandb_ended(path)
    except ScalingError:
        return False
