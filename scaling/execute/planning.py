"""The plan of a sweep on the data that is here, with the rules that a tuning has measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from scaling.config import EpochsDesign, Sweep, TextTask
from scaling.config.overrides import as_shell_words, load_with_overrides
from scaling.config.sweep_file import load_sweep
from scaling.errors import ScalingError
from scaling.execute.options import OnMessage
from scaling.execute.sweep_folder import SweepFolder
from scaling.formatting import format_count
from scaling.plan import Plan
from scaling.plan import plan as expand
from scaling.tasks import Task, epochs, open_task, resolve, resolve_eval_sets
from scaling.warning import ResultWarning, WarningCode, warn

MAX_EPOCHS = 4  # passes over the training data until which they teach almost as much as new data


@contextmanager
def errors_name_file(source: str) -> Iterator[None]:
    """Errors name the sweep file (or the command's words) that they come from."""
    try:
        yield
    except ScalingError as error:
        if source and not error.where.startswith(source):
            error.where = f"{source}: {error.where}".removesuffix(": ")
        raise


def plan_sweep(
    sweep: Sweep | Path,
    *,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    simulated: str | None = None,
    on_message: OnMessage,
) -> Plan:
    """The plan of a sweep or a sweep file, with the rules that its folder has measured.

    Warnings go to `on_message`. Raises ScalingError that names the file.
    """
    source = as_shell_words(sweep, overrides) if isinstance(sweep, Path) else ""
    loaded = load_with_overrides(sweep, overrides) if isinstance(sweep, Path) else sweep
    if loaded.tuning:
        folder = folder_of(loaded, out, sweep if isinstance(sweep, Path) else None)
        loaded = load_tuned_rules(loaded, folder, simulated=simulated, on_message=on_message)
    return make_plan(loaded, source=source, simulated=simulated, on_message=on_message)


def folder_of(sweep: Sweep, out: Path | None, source: Path | None = None) -> SweepFolder:
    """Where the results of a sweep lie: `out`, or the results folder whose own sweep.toml `source`
    is, or results/<name>.

    A sweep that overrides have renamed has a folder of its own.
    """
    path = out or Path("results") / sweep.name
    is_own = source is not None and source.name == "sweep.toml"
    if out is None and source and is_own and (source.parent / "plan.json").exists():
        path = source.parent if load_sweep(source).name == sweep.name else path
    if path.exists() and not path.is_dir():
        raise ScalingError(
            "is a file; results need a folder",
            where=path,
            remedy="name another one with --out",
        )
    return SweepFolder(path)


def make_plan(
    sweep: Sweep, *, source: str = "", simulated: str | None = None, on_message: OnMessage
) -> Plan:
    """The plan of a sweep; warnings go to `on_message`. Raises ScalingError that names `source`."""
    with errors_name_file(source):
        sweep, opened, planner = resolved(sweep, simulated)
        plan = planner(sweep)
        if simulated is None:
            more = repeated_data_warnings(opened, plan)
            plan = replace(plan, warnings=(*plan.warnings, *more))
    for warning in plan.warnings:
        on_message(f"warning: {warning}")
    return plan


def resolved(sweep: Sweep, simulated: str | None) -> tuple[Sweep, Task, Callable[[Sweep], Plan]]:
    """The sweep with the digests of its evaluation sets, its task on the data that is here, and
    what plans the sweep and others of that task.
    """
    task = resolve(sweep.base.task)
    if sweep.evals.sets:
        evals = resolve_eval_sets(sweep.evals, task)
        sweep = sweep.model_copy(update={"evals": evals})
    opened = open_task(task)
    planner = partial(expand, task=task, vocab_size=opened.vocab_size, simulated=simulated)
    return sweep, opened, planner


def load_tuned_rules(
    sweep: Sweep,
    folder: SweepFolder,
    *,
    simulated: str | None = None,
    on_message: OnMessage | None = None,
) -> Sweep:
    """The sweep with the rules that were measured for it in its folder.

    Where they are still to be measured: the sweep as it is, with a warning to `on_message`, or
    without `on_message` a ScalingError.
    """
    if not sweep.tuning:
        return sweep
    from scaling.tuning.document import load_tuned
    from scaling.tuning.fields import is_pending

    if not is_pending(sweep):
        return sweep
    tuned, why = load_tuned(folder.path, sweep, simulated)
    if tuned is not None:
        return tuned
    if on_message is None:
        raise ScalingError(
            f"the sweep must be tuned first, which an array of jobs cannot do: {why}",
            where="tuning",
            remedy=f"scaling tune SWEEP --out {folder.path}, then submit again",
        )
    fields = ", ".join(dict.fromkeys(entry.field for entry in sweep.tuning))
    on_message(
        f"warning: [[tuning]]: {why}: {fields} and run ids are the recipe's guess "
        "and will change after `scaling tune` (or `scaling run`)"
    )
    return sweep


def repeated_data_warnings(task: Task, plan: Plan) -> list[ResultWarning]:
    """Warnings about runs that pass over their data more often than the sweep asks for.

    Raises ScalingError where the corpus has fewer unique or fresh tokens than asked for.
    """
    runs = [item.run for item in plan.runs]
    limits = dict.fromkeys(
        run.task
        for run in runs
        if isinstance(run.task, TextTask) and run.task.unique_tokens is not None
    )
    for limited in limits:
        open_task(limited)  # raises where the corpus has fewer tokens
    if not isinstance(plan.sweep.base.task, TextTask):
        return []  # a finite set of equations is repeated on purpose
    most = max((epochs(task, run.tokens) for run in runs if run.task not in limits), default=0.0)
    is_epochs_design = isinstance(plan.sweep.design, EpochsDesign)
    if is_epochs_design and plan.sweep.base.task.unique_tokens is not None:
        raise ScalingError(
            "the design epochs sets the unique tokens itself",
            where="base.task.unique_tokens",
            remedy="leave it out",
        )
    message = f"up to {format_count(most)} passes over the training data"
    if is_epochs_design:
        message = f"fresh runs take {message}: not all of their tokens are new"
    elif most > MAX_EPOCHS:
        message += f"; beyond {MAX_EPOCHS} repeated tokens teach less (Muennighoff 2023)"
    else:
        message += "; the laws count every token as new"
    return [warn(WarningCode.REPEATED_DATA, message, passes=most)] if most > 1 else []
