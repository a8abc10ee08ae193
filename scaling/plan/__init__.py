"""A sweep becomes runs: every cell of its design is a `RunConfig` or is refused with a reason, before a second is spent."""

from scaling.plan.build import PlannedRun
from scaling.plan.cells import Cell, CellRequest
from scaling.plan.plan import Plan, plan

__all__ = ["Cell", "CellRequest", "Plan", "PlannedRun", "plan"]
