"""A sweep becomes runs: every cell is a `RunConfig`, or infeasible with a reason."""

from scaling.plan.plan import EmptyPlan, Plan, PlannedRun, plan
