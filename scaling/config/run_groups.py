"""Runs that are trained together, so that no token is trained twice: a pack in one program, and the branches of its trunk.

Under `wsd` and `constant` the runs of one size and learning rate are one and the same until the first of them cools down.
The longest is trained; the shorter ones take up its state where their own cooldown begins. That is execution only: a
branch is an ordinary run that finds a checkpoint, and its numbers are to the bit those it has alone.
"""

from __future__ import annotations

import gc
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from scaling.config import RunConfig


@dataclass(frozen=True, slots=True)
class RunGroup:
    """A pack of runs of one shape and horizon, and the shorter packs that branch off their trunks, run by run.

    Most packs hold one run. `branches` are ordered by where they branch off. At the steps `read_at` (the budgets of all
    shorter runs of the trunk, whether they are still to be trained or not) the loss at the constant rate is read.
    """

    runs: tuple[RunConfig, ...]
    branches: tuple[RunGroup, ...] = ()
    read_at: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The run's id, or one that names all runs of a pack."""
        if len(self.runs) == 1:
            return self.runs[0].run_id
        return (
            "pack-"
            + hashlib.sha256(" ".join(run.run_id for run in self.runs).encode()).hexdigest()[:12]
        )

    @property
    def branch_step(self) -> int:
        """The step after which these runs go their own way."""
        return self.runs[0].stable_steps

    def all_runs(self) -> Iterator[RunConfig]:
        """All runs of the pack and of its branches."""
        yield from self.runs
        for branch in self.branches:
            yield from branch.runs

    def without(self, run_ids: Iterable[str]) -> RunGroup:
        """The same family less the branches that hold one of these runs."""
        gone = set(run_ids)
        return replace(
            self,
            branches=tuple(b for b in self.branches if not gone & {run.run_id for run in b.runs}),
        )

    def incremental_steps(self) -> Iterator[tuple[RunConfig, int]]:
        """Each run with the steps that nobody else takes for it: all of the longest, the cooldown of a branch."""
        yield from ((run, run.n_steps) for run in self.runs)
        yield from (
            (run, run.n_steps - branch.branch_step)
            for branch in self.branches
            for run in branch.runs
        )

    def dump(self) -> dict[str, Any]:
        """JSON-ready; `load_group` reads it."""
        runs, branches = (
            [run.model_dump_json() for run in self.runs],
            [branch.dump() for branch in self.branches],
        )
        return {"runs": runs, "branches": branches, "read_at": self.read_at}


def load_group(data: dict[str, Any]) -> RunGroup:
    """The family of `Family.dump`."""
    runs = tuple(RunConfig.model_validate_json(text) for text in data["runs"])
    return RunGroup(
        runs, tuple(load_group(branch) for branch in data["branches"]), tuple(data["read_at"])
    )


@contextmanager
def gc_paused() -> Iterator[None]:
    """Put off Python's search for garbage in cycles while many objects are made that stay.

    It would walk all of them again and again: a third of the time of planning a hundred thousand runs.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@gc_paused()
def group_runs(
    runs: Sequence[RunConfig], budgets: Mapping[str, tuple[int, ...]] | None = None
) -> list[RunGroup]:
    """Each run once: the longest of every trunk with the others as its branches; runs that share nothing stand alone.

    `budgets` are those of the whole sweep where `runs` are only what is left of it.
    """
    found, trunks = [], _trunks(runs)
    known = _read_outs(trunks) if budgets is None else budgets
    for *shorter, longest in trunks:
        branches = tuple(RunGroup((run,), read_at=known.get(run.run_id, ())) for run in shorter)
        found.append(RunGroup((longest,), branches, known.get(longest.run_id, ())))
    return found


def constant_lr_eval_steps(runs: Sequence[RunConfig]) -> dict[str, tuple[int, ...]]:
    """Of the longest run of every trunk, the budgets of the others that it passes at its constant rate."""
    return _read_outs(_trunks(runs))


def _read_outs(trunks: Sequence[Sequence[RunConfig]]) -> dict[str, tuple[int, ...]]:
    found = {}
    for *shorter, longest in trunks:
        steps = sorted({run.n_steps for run in shorter if run.n_steps <= longest.stable_steps})
        if steps:
            found[longest.run_id] = tuple(steps)
    return found


def _trunks(runs: Sequence[RunConfig]) -> list[list[RunConfig]]:
    """Runs that share a trunk, shortest first."""
    trunks: dict[Any, list[RunConfig]] = defaultdict(list)
    for run in runs:
        trunks[run.prefix_key if run.stable_steps else run.run_id].append(run)
    return [sorted(members, key=lambda run: run.n_steps) for members in trunks.values()]


def pack_groups(found: Sequence[RunGroup], size: Callable[[RunGroup], int]) -> list[RunGroup]:
    """Families of one shape (seeds, learning rates) joined into packs of at most `size(family)` runs."""
    alike: dict[Any, list[RunGroup]] = defaultdict(list)
    for family in found:
        alike[_pack_key(family)].append(family)
    return [_joined(part) for group in alike.values() for part in _parts(group, size(group[0]))]


def _parts(group: Sequence[RunGroup], size: int) -> Iterator[Sequence[RunGroup]]:
    return (group[first : first + size] for first in range(0, len(group), size))


def _pack_key(family: RunGroup) -> Any:
    """What runs of one program have in common; learning rate, decay, clipping and seed are free."""
    run = family.runs[0]
    horizons = (tuple(branch.runs[0].n_steps for branch in family.branches), family.read_at)
    return (
        run.model,
        run.task,
        run.optim.schedule,
        run.optim.cooldown_frac,
        run.batch_size,
        run.n_steps,
        run.precision,
        run.evals,
        horizons,
    )


def _joined(group: Sequence[RunGroup]) -> RunGroup:
    runs = tuple(run for family in group for run in family.runs)
    branches = tuple(
        _joined(branches) for branches in zip(*(family.branches for family in group), strict=True)
    )
    return RunGroup(runs, branches, group[0].read_at)
