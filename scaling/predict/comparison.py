"""The comparison document: two or more sweeps, their tests, and the compute that each needs for the
loss of the first.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from scaling.fit.document import Column, Document, Estimate, FitStatus, Interval, Real
from scaling.fit.result import Approach, Convention, ModelContext


class ComparedSource(Document):
    """What one of the fits rests on."""

    paths: list[str]
    digest: str
    convention: Convention
    model: ModelContext
    evaluation: dict[str, Any] | None
    filters: dict[str, Any]


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
    source: ComparedSource
    objective: str


class LossComparability(Document):
    """Whether the losses of two sweeps compare (null: not known), and why."""

    compare: bool | None
    why: str


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
    p_holm: Real
    significant: bool


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
    """The compute multiplier over budgets of the first sweep, with its band (all (K,))."""

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


class Band(Document):
    """A curve with its interval (all (K,))."""

    value: Column
    lo: Column
    hi: Column


class FrontierCurves(Document):
    """N*(C) and L*(C) of one sweep."""

    flops: Column
    n_star: Band | None = None
    loss: Band | None = None


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
    frontiers: dict[str, FrontierCurves]
    notes: list[str]
