"""Runs that are trained together: a pack in one program, and the branches of a shared prefix.

Under `wsd` and `constant` the runs of one size and learning rate are one and the same until the
first of them cools down. The longest is trained; the shorter ones take up its state where their own
cooldown begins. That is execution only: a branch is an ordinary run that finds a checkpoint, and
its numbers are to the bit those it has alone.
"""

from __future__ import annotations

import gc
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from scaling.config import RunConfig


@dataclass(frozen=True, slots=True)
class RunGroup:
    """A pack of runs of one shape and horizon, and the shorter packs that branch off them.

    Most packs hold one run. `branches` are ordered by where they branch off. The loss at the
    constant rate is measured at `constant_lr_eval_steps`, the budgets of all shorter runs of the
    prefix, finished or not. `extensions` are longer runs that may be added to the sweep: the state
    at the end of the constant rate is kept for them.
    """

    runs: tuple[RunConfig, ...]
    branches: tuple[RunGroup, ...] = ()
    constant_lr_eval_steps: tuple[int, ...] = ()
    extensions: tuple[RunGroup, ...] = ()

    @property
    def name(self) -> str:
        """The run's id, or one that names all runs of a pack."""
        if len(self.runs) == 1:
            return self.runs[0].run_id
        digest = hashlib.sha256(" ".join(run.run_id for run in self.runs).encode())
        return f"pack-{digest.hexdigest()[:12]}"

    @property
    def notes(self) -> dict[str, Any]:
        """What the metadata of its rows says about it."""
        return {"pack": len(self.runs), "branches": [branch.name for branch in self.branches]}

    @property
    def branch_step(self) -> int:
        """The step after which these runs go their own way."""
        return self.runs[0].stable_steps

    def all_runs(self) -> Iterator[RunConfig]:
        """All runs of the pack and of its branches, which is all that is published."""
        yield from self.runs
        for branch in self.branches:
            yield from branch.runs

    def runs_with_extensions(self) -> Iterator[RunConfig]:
        """All runs, and the longer ones that may come."""
        yield from self.all_runs()
        yield from (run for group in self.extensions for run in group.runs)

    def without(self, run_ids: Iterable[str]) -> RunGroup:
        """The same group without the branches that contain one of these runs."""
        gone = set(run_ids)
        return replace(
            self,
            branches=tuple(b for b in self.branches if not gone & {run.run_id for run in b.runs}),
        )

    def incremental_steps(self) -> Iterator[tuple[RunConfig, int]]:
        """Each run with the steps trained for it alone (of a branch: its cooldown)."""
        yield from ((run, run.n_steps) for run in self.runs)
        yield from (
            (run, run.n_steps - branch.branch_step)
            for branch in self.branches
            for run in branch.runs
        )


@contextmanager
def gc_paused() -> Iterator[None]:
    """Put off Python's search for garbage in cycles while many objects are made that stay.

    It would walk all of them again and again: a third of the time of planning a hundred thousand
    runs.
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
    runs: Sequence[RunConfig],
    budgets: Mapping[str, tuple[int, ...]] | None = None,
    extensions: Mapping[str, tuple[RunGroup, ...]] | None = None,
) -> list[RunGroup]:
    """Each run once: the longest of every shared prefix with the others as its branches.

    `budgets` are those of the whole sweep where `runs` are only what is left of it; `extensions`
    as from `extension_groups`.
    """
    groups, prefixes = [], _by_prefix(runs)
    known = _constant_lr_steps(prefixes) if budgets is None else budgets
    for *shorter, longest in prefixes:
        branches = tuple(
            RunGroup((run,), constant_lr_eval_steps=known.get(run.run_id, ())) for run in shorter
        )
        kept = (extensions or {}).get(longest.run_id, ())
        groups.append(RunGroup((longest,), branches, known.get(longest.run_id, ()), kept))
    return groups


def extension_groups(
    runs: Sequence[RunConfig], extensions: Sequence[RunConfig]
) -> dict[str, tuple[RunGroup, ...]]:
    """For the longest run of each prefix, the still longer ones among `extensions`."""
    prefixes = (
        {members[-1].prefix_key: members for members in _by_prefix(runs)} if extensions else {}
    )
    kept: dict[str, tuple[RunGroup, ...]] = defaultdict(tuple)
    for run in extensions:
        members = prefixes.get(run.prefix_key, [run])
        if members[-1].stable_steps and run.n_steps > members[-1].n_steps:
            (constant_lr_eval_steps,) = _constant_lr_steps([[*members, run]]).values() or [()]
            kept[members[-1].run_id] += (
                RunGroup((run,), constant_lr_eval_steps=constant_lr_eval_steps),
            )
    return kept


def constant_lr_eval_steps(runs: Sequence[RunConfig]) -> dict[str, tuple[int, ...]]:
    """For the longest run of each prefix, the shorter budgets that it passes at a constant rate."""
    return _constant_lr_steps(_by_prefix(runs))


def _constant_lr_steps(prefixes: Sequence[Sequence[RunConfig]]) -> dict[str, tuple[int, ...]]:
    steps_of = {}
    for *shorter, longest in prefixes:
        steps = sorted({run.n_steps for run in shorter if run.n_steps <= longest.stable_steps})
        if steps:
            steps_of[longest.run_id] = tuple(steps)
    return steps_of


def _by_prefix(runs: Sequence[RunConfig]) -> list[list[RunConfig]]:
    """Runs that share a prefix, shortest first."""
    prefixes: dict[Any, list[RunConfig]] = defaultdict(list)
    for run in runs:
        prefixes[run.prefix_key if run.stable_steps else run.run_id].append(run)
    return [sorted(members, key=lambda run: run.n_steps) for members in prefixes.values()]


def pack_groups(groups: Sequence[RunGroup], size: int) -> list[RunGroup]:
    """Groups of one shape (seeds, learning rates) joined into packs of <= `size` runs.

    A group that keeps its state for a `extensions` run, which is resumed alone, stays alone.
    """
    alike: dict[Any, list[RunGroup]] = defaultdict(list)
    for group in groups:
        alike[_pack_key(group)].append(group)
    packs = []
    for members in alike.values():
        packs += [_joined(members[i : i + size]) for i in range(0, len(members), size)]
    return packs


def _pack_key(group: RunGroup) -> Any:
    """What runs of one program have in common; learning rate, decay, clipping and seed are free."""
    run = group.runs[0]
    branches = tuple(branch.runs[0].n_steps for branch in group.branches)
    return (
        run.model,
        run.task,
        run.optim.schedule,
        run.optim.cooldown_frac,
        run.batch_size,
        run.n_steps,
        run.precision,
        run.evals,
        branches,
        group.constant_lr_eval_steps,
        group.extensions,
    )


def _joined(members: Sequence[RunGroup]) -> RunGroup:
    runs = tuple(run for group in members for run in group.runs)
    branches = tuple(
        _joined(branches) for branches in zip(*(group.branches for group in members), strict=True)
    )
    return RunGroup(runs, branches, members[0].constant_lr_eval_steps, members[0].extensions)
