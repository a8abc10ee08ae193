"""A sweep becomes runs: every cell is a `RunConfig`, or infeasible with a reason."""

from scaling.plan.build import PlannedRun
from scaling.plan.cells import CellRequest
from scaling.plan.plan import EmptyPlan, Plan, plan
