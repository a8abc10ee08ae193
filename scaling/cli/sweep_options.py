"""The arguments that name a sweep, its plan and its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.output import echo_err
from scaling.errors import ScalingError

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
        help="Changes of the sweep file: optim.lr=3e-4, design.budgets='[1e12,1e13]'; a list "
        "for a field of model, optim or task is "
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
    """A sweep file with the rules that its folder has measured, and its plan on the data here.

    Raises ScalingError that names the file.
    """
    from scaling.config.overrides import as_shell_words, load_with_overrides
    from scaling.execute.planning import load_tuned_rules, make_plan

    sweep = load_with_overrides(path, overrides)
    if sweep.tuning:
        folder = folder_of(sweep, out, path)
        sweep = load_tuned_rules(sweep, folder, simulated=simulated, on_message=echo_err)
    source = as_shell_words(path, overrides)
    return sweep, make_plan(sweep, source=source, simulated=simulated, on_message=echo_err)


def folder_of(sweep: Sweep, out: Path | None, source: Path) -> SweepFolder:
    """Where the results of a sweep lie: `out`, or the results folder whose own sweep.toml `source`
    is, or results/<name>.

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
