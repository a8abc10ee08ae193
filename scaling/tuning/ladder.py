"""Which rungs to train next, from the losses so far: successive halving of complete runs, and an interior check that extends.

A ladder is a pure function of what it has measured, so an interrupted one is taken up by asking again. Rungs are whole
numbers: rung i stands for `factor`^i times what the recipe says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scaling.config import Tuning
from scaling.tuning.optimum import Losses, best_rung, means

Closed = Mapping[int, str]  # rungs that cannot be trained, with the reason


@dataclass(frozen=True)
class Ladder:
    """The rungs of one size: those it begins with, and by how many it may grow.

    `safer` is the direction (-1 or 1) in which a run that diverges becomes stable. `margin` is relative to the best scout's loss.
    """

    rungs: int
    extend: int
    margin: float
    scouted: bool
    safer: int = -1

    @property
    def first(self) -> frozenset[int]:
        """The rungs that are trained in any case, at least as scouts."""
        low = -((self.rungs - 1) // 2)
        return frozenset(range(low, low + self.rungs))


@dataclass(frozen=True)
class Next:
    """The rungs to train now: to the scouts' horizon, and to the whole. Both empty when there is nothing left to learn."""

    scouts: frozenset[int] = frozenset()
    full: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.scouts or self.full)


def ladder(tuning: Tuning, safer: int) -> Ladder:
    """The ladder that a sweep file asks for."""
    return Ladder(tuning.rungs, tuning.extend, tuning.margin, bool(tuning.scout), safer)


def next_rungs(rules: Ladder, scouts: Losses, full: Losses, closed: Closed) -> Next:
    """What to train next, given the losses of scouts and of whole runs.

    Scouts come first and grow outward until the best has neighbours on both sides. The survivors (within the margin of the best, and
    always the best and its neighbours) are trained to the whole horizon, and these grow outward too: a best rung without a
    neighbour is no optimum. A rung whose scout diverged counts as one whose whole run did.
    """
    gone = frozenset(closed)
    if rules.scouted:
        missing = rules.first - scouts.keys() - gone or _outward(rules, scouts, gone, {*scouts})
        if missing:
            return Next(scouts=missing)
    missing = survivors(rules, scouts) - full.keys() - gone
    if not missing:
        dead = {rung: [math.inf] for rung, loss in means(scouts).items() if math.isinf(loss)}
        missing = _outward(rules, {**dead, **full}, gone, {*scouts, *full})
    return Next(full=missing)


def survivors(rules: Ladder, scouts: Losses) -> frozenset[int]:
    """The rungs worth the whole horizon: all without scouts, none where every scout diverged."""
    if not rules.scouted:
        return rules.first
    best = best_rung(scouts)
    if best is None:
        return frozenset()
    mean = means(scouts)
    bound = mean[best] * (1 + rules.margin)
    return frozenset(
        rung
        for rung, loss in mean.items()
        if loss <= bound or (abs(rung - best) <= 1 and math.isfinite(loss))
    )


def _outward(
    rules: Ladder, measured: Losses, closed: frozenset[int], known: set[int]
) -> frozenset[int]:
    """The neighbours that the best rung lacks, as far as the ladder may still grow; a step to the safer side where all diverged."""
    if not measured:
        return frozenset()
    best = best_rung(measured)
    ends = min(measured) - 1, max(measured) + 1
    lacking = {ends[rules.safer > 0]} if best is None else {best - 1, best + 1}
    wanted = lacking - measured.keys() - closed
    room = rules.extend - len(known - rules.first)
    new = sorted(wanted - known - rules.first)[: max(0, room)]
    return frozenset(rung for rung in wanted if rung in known or rung in rules.first or rung in new)


@dataclass(frozen=True)
class OptimumStatus:
    """Whether the best rung has a finite neighbour on both sides; if not, why."""

    state: Literal["interior", "edge"]
    why: str = ""


def standing(rules: Ladder, scouts: Losses, full: Losses, closed: Closed) -> OptimumStatus:
    """How the best rung stands once nothing is left to train."""
    best = best_rung(full)
    if best is None:
        return OptimumStatus("edge", "every rung diverges")
    mean = {
        **{rung: loss for rung, loss in means(scouts).items() if math.isinf(loss)},
        **means(full),
    }
    for rung, side in ((best - 1, "below"), (best + 1, "above")):
        if rung in closed:
            return OptimumStatus(
                "edge", f"the rung {side} the best cannot be trained: {closed[rung]}"
            )
        if rung not in mean:
            return OptimumStatus(
                "edge",
                f"the best rung is the {'lowest' if side == 'below' else 'highest'}; extend = {rules.extend} is used up",
            )
        if math.isinf(mean[rung]):
            return OptimumStatus("edge", f"the rung {side} the best diverges")
    return OptimumStatus("interior")
