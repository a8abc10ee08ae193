"""One session of `scaling run` in a folder: it is checked, corrupt files are set aside, what is
missing is trained, many run files are merged.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from scaling import files
from scaling.errors import ScalingError
from scaling.execute.coordinator import ExecutionPlan, SessionEnd, execute
from scaling.execute.events import OnEvent
from scaling.execute.lease import Lease
from scaling.execute.local import Launcher
from scaling.execute.options import OnMessage
from scaling.execute.signals import Signals
from scaling.execute.sweep_folder import CorruptPlan, SweepFolder
from scaling.plan import Plan, PlannedRun
from scaling.plan.document import RunOrigin
from scaling.store import compaction, run_files
from scaling.store.provenance import code_digest, versions


@dataclass
class SweepSession:
    """What one command does with a folder. `on_message` gets what a person should know; `simulated`
    names a law.
    """

    folder: SweepFolder
    plan: Plan
    on_message: OnMessage
    simulated: str | None = None
    allow_changes: bool = False
    workers_here: bool = True
    lease: Lease = field(init=False)

    def __post_init__(self) -> None:
        self.lease = Lease(self.folder.path, here=self.workers_here)

    def prepare(self) -> list[PlannedRun]:
        """Check the folder, publish the plan, set corrupt files aside; returns what is missing.
        Inside the lease.

        Raises ScalingError for another sweep, for results of another origin, or (74) for a disk
        that refuses.
        """
        with self.lease.locked():
            self.folder.check_same_sweep(self.plan.sweep, self.simulated)
            now = origin(self.plan, self.simulated)
            for change in changes_of_origin(self.folder, now, allowed=self.allow_changes):
                self.on_message(f"warning: results of two origins: {change}")
            self.folder.write_plan(self.plan, now)
            self._set_corrupt_aside()
            finished = run_files.finished_run_ids(self.folder.path)
            missing = [item for item in self.plan.runs if item.run_id not in finished]
            self._take_up_kept(missing, finished)
        self._compact_many()
        if self.lease.is_alone():
            self.folder.clean(finished, complete=not missing)
        return missing

    def _set_corrupt_aside(self) -> None:
        """Set corrupt result files aside; what they held is missing then, and trained again."""
        root = self.folder.path
        places = [
            (run_files.RUNS, ".parquet"),
            (run_files.MERGED, ".parquet"),
            ("failures", ".txt"),
        ]
        for name, suffix in places:
            regular = set(files.list_files(root / name, suffix))
            for path in set((root / name).glob(f"[!.]*{suffix}")) - regular:
                aside = self.folder.set_aside(path)
                self.on_message(
                    f"warning: {name}/{path.name} is not a regular file; set aside as "
                    f"damaged/{aside.name}"
                )
        for file in run_files.corrupt_files(root):
            aside, runs = self.folder.set_aside(file.path), file.run_ids
            count = f"run {runs[0]} is" if len(runs) == 1 else f"{len(runs)} runs are"
            self.on_message(
                f"warning: {file}; set aside as damaged/{aside.name}, {count} trained again"
            )
        for path in files.list_files(root / "failures", ".txt"):
            try:
                files.check_file(path)
            except FileNotFoundError:
                continue
            except files.ChecksumError:
                aside = self.folder.set_aside(path)
                self.on_message(
                    f"warning: failures/{path.name} is corrupt; set aside as damaged/{aside.name}"
                )

    def _take_up_kept(self, missing: list[PlannedRun], finished: Collection[str]) -> None:
        """Continue the stable phase of finished runs for longer ones, where its state was kept."""
        reached: dict[str, int] = {}
        for item in self.plan.runs if missing and self.simulated is None else ():
            if item.run.stable_steps and item.run_id in finished:
                known = reached.get(item.run.prefix_key, item.run.n_steps)
                reached[item.run.prefix_key] = min(known, item.run.n_steps)
        counts = Counter(
            self.folder.take_up_kept(item.run_id)
            for item in missing
            if item.run.n_steps > reached.get(item.run.prefix_key, item.run.n_steps)
            and not self.folder.has_checkpoint(item.run_id)
        )
        if counts:
            self.on_message(
                f"longer runs of finished prefixes: {counts[True]} continue from kept states, "
                f"{counts[False]} are trained from the start (no state was kept: design.extend_to)"
            )

    def _compact_many(self) -> None:
        if len(run_files.run_files(self.folder.path)) > compaction.COMPACT_ABOVE:
            compact(self.folder.path, self.lease)

    def train(
        self,
        runs: list[PlannedRun],
        execution: ExecutionPlan,
        launcher: Launcher,
        signals: Signals,
        on_event: OnEvent,
    ) -> SessionEnd:
        """Train `runs`, and merge run files where they have become many."""
        name = self.plan.sweep.name
        end = execute(self.folder, name, runs, execution, launcher, self.lease, signals, on_event)
        self._compact_many()
        return end


def compact(folder: Path, lease: Lease) -> compaction.CompactionResult:
    """Merge the run files of a folder, one file at a time, so that no other process waits long for
    the lock.
    """
    parts: list[compaction.CompactionResult] = []
    while not parts or parts[-1].written:
        with lease.locked():
            parts.append(compaction.compact(folder))
    return compaction.CompactionResult(
        runs=sum(part.runs for part in parts),
        written=sum(part.written for part in parts),
        removed=sum(part.removed for part in parts),
        corrupt=parts[-1].corrupt,
    )


def origin(plan: Plan, simulated: str | None = None) -> RunOrigin:
    """What the runs of a plan are trained by, as plan.json keeps it."""
    task = plan.runs[0].run.task
    corpus = getattr(task, "digest", None) or task.kind
    if simulated is not None:
        return RunOrigin(corpus=corpus, simulated=simulated)
    flags = os.environ.get("XLA_FLAGS", "")
    return RunOrigin(corpus=corpus, code=code_digest(), versions=versions(), xla_flags=flags)


def changes_of_origin(folder: SweepFolder, now: RunOrigin, *, allowed: bool) -> list[str]:
    """What has changed since the folder's finished runs were trained, as lines.

    Raises ScalingError unless there is nothing, or it is `allowed`.
    """
    if not (folder.path / "plan.json").exists() or not run_files.has_runs(folder.path):
        return []
    try:
        before = folder.read_plan()
    except CorruptPlan:
        return [
            "plan.json is corrupt: whether code or corpus have changed is not known; it is written "
            "anew"
        ]
    changes = []
    for name in ("corpus", "code"):
        old, new = getattr(before, name), getattr(now, name)
        if old and new and old != new:
            changes.append(f"{name} was {old[:12]}, is {new[:12]}")
    if None not in (before.xla_flags, now.xla_flags) and before.xla_flags != now.xla_flags:
        changes.append(f"XLA_FLAGS was {before.xla_flags!r:.80}, is {now.xla_flags!r:.80}")
    old_versions, new_versions = before.versions or {}, now.versions or {}
    for name in sorted(old_versions.keys() | new_versions) if old_versions and new_versions else ():
        if old_versions.get(name) != new_versions.get(name):
            changes.append(f"{name} {old_versions.get(name)} became {new_versions.get(name)}")
    if changes and not allowed:
        raise ScalingError(
            f"its finished runs are of another origin: {'; '.join(changes)}",
            where=str(folder.path),
            remedy="choose another --out folder, restore what has changed, or mix them with "
            "--accept-changes",
        )
    return changes
