"""What is left to train, the most expensive first, shared with every other process that trains in
the same folder.

A group is handed out when none of its runs is claimed by another process; what others have claimed
is waited for, and taken over when they die. Branches are added when their checkpoints are written.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from scaling.config import RunConfig
from scaling.config.run_groups import (
    RunGroup,
    constant_lr_eval_steps,
    extension_groups,
    group_runs,
    pack_groups,
)
from scaling.execute.lease import Lease
from scaling.execute.sweep_folder import SweepFolder
from scaling.plan import Plan

POLL_SECONDS = 0.5  # between two looks at what others have claimed


@dataclass
class RunQueue:
    """Groups that wait for a worker, by cost.

    Args:
        plan: of the whole sweep.
        cost: FLOPs of the runs to train, by run_id.
        pack: runs of one shape in one program, at most.
        ended_elsewhere: runs that another process has finished, or failed at; to be emptied.
    """

    folder: SweepFolder
    lease: Lease
    plan: Plan
    cost: Mapping[str, float]
    pack: int
    ended_elsewhere: list[str] = field(default_factory=list)
    _waiting: list[tuple[float, int, RunGroup]] = field(default_factory=list)
    _elsewhere: list[RunGroup] = field(default_factory=list)
    _next_look: float = 0.0
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._failures_before = {run_id: self._failure_time(run_id) for run_id in self.cost}
        self._planned = {item.run_id: item.run for item in self.plan.runs}
        runs = list(self._planned.values())
        self._eval_steps = constant_lr_eval_steps(runs)
        self._extensions = extension_groups(runs, self.plan.extensions)
        packs = pack_groups(group_runs(runs), self.pack) if self.pack > 1 else []
        self._packs = [replace(pack, branches=()) for pack in packs if len(pack.runs) > 1]
        self._push(self._group([self._planned[run_id] for run_id in self.cost]))

    def _failure_time(self, run_id: str) -> int | None:
        try:
            return self.folder.path_of("failure", run_id).stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _push(self, groups: Iterable[RunGroup]) -> None:
        for group in groups:
            cost = sum(self.cost.get(run.run_id, 0.0) for run in group.runs)
            heapq.heappush(self._waiting, (-cost, next(self._count), group))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left that could still be trained here."""
        return not (self._waiting or self._elsewhere)

    def next_group(self) -> RunGroup | None:
        """Claim the most expensive group that is free, to be ended by `done`; None where there is
        none now. What others have claimed is put off.
        """
        if self._elsewhere and time.monotonic() > self._next_look:
            elsewhere, self._elsewhere = self._elsewhere, []
            self._push(elsewhere)
        if not self._waiting:
            return None
        with self.lease.locked() as claimed:
            self._next_look = time.monotonic() + POLL_SECONDS
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
        self.ended_elsewhere += [run.run_id for run in ended]
        if busy:
            self._elsewhere += group_runs(busy, self._eval_steps, self._extensions)
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
        run_ids = {run.run_id for run in runs}
        stopped = [pack for pack in self._packs if self._is_stopped(pack, run_ids)]
        in_stopped = {run.run_id for pack in stopped for run in pack.runs}
        alone = [run for run in runs if run.run_id not in in_stopped]
        groups = group_runs(alone, self._eval_steps, self._extensions)
        has_checkpoint = self.folder.has_checkpoint
        begun = [group for group in groups if has_checkpoint(group.name)]
        others = [group for group in groups if not has_checkpoint(group.name)]
        packed = begun + pack_groups(others, self.pack)
        branches = [b for group in packed for b in group.branches if has_checkpoint(b.name)]
        gone = [run.run_id for branch in branches for run in branch.runs]
        return stopped + [group.without(gone) for group in packed] + branches

    def _is_stopped(self, pack: RunGroup, run_ids: set[str]) -> bool:
        """Whether a pack was stopped when some of its runs were published: only the whole pack can
        resume its checkpoint, so it is trained again from there, finished runs included.
        """
        if not self.folder.has_checkpoint(pack.name):
            return False
        unfinished = {r.run_id for r in pack.runs if not self.folder.is_finished(r.run_id)}
        return 0 < len(unfinished) < len(pack.runs) and unfinished <= run_ids

    def done(self, group: RunGroup, unfinished: Sequence[RunConfig] = ()) -> None:
        """A group is over: any process may claim its runs; `unfinished` of them wait here again."""
        self.lease.release(run.run_id for run in group.all_runs())
        self._push(self._group(unfinished))

    def add_branches(self, branches: Sequence[RunGroup]) -> None:
        """Branches have their checkpoints: any process may claim them."""
        self.lease.release(run.run_id for branch in branches for run in branch.runs)
        self._push(branches)
