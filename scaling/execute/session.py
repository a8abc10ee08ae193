"""One sitting of `scaling run`: the folder is checked and mended, what is missing is trained, what is many is merged."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaling import files
from scaling.errors import ScalingError
from scaling.execute.coordinator import ExecutionPlan, SessionEnd, execute
from scaling.execute.events import OnEvent
from scaling.execute.lease import Lease
from scaling.execute.local import Launcher
from scaling.execute.options import OnMessage
from scaling.execute.signals import Signals
from scaling.execute.sweep_folder import Damaged, SweepFolder
from scaling.plan import Plan, PlannedRun
from scaling.plan.document import RunOrigin
from scaling.store import compaction, run_files
from scaling.store.provenance import code_digest, versions


@dataclass
class SweepSession:
    """What one command does with a folder. `on_message` gets what a person should know; `simulated` names a law."""

    folder: SweepFolder
    plan: Plan
    on_message: OnMessage
    simulated: str | None = None
    accept_changes: bool = False
    workers_here: bool = True
    lease: Lease = field(init=False)

    def __post_init__(self) -> None:
        self.lease = Lease(self.folder.path, here=self.workers_here)

    def prepare(self) -> list[PlannedRun]:
        """Check the folder, publish the plan, set damaged files aside; returns what is missing. Inside the lease.

        Raises ScalingError for another sweep, for results of another origin, or (74) for a disk that refuses.
        """
        with self.lease.locked():
            self.folder.check_same_sweep(self.plan.sweep, self.simulated)
            now = origin(self.plan, self.simulated)
            for change in check(self.folder, now, accepted=self.accept_changes):
                self.on_message(f"warning: results of two origins: {change}")
            self.folder.write_plan(self.plan, now)
            self._quarantine_corrupt()
            finished = run_files.finished_run_ids(self.folder.path)
            missing = [item for item in self.plan.runs if item.run_id not in finished]
        if len(run_files.run_files(self.folder.path)) > compaction.COMPACT_ABOVE:
            compact(self.folder.path, self.lease)
        if self.lease.is_alone():
            self.folder.clean(finished, complete=not missing)
        return missing

    def _quarantine_corrupt(self) -> None:
        """Set damaged result files aside; what they held is missing then, and trained again."""
        for path in _non_regular_files(self.folder.path):
            self.on_message(
                f"warning: {path.parent.name}/{path.name} is not a regular file; set aside as damaged/{self.folder.set_aside(path).name}"
            )
        for damage in run_files.corrupt_files(self.folder.path):
            if damage.path.parent.name == run_files.MERGED:
                compaction.recover_runs(self.folder.path, damage.path)
            target = self.folder.set_aside(damage.path)
            count = (
                f"{len(damage.run_ids)} runs are"
                if len(damage.run_ids) != 1
                else f"run {damage.run_ids[0]} is"
            )
            self.on_message(
                f"warning: {damage}; set aside as {target.relative_to(self.folder.path)}, {count} trained again"
            )
        for path in files.list_files(self.folder.path / "failures", ".txt"):
            if not _is_whole(path):
                self.on_message(
                    f"warning: failures/{path.name} is corrupt; set aside as {self.folder.set_aside(path).name}"
                )

    def train(
        self,
        runs: list[PlannedRun],
        execution: ExecutionPlan,
        launcher: Launcher,
        signals: Signals,
        on_event: OnEvent,
    ) -> SessionEnd:
        """Train `runs`, and merge run files where they have become many."""
        ended = execute(
            self.folder,
            self.plan.sweep.name,
            runs,
            execution,
            launcher,
            self.lease,
            signals,
            on_event,
        )
        if len(run_files.run_files(self.folder.path)) > compaction.COMPACT_ABOVE:
            compact(self.folder.path, self.lease)
        return ended


def compact(folder: Path, lease: Lease) -> compaction.CompactionResult:
    """Merge the run files of a folder, file by file, so that nobody waits long for a decision of his own."""
    found: list[compaction.CompactionResult] = []
    while not found or found[-1].removed > found[-1].written:  # else nothing becomes less
        with lease.locked():
            found.append(compaction.compact(folder, most=1))
    runs, written, removed = (
        sum(getattr(part, name) for part in found) for name in ("runs", "written", "removed")
    )
    return compaction.CompactionResult(
        runs,
        written,
        removed,
        tuple(dict.fromkeys(text for part in found for text in part.corrupt)),
    )


def _non_regular_files(folder: Path) -> list[Path]:
    """What stands in the place of a result file without being one: folders, pipes, links that lead nowhere."""
    places = [(folder / name, ".parquet") for name in (run_files.RUNS, run_files.MERGED)] + [
        (folder / "failures", ".txt")
    ]
    return [
        path
        for place, suffix in places
        if place.is_dir()
        for path in set(place.glob(f"[!.]*{suffix}")) - set(files.list_files(place, suffix))
    ]


def _is_whole(path: Path) -> bool:
    try:
        files.check_file(path)
    except (files.ChecksumError, FileNotFoundError):
        return False
    return True


def origin(plan: Plan, simulated: str | None = None) -> RunOrigin:
    """What the runs of a plan are trained by, as plan.json keeps it."""
    task = plan.runs[0].run.task
    corpus = getattr(task, "digest", None) or task.kind
    if simulated is not None:
        return RunOrigin(corpus=corpus, simulated=simulated)
    return RunOrigin(corpus=corpus, code=code_digest(), versions=versions())


def check(folder: SweepFolder, now: RunOrigin, *, accepted: bool) -> list[str]:
    """What has changed since the folder's finished runs were trained, as lines.

    Raises ScalingError unless there is nothing, or it is `accepted`.
    """
    if not (folder.path / "plan.json").exists() or not run_files.has_runs(folder.path):
        return []
    try:
        planned = folder.read_plan()
    except Damaged:
        return [
            "plan.json is corrupt: whether code or corpus have changed is not known; it is written anew"
        ]
    changed = [
        text
        for text in (
            _difference(name, getattr(planned, name), getattr(now, name))
            for name in ("corpus", "code", "versions")
        )
        if text
    ]
    if changed and not accepted:
        raise ScalingError(
            f"its finished runs are of another origin: {'; '.join(changed)}",
            where=str(folder.path),
            remedy="choose another --out folder, restore what has changed, or mix them with --accept-changes",
        )
    return changed


def _difference(name: str, was: Any, now: Any) -> str:
    if was is None or now is None or was == now:
        return ""
    if isinstance(was, dict):
        parts = [
            f"{key} {was.get(key)} became {now.get(key)}"
            for key in sorted({*was, *now})
            if was.get(key) != now.get(key)
        ]
        return ", ".join(parts)
    return f"{name} was {str(was)[:12]}, is {str(now)[:12]}"
