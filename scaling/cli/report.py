"""Moved from fits.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.output import Json, print_json

REPORT_EPILOG = """Example: scaling report results/demo

Example: scaling report results/base results/longer-context --out comparison --budgets 1e13,1e14"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("report", epilog=REPORT_EPILOG)(report)


def report(
    source: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR|FIT.json...",
            help="A results folder, fits of one sweep, or several sweeps to compare with the first.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where to write; default DIR/report, and ./comparison for several sweeps.",
        ),
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(
            metavar="C,...",
            help="With several sweeps: FLOPs of the first at which the compute of the others is asked.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write index.html (self-contained), report.md, figures and tables. Several sweeps are compared: do their laws differ, and how much
    compute does one need for the loss of another?
    """
    from scaling import files
    from scaling.errors import ScalingError
    from scaling.formatting import count_option
    from scaling.report.inputs import is_comparison
    from scaling.report.page import COMPARISON, write_report

    remedy = 'write FLOPs with commas between them: --budgets 1e13,"10T"'
    asked = (
        [count_option(part, "--budgets", remedy) for part in budgets.split(",")]
        if budgets is not None
        else []
    )
    if any(each < 1 for each in asked):
        raise ScalingError("a budget is at least one FLOP", where="--budgets", remedy=remedy)
    page = write_report(source, out, budgets=asked)
    if as_json:
        found = files.read_json(page.parent / f"{COMPARISON}.json") if is_comparison(source) else {}
        return print_json(
            {
                "report": str(page),
                "folder": str(page.parent),
                **({"comparison": found} if found else {}),
            }
        )
    return typer.echo(f"report: {page}")
