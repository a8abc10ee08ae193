"""Moved from fits.py."""

from __future__ import annotations

from typing import Annotated

import typer

from scaling.cli import csv_rows
from scaling.cli.output import Csv, Json, console, note_warnings, print_csv, print_json


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("reconcile", epilog="Example: scaling reconcile results/demo")(reconcile)


def reconcile(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE|FIT.json|published:NAME", help="Runs, a fit, or a published law."
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(metavar="N=...,D=...", help="Names of the columns of a foreign table."),
    ] = None,
    omega: Annotated[
        float,
        typer.Option(
            metavar="W", help="N_total = N + W N^(1/3), for tables that hold total parameters only."
        ),
    ] = 47491.0,
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0, max=100_000, help="Resamples, each refitted to convergence; 0 for none."
        ),
    ] = 1000,
    ci: Annotated[float, typer.Option(help="Coverage of the intervals.")] = 0.95,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Kaplan against Chinchilla: the exponents of the same runs under both ways of counting, and why they differ."""
    from scaling.fit.options import FitOptions
    from scaling.predict.reconcile import reconcile as run_reconcile

    document = run_reconcile(source, FitOptions(columns=columns, bootstrap=bootstrap, ci=ci), omega)
    if as_json:
        return print_json(document)
    if as_csv:
        note_warnings(document)
        return print_csv(csv_rows.reconcile_rows(document), csv_rows.RECONCILED)
    from scaling.report.terminal import reconcile_text

    return console().print(reconcile_text(document))
