"""Induction: symbols that can only be copied from earlier in the window, by models of one layer and of more (Olsson 2022).

Copying needs two steps of attention: a head that tells each place what stood before it, and a head of a later layer that looks
for the place where the present symbol stood before (the induction head). Both are needed before either pays, so the loss on
copied symbols falls in a short stretch of training; one layer cannot compose them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.studies import runs
from scaling.studies.findings import Claim

STRETCH = 1 / 3  # the drop is sought within this share of the steps so far
LEAST_DROP = 1.5  # nats


@dataclass(frozen=True)
class Drop:
    """The largest fall of the copied loss within `STRETCH` of the steps so far: nats, from step `start` to step `end`."""

    nats: float
    start: int
    end: int


@dataclass(frozen=True)
class Run:
    """The losses of one run in nats at its measured steps, arrays (n,): on symbols that can be copied, and on those that cannot."""

    run_id: str
    seed: int
    n_layers: int
    n_symbols: int
    step: np.ndarray
    copied: np.ndarray
    fresh: np.ndarray

    @property
    def guess(self) -> float:
        """ln V, what a guess among all symbols costs."""
        return math.log(self.n_symbols)

    @property
    def final(self) -> float:
        """The copied loss at the end."""
        return float(self.copied[-1])

    @property
    def drop(self) -> Drop:
        """The largest drop over pairs of measured steps s1 < s2 with s2 - s1 <= s2 / 3; 0 nats where no two lie so close."""
        start, end = np.triu_indices(len(self.step), 1)
        near = self.step[end] - self.step[start] <= STRETCH * self.step[end]
        if not near.any():
            return Drop(0.0, int(self.step[0]), int(self.step[-1]))
        start, end = start[near], end[near]
        falls = self.copied[start] - self.copied[end]
        best = int(np.argmax(falls))
        return Drop(float(falls[best]), int(self.step[start[best]]), int(self.step[end[best]]))


@dataclass(frozen=True)
class Study:
    """The runs of one layer and those of more, by depth and seed."""

    shallow: tuple[Run, ...]
    deep: tuple[Run, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All, the shallow ones first."""
        return self.shallow + self.deep


def study(table: pd.DataFrame) -> Study | None:
    """The induction runs of a results table; None where there are none."""
    table = runs.ended(table)
    copied = runs.trail(table[table["task"] == "induction"], "copied_loss")
    if copied.empty:
        return None
    fresh = runs.trail(table, "fresh_loss")[["run_id", "step", "value"]].rename(
        columns={"value": "fresh"}
    )
    joined = copied.merge(fresh, on=["run_id", "step"])
    if joined.empty:
        return None
    found = [
        Run(
            str(run_id),
            int(held["seed"].iloc[0]),
            int(held["n_layers"].iloc[0]),
            int(held["vocab_size"].iloc[0]),
            held["step"].to_numpy(),
            held["value"].to_numpy(float),
            held["fresh"].to_numpy(float),
        )
        for run_id, held in joined.groupby("run_id")
    ]
    found.sort(key=lambda run: (run.n_layers, run.seed, run.run_id))
    return Study(
        tuple(run for run in found if run.n_layers == 1),
        tuple(run for run in found if run.n_layers > 1),
    )


def findings(found: Study) -> list[Claim]:
    """What two layers must do and one must not: copy below half of ln V, and learn it in one drop."""
    bound = f"{found.runs[0].guess / 2:.3g} nats, half of ln V"
    steep = f"{LEAST_DROP:g} nats"
    two = "two layers" if all(run.n_layers == 2 for run in found.deep) else "two layers or more"
    return [
        _finding(
            f"copied loss at the end, {two}",
            f"below {bound}",
            found.deep,
            lambda run: run.final,
            max,
            _copies,
        ),
        _finding(
            f"largest drop within a third of the steps so far, {two}",
            f"at least {steep}",
            found.deep,
            _fall,
            min,
            _falls,
        ),
        _finding(
            "copied loss at the end, one layer",
            f"not below {bound}",
            found.shallow,
            lambda run: run.final,
            min,
            lambda run: not _copies(run),
        ),
        _finding(
            "largest drop within a third of the steps so far, one layer",
            f"below {steep}",
            found.shallow,
            _fall,
            max,
            lambda run: not _falls(run),
        ),
    ]


def _fall(run: Run) -> float:
    return run.drop.nats


def _copies(run: Run) -> bool:
    return run.final < run.guess / 2


def _falls(run: Run) -> bool:
    return run.drop.nats >= LEAST_DROP


def _finding(
    figure: str,
    target: str,
    runs: Sequence[Run],
    value: Callable[[Run], float],
    worst: Callable[[list[float]], float],
    holds: Callable[[Run], bool],
) -> Claim:
    """A figure that every seed must reach, told by the worst of them."""
    if not runs:
        return Claim(figure, target, "no such runs", None)
    reached = f"{worst([value(run) for run in runs]):.3g} nats"
    if len(runs) > 1:
        reached += f", the worst of {len(runs)} runs"
    return Claim(figure, target, reached, all(holds(run) for run in runs))
