"""The document of a comparison: two or more sweeps, their tests, and the compute that each needs
for the loss of the first.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from scaling.fit.document import Column, Document, Estimate, FitStatus, Interval, Real
from scaling.fit.result import Approach, SourceInfo
from scaling.points.comparability import LossComparability


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
