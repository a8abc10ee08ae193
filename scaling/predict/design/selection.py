"""The choice of runs: greedily, each time the candidate that takes most from the variance of what
is asked, per cost^COST_POWER (V-optimal design: Fedorov 1972; Atkinson and Donev 1992).

No law is exact: a run counts for less the further it lies from the target.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scaling.fit.laws.derivatives import Array, Inputs

COST_POWER = 0.5
DISTANCE = 0.5  # error of the law's form a decade outside the target, in units of the noise


class Pick(NamedTuple):
    """A candidate that was chosen, the variance of the target that it takes away, and its cost."""

    row: int
    gain: float
    cost: float


@dataclass
class Belief:
    """What is known of a law while runs are chosen whose losses are not known yet: its modes with
    weights (K,), which stay, and covariances (K, P, P), which narrow. Values and slopes are those
    of the candidates, (K, c) and (K, P, c), and of the target, (K, T) and (K, P, T); `noise` is the
    standard deviation of one run.
    """

    weight: Array
    covariance: Array
    noise: float
    value: Array
    slopes: Array
    target_value: Array
    target_slopes: Array

    def gains(self, precision: Array) -> Array:
        """What one more run at each candidate (c,) takes from the mean variance of the target,
        within modes and between them.
        """
        narrowed = self.covariance @ self.slopes
        moved = self.target_slopes.transpose(0, 2, 1) @ narrowed
        variance = (narrowed * self.slopes).sum(1) + self.noise**2 / precision
        shares = self.weight
        total = shares @ np.nan_to_num((moved**2).mean(1) / variance)
        for k, other in itertools.combinations(range(len(shares)), 2):
            apart = (self.value[k] - self.value[other]) ** 2 / (variance[k] + variance[other])
            far = np.mean((self.target_value[k] - self.target_value[other]) ** 2)
            total += np.nan_to_num(shares[k] * shares[other] * far * -np.expm1(-apart / 2))
        return total

    def add(self, row: int, precision: float) -> None:
        """Plan the run of a candidate."""
        slopes = self.slopes[:, :, row]
        moved = np.einsum("kpq,kq->kp", self.covariance, slopes)
        variance = (moved * slopes).sum(1) + self.noise**2 / precision
        outer = moved[:, :, None] * moved[:, None, :]
        self.covariance = self.covariance - outer / variance[:, None, None]


def precisions(runs: Inputs, target: Inputs) -> Array:
    """How much each run (n,) counts, from 0 to 1, by its distance from the box of the target in
    decades of its positive inputs.
    """
    square = np.zeros(len(next(iter(runs.values()))))
    for name, values in runs.items():
        if (values > 0).all() and (target[name] > 0).all():
            logs, ends = np.log10(values), np.log10(target[name])
            square += np.maximum(np.maximum(ends.min() - logs, logs - ends.max()), 0.0) ** 2
    return np.asarray(1 / (1 + DISTANCE**2 * square))


def choose(
    beliefs: Sequence[Belief],
    precision: Array,
    costs: Callable[[list[int]], Array],
    budget: float,
    count: int,
    trained: Sequence[int] = (),
) -> list[Pick]:
    """At most `count` candidates for at most `budget`, in the order in which they are worth most.

    `costs` gives what each candidate costs once some were chosen; those `trained` are no longer
    candidates.
    """
    picks: list[Pick] = []
    for _ in range(count):
        chosen = [pick.row for pick in picks]
        cost = costs(chosen)
        left = budget - sum(pick.cost for pick in picks)
        is_open = cost <= left * (1 + 1e-12)
        is_open[[*trained, *chosen]] = False
        if not is_open.any():
            break
        gain = np.sum([belief.gains(precision) for belief in beliefs], axis=0)
        row = int(np.argmax(np.where(is_open, gain / cost**COST_POWER, -1.0)))
        picks.append(Pick(row, float(gain[row]), float(cost[row])))
        for belief in beliefs:
            belief.add(row, float(precision[row]))
    return picks
