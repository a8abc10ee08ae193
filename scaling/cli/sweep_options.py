"""The verbs around a sweep: plan, train one run, status. (`run` has a module of its own.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.plan import Plan
    from scaling.tasks import Task


from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.output import echo_err

if TYPE_CHECKING:
    from scaling.config import Sweep
    from scaling.execute.sweep_folder import SweepFolder
    from scaling.plan import Plan


def keys_that_begin(incomplete: str) -> list[str]:
    """For the shell: the keys of a sweep file that begin so, with their sign."""
    from scaling.config.overrides import known_keys

    return [f"{key}=" for key in known_keys() if key.startswith(incomplete)]


SweepPath = Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file (TOML).")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Changes of the sweep file: optim.lr=3e-4, design.budgets='[1e12,1e13]'; a list for a field of model, optim or task is "
        "an axis. The changed sweep has a name and a folder of its own.",
        autocompletion=keys_that_begin,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The sweep's folder; default results/<name>."),
]


def planned_sweep(
    path: Path, simulated: str | None = None, out: Path | None = None, overrides: Sequence[str] = ()
) -> tuple[Sweep, Plan]:
    """A sweep file, with what was tuned for it in its folder, and its plan on the corpus that is here (for a law to simulate).

    Raises ScalingError that names the file.
    """
    from scaling.config.overrides import as_shell_words, load_with_overrides

    sweep = as_tuned(load_with_overrides(path, overrides), out, path, simulated)
    return sweep, plan_of(sweep, as_shell_words(path, overrides), simulated)


def plan_of(sweep: Sweep, path: Path | str, simulated: str | None = None) -> Plan:
    """The plan of a sweep that was read from `path`. Raises ScalingError that names the file."""
    from scaling.plan import plan as expand
    from scaling.tasks import open_task, resolve

    with errors_name_file(path):
        task = resolve(sweep.base.task)
        opened = open_task(task)
        plan = expand(sweep, task, opened.vocab_size, simulated)
        doubts = [*plan.warnings, *(repeats(opened, plan) if simulated is None else [])]
    for doubt in doubts:
        echo_err(f"warning: {doubt}")
    return plan


@contextmanager
def errors_name_file(path: Path | str) -> Iterator[None]:
    """Errors name the file that they come from."""
    try:
        yield
    except ScalingError as error:
        error.where = (
            error.where
            if error.where.startswith(str(path))
            else f"{path}: {error.where}".removesuffix(": ")
        )
        raise


def as_tuned(sweep: Sweep, out: Path | None, path: Path, simulated: str | None = None) -> Sweep:
    """The sweep with the rules that were measured for it in its folder; says so where they are still to be measured."""
    if not sweep.tuning:
        return sweep
    from scaling.tuning import is_pending, load_tuned

    if not is_pending(sweep):
        return sweep
    held = load_tuned(folder_of(sweep, out, path).path, sweep, simulated)
    if held.sweep is not None:
        return held.sweep
    fields = ", ".join(dict.fromkeys(entry.field for entry in sweep.tuning))
    echo_err(
        f"warning: [[tuning]]: {held.why}: {fields} and run ids are the recipe's guess until `scaling tune` (or `scaling run`) has measured"
    )
    return sweep


def folder_of(sweep: Sweep, out: Path | None, source: Path) -> SweepFolder:
    """Where the results of a sweep lie: `out`, or the results folder whose own sweep.toml `source` is, or results/<name>.

    A sweep that overrides have renamed has a folder of its own.
    """
    from scaling.config.sweep_file import load_sweep
    from scaling.execute.sweep_folder import SweepFolder

    path = out or Path("results") / sweep.name
    if out is None and source.name == "sweep.toml" and (source.parent / "plan.json").exists():
        path = source.parent if load_sweep(source).name == sweep.name else path
    if path.exists() and not path.is_dir():
        raise ScalingError(
            "is a file; results need a folder",
            where=str(path),
            remedy="name another one with --out",
        )
    return SweepFolder(path)


MANY_EPOCHS = 4


def repeats(opened: Task, plan: Plan) -> list[str]:
    """What to doubt where runs pass over their data again without having been asked to.

    Raises ScalingError where the corpus holds less than the unique tokens asked for, or no fresh tokens.
    """
    from scaling.config import EpochsDesign, TextTask
    from scaling.tasks import epochs, open_task

    runs = [item.run for item in plan.runs]
    limits = {
        run.task: None
        for run in runs
        if isinstance(run.task, TextTask) and run.task.unique_tokens is not None
    }
    for limited in limits:
        open_task(limited)  # refuses a limit that the corpus does not reach
    if not isinstance(plan.sweep.base.task, TextTask):
        return []  # a finite set of equations is read again and again; what that teaches is what such a sweep asks
    most = max((epochs(opened, run.tokens) for run in runs if run.task not in limits), default=0.0)
    if isinstance(plan.sweep.design, EpochsDesign):
        if (
            isinstance(plan.sweep.base.task, TextTask)
            and plan.sweep.base.task.unique_tokens is not None
        ):
            raise ScalingError(
                "the design epochs sets the unique tokens itself",
                where="base.task.unique_tokens",
                remedy="leave it out",
            )
        return (
            [
                f"fresh runs take up to {most:.2f} passes over the corpus: not all of their tokens are new"
            ]
            if most > 1
            else []
        )
    advice = f"beyond {MANY_EPOCHS} repeated tokens teach less (Muennighoff 2023)"
    return (
        [f"up to {most:.1f} passes over the training data; {advice}"] if most > MANY_EPOCHS else []
    )
