"""The command line: a command parses, calls one function of the package, and prints."""

from __future__ import annotations

from functools import cache
from typing import Any

import typer


def main() -> None:
    """Entry point of the `scaling` command."""
    with_commands()()


@cache
def with_commands() -> typer.Typer:
    """The application with all its commands, in the order of the pipeline."""
    from scaling.cli import (
        coord_check,
        count,
        data,
        doctor,
        fit,
        init,
        next,
        plan,
        predict,
        reconcile,
        report,
        results,
        run,
        status,
        train,
        tune,
    )
    from scaling.cli.app import add_command, app

    panels: dict[str, tuple[Any, ...]] = {
        "Design": (init.init, init.schema, plan.plan, count.count, coord_check.coord_check),
        "Train": (data.group, tune.tune, run.run, train.train, status.status),
        "Fit and predict": (
            fit.fit,
            predict.predict,
            reconcile.reconcile,
            next.next_runs,
            report.report,
        ),
        "Inspect": (results.group, doctor.doctor),
    }
    for panel, commands in panels.items():
        for command in commands:
            if isinstance(command, typer.Typer):
                app.add_typer(command, rich_help_panel=panel)
            else:
                add_command(app, command, panel)
    return app
