"""A sweep's folder: what is planned, done, failed or left to do, each known from a file that a person can open.

results/<sweep>/  sweep.toml  plan.json  runs/<run_id>.parquet  failures/<run_id>.txt  checkpoints/  fits/  report/
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from scaling.config import Sweep
from scaling.errors import DISK, STOPPED, ScalingError
from scaling.plan import Plan
from scaling.results import DIVERGED, read_parquet, write_text
from scaling.sweepfile import dump_sweep

Status = Literal["done", "running", "failed", "missing"]


@dataclass(frozen=True)
class SweepFolder:
    """The paths of one sweep's folder; nothing is created by asking for a path."""

    path: Path

    def run_file(self, run_id: str) -> Path:
        """Its existence is what says that the run has ended."""
        return self.path / "runs" / f"{run_id}.parquet"

    def failure(self, run_id: str) -> Path:
        """Why the last attempt failed, first line first."""
        return self.path / "failures" / f"{run_id}.txt"

    def checkpoint(self, run_id: str) -> Path:
        """The state of an unfinished run."""
        return self.path / "checkpoints" / f"{run_id}.npz"

    @property
    def packing(self) -> Path:
        """Which shapes share programs, as it was chosen when the sweep was begun."""
        return self.path / "packing.json"

    @property
    def progress(self) -> Path:
        """What the runs in training last said; written by the process that holds the lock."""
        return self.path / "progress.json"

    def lock(self) -> FileLock:
        """Hold the folder for training. Raises ScalingError: 75 when another process holds it, 74 when it cannot be made."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise ScalingError(
                "another process is training this sweep",
                where=str(self.path),
                remedy="watch it with `scaling status`, or wait for it to end",
                exit_code=STOPPED,
            ) from None
        except OSError as error:
            raise ScalingError(
                f"cannot be written: {error.strerror}", where=str(self.path), remedy="choose another --out folder", exit_code=DISK
            ) from error
        return lock

    def is_held(self) -> bool:
        """Whether a process is training this sweep now."""
        if not (self.path / ".lock").exists():
            return False
        lock = FileLock(self.path / ".lock")
        try:
            with lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    def check_same_sweep(self, sweep: Sweep) -> None:
        """Raise ScalingError when the folder holds another sweep; the same sweep edited is welcome."""
        if (self.path / "plan.json").exists() and (name := self.read_plan()["sweep"]) != sweep.name:
            raise ScalingError(
                f"holds the sweep {name!r}, not {sweep.name!r}",
                where=str(self.path),
                remedy="choose another --out folder or rename the sweep",
            )

    def write_plan(self, plan: Plan) -> None:
        """Publish the sweep file and its planned runs, so that the folder explains itself without the corpus."""
        document = {
            "sweep": plan.sweep.name,
            "runs": [
                {
                    "run_id": item.run_id,
                    "n_params": item.n_params,
                    "tokens": item.run.tokens,
                    "flops": item.flops,
                    "config": item.run.model_dump(mode="json", exclude_defaults=True),
                }
                for item in plan.runs
            ],
            "refused": [{"cell": str(cell), "reason": reason} for cell, reason in plan.refused],
        }
        write_text(self.path / "sweep.toml", dump_sweep(plan.sweep))
        write_text(self.path / "plan.json", json.dumps(document, indent=1) + "\n")

    def read_plan(self) -> dict[str, Any]:
        """The document of `write_plan`. Raises ScalingError when the folder holds no plan."""
        path = self.path / "plan.json"
        try:
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise ScalingError(
                "holds no sweep (no plan.json)", where=str(self.path), remedy="name a sweep file or a folder made by `scaling run`"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ScalingError(f"is damaged: {error}", where=str(path), remedy="run the sweep again; finished runs are kept") from None
        return document

    def attempts(self, run_id: str) -> int:
        """How many times the run was handed to a worker."""
        path = self.path / "attempts" / run_id
        return int(path.read_text()) if path.exists() else 0

    def begin_attempt(self, run_id: str) -> None:
        """Count one more attempt."""
        write_text(self.path / "attempts" / run_id, str(self.attempts(run_id) + 1))

    def outcome(self, run_id: str) -> tuple[Status, str]:
        """Whether a run is done, failed (with its reason) or missing, by its files alone."""
        if self.run_file(run_id).exists():
            reason = self.reason(run_id)
            return ("failed", reason) if reason else ("done", "")
        reason = self.reason(run_id)
        return ("failed", reason) if reason else ("missing", "")

    def reason(self, run_id: str) -> str:
        """First line of the failure note; empty without one."""
        path = self.failure(run_id)
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0] if path.exists() else ""


def final_loss(path: Path) -> tuple[int, float] | None:
    """(step, loss) of the last validation in a run file, or None for a run that diverged before one."""
    table = read_parquet(path).select(["split", "metric", "step", "value"]).to_pylist()
    losses = [(row["step"], row["value"]) for row in table if row["split"] == "val" and row["metric"] == "loss"]
    return None if not losses or any(row["metric"] == DIVERGED for row in table) else max(losses)
