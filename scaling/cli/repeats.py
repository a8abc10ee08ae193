"""Whether a plan's runs read their data again, and whether somebody asked for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.plan import Plan
    from scaling.tasks import Task

MANY_EPOCHS = 4


def repeats(opened: Task, plan: Plan) -> list[str]:
    """What to doubt where runs pass over their data again without having been asked to.

    Raises ScalingError where the corpus holds less than the unique tokens asked for, or no fresh tokens.
    """
    from scaling.config import EpochsDesign, TextTask
    from scaling.tasks import epochs, open_task

    runs = [item.run for item in plan.runs]
    limits = {run.task: None for run in runs if isinstance(run.task, TextTask) and run.task.unique_tokens is not None}
    for limited in limits:
        open_task(limited)  # refuses a limit that the corpus does not reach
    if not isinstance(plan.sweep.base.task, TextTask):
        return []  # a finite set of equations is read again and again; what that teaches is what such a sweep asks
    most = max((epochs(opened, run.tokens) for run in runs if run.task not in limits), default=0.0)
    if isinstance(plan.sweep.design, EpochsDesign):
        if isinstance(plan.sweep.base.task, TextTask) and plan.sweep.base.task.unique_tokens is not None:
            raise ScalingError("the design epochs sets the unique tokens itself", where="base.task.unique_tokens", remedy="leave it out")
        return [f"fresh runs take up to {most:.2f} passes over the corpus: not all of their tokens are new"] if most > 1 else []
    advice = f"beyond {MANY_EPOCHS} repeated tokens teach less (Muennighoff 2023)"
    return [f"up to {most:.1f} passes over the training data; {advice}"] if most > MANY_EPOCHS else []
