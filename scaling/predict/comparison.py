"""The sides of a comparison, whether they compare, and the document: two or more sweeps, their
tests, and the compute that each needs for the loss of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from scaling.errors import ScalingError
from scaling.fit.document import Column, Document, Estimate, FitStatus, Interval, Real
from scaling.fit.frontier.frontier import Frontier
from scaling.fit.result import Approach, FitResult, SourceInfo
from scaling.points.comparability import LossComparability
from scaling.predict.law_source import FittedLaw, load_law

Array = np.ndarray
UNKNOWN = "as given"


class ComparedFit(Document):
    """One sweep and its estimates."""

    name: str
    law: str
    approach: Approach
    status: FitStatus
    n_points: int
    params: dict[str, Estimate]
    derived: dict[str, Estimate]
    range: dict[str, tuple[Real, Real]]
    source: SourceInfo
    objective: str


class DifferenceTest(Document):
    """The test of one quantity: its value in both sweeps, the difference, p, and p adjusted for all
    tests (Holm).
    """

    other: str
    quantity: str
    first: Estimate | None
    second: Estimate | None
    difference: Estimate | Interval
    p: Real
    p_holm: Real = 1.0
    significant: bool = False


class ComputeRow(Document):
    """At one budget of the first sweep: its loss, and the FLOPs that the other needs for it."""

    flops: Real
    loss: Real | None
    needed: Real | None
    share: Interval
    gain: Interval
    beyond: list[str]
    never: str | None = None
    unreached: Real
    p: Real | None = None


class GainCurve(Document):
    """The compute multiplier over budgets of the first sweep, with its interval (all (K,))."""

    flops: Column
    gain: Column
    lo: Column
    hi: Column


class ComputeMultiplier(Document):
    """The compute that the other sweep needs for the loss of the first."""

    both_trained: bool
    range: tuple[Real, Real]
    at_top: ComputeRow
    rows: list[ComputeRow]
    curve: GainCurve


class Comparison(Document):
    """The comparison of the first fit with each other one."""

    schema_version: Annotated[int, Field(alias="schema")]
    baseline: str
    ci: Real
    level: Real
    sides: list[ComparedFit]
    losses: dict[str, LossComparability]
    tests: list[DifferenceTest]
    multipliers: dict[str, ComputeMultiplier | None]
    notes: list[str]


@dataclass(frozen=True)
class ComparedSweep:
    """One sweep: its name, fit, law and frontier, and draws (R,) of the frontier."""

    name: str
    fit: FitResult
    law: FittedLaw
    optimum: Frontier
    draws: Frontier

    def parameter(self, name: str) -> tuple[float, Array]:
        """A parameter of the law, or an exponent of the frontier, with its draws (R,)."""
        if name in ("a", "b"):
            return float(getattr(self.optimum, name)), np.asarray(getattr(self.draws, name))
        return float(self.law.values[name]), np.asarray((self.law.draws or {})[name])

    @property
    def budgets(self) -> tuple[float, float]:
        """The smallest and largest FLOPs trained."""
        return self.law.range["flops"]


def compared_sweep(name: str, fit: FitResult) -> ComparedSweep:
    """A fit as a side. Raises ScalingError for one without a frontier, draws or budgets."""
    law = load_law(fit)
    again = "fit it again with draws: scaling fit SOURCE --bootstrap 1000"
    if law.optimum is None:
        raise ScalingError(
            f"the law {fit.law} has no compute-optimal N and D to compare",
            where=name,
            remedy="fit another law",
        )
    if law.draws is None or law.optimum_draws is None or np.size(law.optimum_draws.a) < 2:
        raise ScalingError(
            "the fit holds no bootstrap draws, so nothing can be tested", where=name, remedy=again
        )
    if "flops" not in law.range:
        raise ScalingError(
            "the fit does not say which budgets were trained",
            where=name,
            remedy="fit a table that holds N, D and C",
        )
    return ComparedSweep(name, fit, law, law.optimum, law.optimum_draws)


def check_comparable(sides: Sequence[ComparedSweep]) -> None:
    """Raise ScalingError where sides rest on the same runs, or count N or C differently."""
    if len(sides) < 2:
        raise ScalingError(
            "one source cannot be compared", remedy="name two or more: scaling report A B"
        )
    seen: dict[str, str] = {}
    for side in sides:
        digest = side.fit.source.digest or side.name
        if digest in seen:
            what = (
                f"rests on the same runs as {seen[digest]}: their draws are not independent, "
                "and a test would say nothing"
            )
            raise ScalingError(what, where=side.name, remedy="name one fit of each sweep")
        seen[digest] = side.name
    first = sides[0]
    for side in sides[1:]:
        for letter, option in (("params", "N"), ("flops", "C")):
            ours, theirs = (_counting(each, letter) for each in (first, side))
            if UNKNOWN not in (ours, theirs) and ours != theirs:
                what = f"its fit counts {option} as {theirs}, that of {first.name} as {ours}"
                raise ScalingError(
                    what,
                    where=side.name,
                    remedy=f"fit it again: scaling fit SOURCE --{letter} {ours} --out FIT.json",
                )


def fitting_notes(first: ComparedSweep, other: ComparedSweep) -> list[str]:
    """What the reader must know of how the two were fitted."""
    notes = [
        f"{other.name} was fitted with the {key} {theirs}, {first.name} with {ours}."
        for key in ("law", "approach")
        for ours, theirs in [(getattr(first.fit, key), getattr(other.fit, key))]
        if ours != theirs
    ]
    ours, theirs = objective_text(first), objective_text(other)
    if ours != theirs:
        notes.append(f"{other.name} was fitted by {theirs}, {first.name} by {ours}.")
    unknown = [
        side.name
        for side in (first, other)
        if UNKNOWN in (_counting(side, "params"), _counting(side, "flops"))
    ]
    if unknown:
        notes.append(
            f"How N and C are counted is not known for {' and '.join(unknown)}: the same "
            "counting is assumed."
        )
    return notes


def objective_text(side: ComparedSweep) -> str:
    """The objective, with its delta."""
    objective = side.fit.objective
    if not objective.delta:
        return objective.name
    delta = "from the noise" if objective.delta_from_noise else f"{objective.delta:g}"
    return f"{objective.name} (delta {delta})"


def _counting(side: ComparedSweep, quantity: str) -> str:
    return getattr(side.law.convention, quantity) or UNKNOWN


def compared_fit(side: ComparedSweep) -> ComparedFit:
    """What the comparison writes of a sweep."""
    own = {"name": side.name, "objective": objective_text(side)}
    fields = {name: value for name, value in side.fit if name in ComparedFit.model_fields}
    return ComparedFit(**fields | own)
