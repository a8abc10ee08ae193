"""What is left to train, dearest first; branches join when their trunk has reached them."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scaling.family import Family, families


@dataclass
class Work:
    """Families that wait for a worker. `cost` is FLOPs by run_id: the dearest family is handed out first."""

    cost: Mapping[str, float]
    _waiting: list[tuple[float, int, Family]] = field(default_factory=list)
    _in_hand: int = 0
    _closed: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def add(self, found: Iterable[Family]) -> None:
        """Let these wait too."""
        with self._changed:
            for family in found:
                cost = sum(self.cost[run.run_id] for run in family.runs)
                heapq.heappush(self._waiting, (-cost, next(self._count), family))
            self._changed.notify_all()

    def take(self) -> Family | None:
        """The next family, which is in hand until `over`; None when nothing is left and nobody can bring more."""
        with self._changed:
            while not self._waiting and self._in_hand and not self._closed:
                self._changed.wait()
            if not self._waiting or self._closed:
                return None
            self._in_hand += 1
            return heapq.heappop(self._waiting)[2]

    def over(self, left: Family | None = None) -> None:
        """A family is out of hand; the branches of `left` (which it did not bring to their checkpoints) stand alone now."""
        with self._changed:
            self._in_hand -= 1
            self._changed.notify_all()
        if left is not None:
            self.add(families([run for branch in left.branches for run in branch.runs]))

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
