"""W&B, offline or online: the sweep is the group, a run has its own id, so that a later sitting goes on with it."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError
from scaling.points.tracker_logs import wandb_ended, wandb_history
from scaling.trackers.series import Point, RunInfo, Status

PROJECT = "scaling"
WRITING_SECONDS = 10.0  # that W&B may take to write what it was told


class WandB:
    """Runs of the project WANDB_PROJECT (or "scaling"), with their files below `out`.

    Offline where WANDB_MODE says so, or says nothing and nobody is logged in: a question for a key would wait for ever.
    """

    def __init__(self, out: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.out = out
        self.mode: Any = os.environ.get("WANDB_MODE") or (
            "online" if wandb.login(prompt=False) else "offline"
        )

    def open(self, about: RunInfo) -> WandBLog:
        """The run of this id; what an offline run has logged in earlier sittings is read from its files."""
        import wandb

        held: dict[str, set[int]] = defaultdict(set)
        for path in self._sittings(about.run_id):
            for step, values in wandb_history(path):
                for name in values:
                    held[name].add(step)
        return WandBLog(
            lambda: self._begin(wandb, about),
            held,
            lambda: self._sittings(about.run_id)[-1:] if self.mode == "offline" else [],
        )

    def _sittings(self, run_id: str) -> list[Path]:
        """The files of an offline run, one a sitting, in order of time."""
        return sorted(self.out.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))

    def _begin(self, wandb: Any, about: RunInfo) -> Any:
        self.out.mkdir(parents=True, exist_ok=True)
        while any(self.out.glob(f"wandb/*run-{datetime.now():%Y%m%d_%H%M%S}-{about.run_id}")):
            time.sleep(
                0.05
            )  # a folder is named after its second: a second sitting within it would write over the first
        quiet = wandb.Settings(
            silent=True,
            console="off",
            x_disable_stats=True,
            x_disable_meta=True,
            disable_git=True,
            save_code=False,
        )
        resume = None if self.mode == "offline" else "allow"  # offline the id alone decides
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=about.sweep,
            id=about.run_id,
            name=about.run_id,
            dir=str(self.out),
            config=dict(about.settings),
            mode=self.mode,
            resume=resume,
            reinit="create_new",
            settings=quiet,
        )


class WandBLog:
    """One run in W&B, begun when there is something that it takes: its history only goes forward.

    Of an online run only its number of steps is known, once it is begun; a step that it has is left out whole.
    """

    def __init__(
        self, begin: Any, held: dict[str, set[int]], file: Callable[[], list[Path]]
    ) -> None:
        self.held, self._begin, self._file = held, begin, file
        self._run: Any = None
        self._step = max((max(steps) for steps in held.values()), default=-1)

    def write(self, point: Point) -> bool:
        """One row of history; False for a step below the last, which W&B does not take."""
        if point.step < self._step:
            return False
        if self._run is None:
            self._run = self._begin()
            if self._run.resumed:
                self._step = max(self._step, self._run.starting_step)
        if point.step < self._step:
            return False
        self._run.log(dict(point.values), step=point.step)
        self._step = point.step
        return True

    def end(self, status: Status, last: Mapping[str, float]) -> None:
        """The last values as the summary, then close; nothing is begun for a run of which W&B has all."""
        if self._run is not None:
            self._run.summary.update({**last, "status": status})
            self._run.finish(exit_code=0 if status in ("done", "diverged") else 1)
            self._wait_for_the_file()

    def _wait_for_the_file(self) -> None:
        """W&B's own process may still be writing when it has finished: the next sitting reads this file to its last record."""
        deadline = time.monotonic() + WRITING_SECONDS
        while any(not is_whole(path) for path in self._file()) and time.monotonic() < deadline:
            time.sleep(0.05)


def is_whole(path: Path) -> bool:
    """Whether an offline run's file ends as one that was finished."""
    try:
        return wandb_ended(path)
    except ScalingError:
        return False
