"""What is left to train, the most expensive first, shared with every other process that trains in
the same folder.

A group is handed out when none of its runs is claimed by another process; what others have claimed
is waited for, and taken over when they die. Branches are added when their checkpoints are written.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scaling import files
from scaling.config import RunConfig
from scaling.config.run_groups import RunGroup, group_runs, pack_groups
from scaling.execute.lease import Lease
from scaling.execute.packing import Packing
from scaling.execute.sweep_folder import SweepFolder

POLL_SECONDS = 0.5  # between two looks at what others have claimed


@dataclass
class RunQueue:
    """Groups that wait for a worker, by cost.

    Args:
        cost: FLOPs by run_id.
        planned: all runs of the sweep, by run_id.
        eval_steps: by run_id, steps in the shared prefix at which the constant-rate loss is read.
        later: by run_id, longer runs for which the state is kept.
        on_ended_elsewhere: called with each run that another process has finished, or failed at.
    """

    folder: SweepFolder
    lease: Lease
    cost: Mapping[str, float]
    planned: Mapping[str, RunConfig] = field(default_factory=dict)
    packing: Packing = field(default_factory=Packing)
    eval_steps: Mapping[str, tuple[int, ...]] | None = None
    later: Mapping[str, tuple[RunGroup, ...]] = field(default_factory=dict)
    on_ended_elsewhere: Callable[[str], None] = lambda run_id: None
    _waiting: list[tuple[float, int, RunGroup]] = field(default_factory=list)
    _elsewhere: list[RunGroup] = field(default_factory=list)
    _n_training: int = 0
    _closed: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._failures_before = {run_id: self._failure_time(run_id) for run_id in self.cost}

    def _failure_time(self, run_id: str) -> int | None:
        try:
            return self.folder.failure(run_id).stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None

    def add_runs(self, runs: Sequence[RunConfig]) -> None:
        """Let runs wait, in groups."""
        self.add(self._group(runs))

    def add(self, groups: Iterable[RunGroup]) -> None:
        """Let these groups wait, too."""
        with self._changed:
            self._push(groups)
            self._changed.notify_all()

    def _push(self, groups: Iterable[RunGroup]) -> None:
        for group in groups:
            cost = sum(self.cost.get(run.run_id, 0.0) for run in group.runs)
            heapq.heappush(self._waiting, (-cost, next(self._count), group))

    def next_group(self, *, wait: bool = True) -> RunGroup | None:
        """The next group, to be ended by `done`; None when nothing is left that could still be
        trained here, or without `wait` when there is nothing now.
        """
        with self._changed:
            while not self._closed:
                if self._waiting and (group := self._claim()) is not None:
                    self._n_training += 1
                    return group
                if not wait or not (self._waiting or self._elsewhere or self._n_training):
                    return None
                self._changed.wait(POLL_SECONDS if self._elsewhere else None)
                elsewhere, self._elsewhere = self._elsewhere, []
                self._push(elsewhere)
            return None

    def _claim(self) -> RunGroup | None:
        """Claim the most expensive group that is free; what others have claimed is put off."""
        with self.lease.locked() as claimed:
            while self._waiting:
                group = self._claimable_part(heapq.heappop(self._waiting)[2], claimed)
                if group is not None:
                    self.lease.claim(run.run_id for run in group.all_runs())
                    return group
        return None

    def _claimable_part(self, group: RunGroup, claimed: set[str]) -> RunGroup | None:
        """The group, less the runs that have ended elsewhere or are claimed."""
        runs = [run for run in group.all_runs() if run.run_id in self.cost]
        ended = [run for run in runs if self._has_ended(run.run_id)]
        busy = [run for run in runs if run.run_id in claimed and run not in ended]
        for run in ended:
            self.on_ended_elsewhere(run.run_id)
        if busy:
            self._elsewhere += group_runs(busy, self.eval_steps, self.later)
        if not ended and not busy:
            return group
        free = self._group([run for run in runs if run not in ended and run not in busy])
        self._push(free[1:])
        return free[0] if free else None

    def _has_ended(self, run_id: str) -> bool:
        """Whether another process has published the run, or failed at it, since this one began."""
        failed = self._failure_time(run_id)
        is_new = failed is not None and failed != self._failures_before.get(run_id)
        return is_new or self.folder.is_finished(run_id)

    def _group(self, runs: Sequence[RunConfig]) -> list[RunGroup]:
        """Shared prefixes with their branches, in packs; what has a checkpoint stays as it was."""
        stopped = list(self._stopped_packs({run.run_id for run in runs}))
        in_stopped = {run.run_id for pack in stopped for run in pack.runs}
        alone = [run for run in runs if run.run_id not in in_stopped]
        groups = group_runs(alone, self.eval_steps, self.later)
        has_checkpoint = self.folder.has_checkpoint
        begun = [group for group in groups if has_checkpoint(group.name)]
        others = [group for group in groups if not has_checkpoint(group.name)]
        packed = begun + pack_groups(others, self.packing.size)
        branches = [b for group in packed for b in group.branches if has_checkpoint(b.name)]
        gone = [run.run_id for branch in branches for run in branch.runs]
        return stopped + [group.without(gone) for group in packed] + branches

    def _stopped_packs(self, run_ids: set[str]) -> Iterator[RunGroup]:
        """Packs that were stopped when some of their runs were published: only the whole pack can
        resume its checkpoint, so it is trained again from there, finished runs included.
        """
        for path in sorted((self.folder.path / "checkpoints").glob("pack-*.npz")):
            members = _members(path)
            unfinished = {run_id for run_id in members if not self.folder.is_finished(run_id)}
            is_known = set(members) <= self.planned.keys() and unfinished <= run_ids
            if is_known and 0 < len(unfinished) < len(members):
                pack = RunGroup(tuple(self.planned[run_id] for run_id in members))
                if pack.name == path.stem:
                    yield pack

    def done(self, group: RunGroup, unfinished: Iterable[RunConfig] = ()) -> None:
        """A group is over: any process may claim its runs; `unfinished` of them wait here again."""
        self.lease.release(run.run_id for run in group.all_runs())
        with self._changed:
            self._n_training -= 1
            self._changed.notify_all()
        if again := list(unfinished):
            self.add_runs(again)

    def add_branches(self, branches: Sequence[RunGroup]) -> None:
        """Branches have their checkpoints: any process may claim them."""
        self.lease.release(run.run_id for branch in branches for run in branch.runs)
        self.add(branches)

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _members(path: Path) -> list[str]:
    """The run_ids of a pack's checkpoint, in order; none where it is corrupt."""
    try:
        files.check_file(path)
        with np.load(path, allow_pickle=False) as arrays:
            runs = json.loads(bytes(arrays["progress"]))["runs"]
    except (files.ChecksumError, ValueError, LookupError, OSError, zipfile.BadZipFile):
        return []
    return [hashlib.sha256(run.encode()).hexdigest()[:12] for run in runs]
