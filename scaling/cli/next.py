"""Moved from fits.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli import csv_rows
from scaling.cli.output import Csv, Json, console, echo_err, note_warnings, print_csv, print_json


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("next", epilog="Example: scaling next results/demo --budget 1e13 --target 1e15")(
        next_runs
    )


def next_runs(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A results folder with a fit, or a fit.")
    ],
    budget: Annotated[
        str, typer.Option(metavar="FLOPS", help="What the next runs may cost together.")
    ],
    target: Annotated[
        str, typer.Option(metavar="FLOPS", help="The budget whose optimum is to be predicted.")
    ],
    largest: Annotated[
        str | None,
        typer.Option(metavar="FLOPS", help="What one run may cost; default no limit but --budget."),
    ] = None,
    rho: Annotated[
        float, typer.Option(help="Share of the noise that branches of one trunk have in common.")
    ] = 0.5,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="SWEEP.toml", help="Write the proposal as a sweep that `scaling run` takes."
        ),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Propose the runs that most reduce the uncertainty of the compute-optimal N and its loss at a target budget."""
    from scaling.predict.design import next_runs as propose
    from scaling.predict.design import write_sweep

    document = propose(folder, budget, target, largest, rho)
    if out:
        write_sweep(document, folder, out)
        echo_err(f"written: {out}")
    if as_json:
        return print_json(document)
    if as_csv:
        note_warnings(document)
        return print_csv(document["runs"], csv_rows.PROPOSED)
    from scaling.report.terminal import next_text

    return console().print(next_text(document))
