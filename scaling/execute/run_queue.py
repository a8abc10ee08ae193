"""What is left to train, dearest first, shared with every other process that trains in the same folder.

A family is handed out when none of its runs is in other hands; what others have in hand is waited for, and taken over
when they die. Branches join when their trunk has reached them.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scaling.config import RunConfig
from scaling.config.run_groups import RunGroup, group_runs, pack_groups
from scaling.execute.lease import Lease
from scaling.execute.packing import Packing
from scaling.execute.sweep_folder import SweepFolder

POLL_SECONDS = 0.5  # how often what others have in hand is looked at again


@dataclass
class RunQueue:
    """Families that wait for a worker. `cost` is FLOPs by run_id: the dearest family is handed out first.

    `budgets` are the read-outs of the whole sweep's trunks; `settled` is told of each run that another process has
    finished (or failed at) meanwhile.
    """

    folder: SweepFolder
    lease: Lease
    cost: Mapping[str, float]
    packing: Packing = field(default_factory=Packing)
    budgets: Mapping[str, tuple[int, ...]] | None = None
    settled: Callable[[str], None] = lambda run_id: None
    _waiting: list[tuple[float, int, RunGroup]] = field(default_factory=list)
    _elsewhere: list[RunGroup] = field(default_factory=list)
    _in_hand: int = 0
    _closed: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._notes = {
            run_id: stamp for run_id in self.cost if (stamp := self._note(run_id)) is not None
        }

    def _note(self, run_id: str) -> int | None:
        """When the failure note of a run was written."""
        try:
            return self.folder.failure(run_id).stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None

    def add_runs(self, runs: Sequence[RunConfig]) -> None:
        """Let runs wait, as the families they make."""
        self.add(self._families(runs))

    def add(self, found: Iterable[RunGroup]) -> None:
        """Let these families wait too."""
        with self._changed:
            for family in found:
                self._push(family)
            self._changed.notify_all()

    def _push(self, family: RunGroup) -> None:
        cost = sum(self.cost[run.run_id] for run in family.runs)
        heapq.heappush(self._waiting, (-cost, next(self._count), family))

    def next_group(self, *, wait: bool = True) -> RunGroup | None:
        """The next family, which is in hand until `done`; None when nothing is left anywhere that could still come here.

        Without `wait` also None when nothing can be had now.
        """
        with self._changed:
            while not self._closed:
                family = self._claim() if self._waiting else None
                if family is not None:
                    self._in_hand += 1
                    return family
                if not wait or not (self._waiting or self._elsewhere or self._in_hand):
                    return None
                self._changed.wait(POLL_SECONDS if self._elsewhere else None)
                for waiting in self._elsewhere:
                    self._push(waiting)
                self._elsewhere = []
            return None

    def _claim(self) -> RunGroup | None:
        """Take the dearest family in hand that nobody has; what others have is put off."""
        with self.lease.locked() as held:
            while self._waiting:
                family = self._claimable_part(heapq.heappop(self._waiting)[2], held)
                if family is not None:
                    self.lease.claim(run.run_id for run in family.all_runs())
                    return family
        return None

    def _claimable_part(self, family: RunGroup, held: set[str]) -> RunGroup | None:
        """The family, less the runs that have ended elsewhere or are in other hands."""
        everyone = list(family.all_runs())
        ended = [run for run in everyone if self._has_ended(run.run_id)]
        busy = [run for run in everyone if run.run_id in held and run not in ended]
        for run in ended:
            self.settled(run.run_id)
        if busy:
            self._elsewhere += group_runs(busy, self.budgets)
        if not ended and not busy:
            return family
        free = self._families([run for run in everyone if run not in ended and run not in busy])
        for other in free[1:]:
            self._push(other)
        return free[0] if free else None

    def _has_ended(self, run_id: str) -> bool:
        """Whether another process has published the run, or failed at it, since this one began."""
        return self.folder.is_finished(run_id) or self._note(run_id) not in (
            None,
            self._notes.get(run_id),
        )

    def _families(self, runs: Sequence[RunConfig]) -> list[RunGroup]:
        """Trunks with their branches, in packs; what has a checkpoint goes on as what it was."""
        found = group_runs(runs, self.budgets)
        alone = [family for family in found if self._is_begun(family)]
        joined = alone + pack_groups(
            [family for family in found if not self._is_begun(family)], self.packing.size
        )
        branched = [
            branch for family in joined for branch in family.branches if self._is_begun(branch)
        ]
        gone = [run.run_id for branch in branched for run in branch.runs]
        return [family.without(gone) for family in joined] + branched

    def _is_begun(self, family: RunGroup) -> bool:
        path = self.folder.checkpoint(family.name)
        return any(
            path.with_suffix(suffix).exists() for suffix in (".npz", ".previous.npz", ".sharded")
        )

    def done(self, family: RunGroup, left: Iterable[RunConfig] = ()) -> None:
        """A family is out of hand: its runs may be claimed by anybody; `left` of them wait here again."""
        self.lease.release(run.run_id for run in family.all_runs())
        with self._changed:
            self._in_hand -= 1
            self._changed.notify_all()
        again = list(left)
        if again:
            self.add_runs(again)

    def add_branches(self, found: Sequence[RunGroup]) -> None:
        """Branches have their checkpoints: they are for whoever is free, here or elsewhere."""
        self.lease.release(run.run_id for branch in found for run in branch.runs)
        self.add(found)

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
