"""A sweep's folder: what is planned, done, failed or left to do, each known from a file that a
person can open.

results/<sweep>/  sweep.toml  plan.json  runs/<run_id>.parquet  merged/  failures/<run_id>.txt
                  checkpoints/  kept/  weights/<run_id>.npz  leases/  ledger/  logs/  tracking/
                  damaged/  fits/  report/
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from scaling import files
from scaling.config import Sweep
from scaling.config.sweep_file import dump_sweep, load_run, load_sweep
from scaling.errors import ScalingError
from scaling.formatting import sanitize
from scaling.plan import Plan
from scaling.plan.document import PlanFile, RunOrigin, plan_file
from scaling.store import run_files

FileKind = Literal["rows", "failure", "checkpoint", "prefix", "lease", "ledger", "weights"]
KINDS: dict[FileKind, tuple[str, str]] = {
    "rows": ("runs", ".parquet"),  # of a finished run, until they are merged with others
    "failure": ("failures", ".txt"),  # why the last attempt failed, first line first
    "checkpoint": ("checkpoints", ".npz"),  # the state of an unfinished run
    "prefix": ("kept", ".npz"),  # from which a longer run continues, once the sweep asks for it
    "lease": ("leases", ".json"),  # the runs that a process has claimed
    "ledger": ("ledger", ".jsonl"),  # what that process has begun and ended
    "weights": ("weights", ".npz"),  # of a run that has ended, where they were kept
}
# where temporary files may be left by a kill
WRITTEN = ("", "merged", "fits", *(folder for folder, _ in KINDS.values()))
CHECKPOINTS = (".npz", ".previous.npz", ".sharded")  # suffixes of a run's checkpoints


PLAN_REMEDY = "run the sweep again; finished runs are kept"


class CorruptPlan(ScalingError):
    """plan.json is missing or not what was written; the next `scaling run` writes it anew."""


@dataclass(frozen=True)
class SweepFolder:
    """The paths of one sweep's folder; nothing is created by asking for a path."""

    path: Path

    def path_of(self, kind: FileKind, name: str) -> Path:
        """A file of a run, or the lease of that name."""
        folder, suffix = KINDS[kind]
        return self.path / folder / f"{name}{suffix}"

    def has_checkpoint(self, run_id: str) -> bool:
        """Whether training of the run (or of the pack of that name) has begun."""
        path = self.path_of("checkpoint", run_id)
        return any(path.with_suffix(suffix).exists() for suffix in CHECKPOINTS)

    def reuse_prefix_state(self, run_id: str) -> bool:
        """Make the kept state of a run its checkpoint; whether there was one."""
        target = self.path_of("checkpoint", run_id)
        with files.as_disk_error(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            for suffix in CHECKPOINTS:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(
                        self.path_of("prefix", run_id).with_suffix(suffix),
                        target.with_suffix(suffix),
                    )
        return self.has_checkpoint(run_id)

    def check_same_sweep(self, sweep: Sweep, simulated: str | None = None) -> None:
        """Raise ScalingError when the folder holds another sweep, or simulated results while these
        are real; an edited sweep is the same.

        What it holds is said by its plan, or else by a run of it.
        """
        name = law = None
        with contextlib.suppress(CorruptPlan):
            if files.exists(self.path / "plan.json"):
                planned = self.read_plan()
                name, law = planned.sweep, planned.simulated
        if name is None and run_files.has_runs(self.path):
            table = run_files.read_folder(self.path, ["run_id", "sweep", "config"]).table
            if table.num_rows:
                name = table.column("sweep")[0].as_py()
                law = load_run(table.column("config")[0].as_py(), str(self.path)).simulated
        if name is not None and name != sweep.name:
            raise ScalingError(
                f"holds the sweep {name!r}, not {sweep.name!r}",
                where=self.path,
                remedy="choose another --out folder or rename the sweep",
            )
        if name is not None and law != simulated:
            was = f"simulated runs ({law})" if law else "trained runs"
            raise ScalingError(
                f"holds {was}; trained and simulated runs do not mix, nor runs of two laws",
                where=self.path,
                remedy="choose another --out folder",
            )

    def write_plan(self, plan: Plan, origin: RunOrigin) -> None:
        """Publish the sweep file and plan.json, so that the folder explains itself without the
        corpus. A large plan takes a second to write, so one that exists already stays.
        """
        planned, path = plan_file(plan, origin), self.path / "plan.json"
        files.write_lines(self.path / "sweep.toml", dump_sweep(plan.sweep), comment="# ")
        with contextlib.suppress(CorruptPlan):
            if path.exists() and self.read_plan() == planned:
                return
        document = planned.to_dict()
        files.write_json(path, document, indent=1 if len(plan.runs) <= 1000 else None)

    def read_plan(self) -> PlanFile:
        """What `write_plan` wrote.

        Raises ScalingError when the folder holds no plan, CorruptPlan when it is not what was
        written.
        """
        path = self.path / "plan.json"
        try:
            stamp = files.retry(path, path.stat)
            return _plan(path, stamp.st_mtime_ns, stamp.st_size, stamp.st_ino)
        except (FileNotFoundError, NotADirectoryError):
            if run_files.has_runs(self.path):
                what = "is missing, though there are finished runs"
                raise CorruptPlan(what, where=path, remedy=PLAN_REMEDY) from None
            raise ScalingError(
                "holds no sweep (no plan.json)",
                where=self.path,
                remedy="train it first: scaling run SWEEP.toml; or name a folder made by it",
            ) from None
        except files.ChecksumError as error:
            raise CorruptPlan(f"is corrupt: {error}", where=path, remedy=PLAN_REMEDY) from None

    def write_failure(self, run_id: str, text: str) -> None:
        """Keep why a run failed."""
        files.write_lines(self.path_of("failure", run_id), text, comment="# ")

    def remove_failure(self, run_id: str) -> None:
        """Forget why the last attempt failed: the run begins anew."""
        path = self.path_of("failure", run_id)
        with files.as_disk_error(path, "remove"):
            path.unlink(missing_ok=True)

    def reason(self, run_id: str) -> str:
        """First line of the failure note; empty without one."""
        try:
            data = files.read_bytes(self.path_of("failure", run_id))
        except (FileNotFoundError, NotADirectoryError, files.ChecksumError):
            return ""
        return sanitize(data.decode("utf-8", errors="replace").partition("\n")[0])

    def reasons(self) -> dict[str, str]:
        """Of every run with a failure note, its reason."""
        return {
            path.stem: self.reason(path.stem)
            for path in files.list_files(self.path / "failures", ".txt")
        }

    def is_finished(self, run_id: str) -> bool:
        """Whether the run is published."""
        return run_files.is_finished(self.path, run_id)

    def clean(self, finished: Iterable[str], *, complete: bool = False) -> None:
        """Remove temporary files and the checkpoints of finished runs (all of them in a `complete`
        sweep).

        Only while no other process trains here.
        """
        gone, leftovers = set(finished), list[Path]()
        for name in WRITTEN:
            temporary = (self.path / name).glob(".*.tmp")
            leftovers += [path for path in temporary if files.TEMPORARY.match(path.name)]
        for path in (self.path / "checkpoints").glob("[!.]*"):
            if path.suffix != ".damaged" and (complete or path.name.partition(".")[0] in gone):
                leftovers.append(path)
        for path in leftovers:
            with files.as_disk_error(path, "remove"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def set_aside(self, path: Path) -> Path:
        """Move a corrupt file to damaged/, under a name of its own."""
        target = self.path / "damaged" / f"{path.parent.name}-{path.name}"
        count = 1
        while target.exists():
            count += 1
            target = target.with_name(f"{path.parent.name}-{count}-{path.name}")
        with files.as_disk_error(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        return target


def supports_law_fit(folder: Path) -> bool:
    """Whether a law can be fitted to the folder's runs, as far as its sweep file can be read."""
    path = folder / "sweep.toml"
    with contextlib.suppress(ScalingError):
        return not path.is_file() or load_sweep(path).supports_law_fit
    return True


@lru_cache(maxsize=1)
def _plan(path: Path, *stamp: int) -> PlanFile:
    """A plan as long as its file stays the same. Raises as the file deserves."""
    document = files.read_json(path)
    if "refused" in document:  # of former versions; without it their origin would be lost
        document["infeasible"] = document.pop("refused")
    try:
        return PlanFile.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "plan"
        raise files.ChecksumError(f"{name}: {first['msg']}") from None
