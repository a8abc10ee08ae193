"""One sitting of `scaling run`: the folder is checked and mended, what is missing is trained, what is many is merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scaling import archive, durable, merge
from scaling.execute import origin
from scaling.execute.coordinator import Ended, Listener, Manner, execute
from scaling.execute.folder import SweepFolder
from scaling.execute.lease import Lease
from scaling.execute.processes import Launcher
from scaling.execute.signals import Signals
from scaling.plan import Plan, PlannedRun

Say = Callable[[str], None]


@dataclass
class Sitting:
    """What one command does with a folder. `say` is told what a person should know; `simulated` names a law."""

    folder: SweepFolder
    plan: Plan
    say: Say
    simulated: str | None = None
    accept_changes: bool = False
    workers_here: bool = True
    lease: Lease = field(init=False)

    def __post_init__(self) -> None:
        self.lease = Lease(self.folder.path, here=self.workers_here)

    def settle(self) -> list[PlannedRun]:
        """Check the folder, publish the plan, set damaged files aside; returns what is missing. Inside the lease.

        Raises ScalingError for another sweep, for results of another origin, or (74) for a disk that refuses.
        """
        with self.lease.deciding():
            self.folder.check_same_sweep(self.plan.sweep, self.simulated)
            now = origin.origin(self.plan, self.simulated)
            for change in origin.check(self.folder, now, accepted=self.accept_changes):
                self.say(f"warning: results of two origins: {change}")
            self.folder.write_plan(self.plan, now)
            self._mend()
            finished = archive.finished(self.folder.path)
            missing = [item for item in self.plan.runs if item.run_id not in finished]
        if len(archive.run_files(self.folder.path)) > merge.WORTH:
            compact(self.folder.path, self.lease)
        if self.lease.is_alone():
            self.folder.clean(finished, complete=not missing)
        return missing

    def _mend(self) -> None:
        """Set damaged result files aside; what they held is missing then, and trained again."""
        for path in _no_files(self.folder.path):
            self.say(f"warning: {path.parent.name}/{path.name} is no file; set aside as damaged/{self.folder.set_aside(path).name}")
        for damage in archive.damages(self.folder.path):
            if damage.path.parent.name == archive.MERGED:
                merge.rescue(self.folder.path, damage.path)
            target = self.folder.set_aside(damage.path)
            count = f"{len(damage.run_ids)} runs are" if len(damage.run_ids) != 1 else f"run {damage.run_ids[0]} is"
            self.say(f"warning: {damage}; set aside as {target.relative_to(self.folder.path)}, {count} trained again")
        for path in durable.listed(self.folder.path / "failures", ".txt"):
            if not _is_whole(path):
                self.say(f"warning: failures/{path.name} is damaged; set aside as {self.folder.set_aside(path).name}")

    def train(
        self, runs: list[PlannedRun], manner: Manner, launcher: Callable[[Lease], Launcher], signals: Signals, listener: Listener
    ) -> Ended:
        """Train `runs`, and merge run files where they have become many."""
        ended = execute(self.folder, self.plan.sweep.name, runs, manner, launcher, self.lease, signals, listener)
        if len(archive.run_files(self.folder.path)) > merge.WORTH:
            compact(self.folder.path, self.lease)
        return ended


def compact(folder: Path, lease: Lease) -> merge.Merged:
    """Merge the run files of a folder, file by file, so that nobody waits long for a decision of his own."""
    found: list[merge.Merged] = []
    while not found or found[-1].removed > found[-1].written:  # else nothing becomes less
        with lease.deciding():
            found.append(merge.compact(folder, most=1))
    runs, written, removed = (sum(getattr(part, name) for part in found) for name in ("runs", "written", "removed"))
    return merge.Merged(runs, written, removed, tuple(dict.fromkeys(text for part in found for text in part.damaged)))


def _no_files(folder: Path) -> list[Path]:
    """What stands in the place of a result file without being one: folders, pipes, links that lead nowhere."""
    places = [(folder / name, ".parquet") for name in (archive.LOOSE, archive.MERGED)] + [(folder / "failures", ".txt")]
    return [
        path
        for place, suffix in places
        if place.is_dir()
        for path in set(place.glob(f"[!.]*{suffix}")) - set(durable.listed(place, suffix))
    ]


def _is_whole(path: Path) -> bool:
    try:
        durable.check_file(path)
    except (durable.Broken, FileNotFoundError):
        return False
    return True
