"""The command `next`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.output import Csv, Json, echo_err, emit

COLUMNS = ("n_params", "tokens", "flops", "copies", "seeds", "prefix")  # of a proposal of no runs


def next_runs(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A results folder with a fit, or a fit.")
    ],
    budget: Annotated[str, typer.Option(metavar="FLOPS", help="Cost of all next runs together.")],
    target: Annotated[
        str, typer.Option(metavar="FLOPS", help="The budget whose optimum is to be predicted.")
    ],
    largest: Annotated[
        str | None,
        typer.Option(metavar="FLOPS", help="Maximum cost of one run; default --budget."),
    ] = None,
    rho: Annotated[
        float,
        typer.Option(help="Noise correlation in [0, 1) between runs that share a prefix."),
    ] = 0.5,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="SWEEP.toml",
            rich_help_panel="Output",
            help="Write the proposal as a sweep that `scaling run` takes.",
        ),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Propose the runs that most narrow the optimum and its loss at a target budget.

    Example: scaling next results/demo --budget 1e13 --target 1e15
    """
    from scaling.predict.design import next_runs as propose
    from scaling.predict.design import write_sweep
    from scaling.report.terminal import next_text

    document = propose(folder, budget, target, largest, rho)
    onward = "the same command with --out SWEEP.toml writes these runs as a sweep"
    if out:
        write_sweep(document, folder, out)
        echo_err(f"written: {out}")
        onward = f"scaling run {shlex.quote(str(out))}"
    emit(
        document,
        lambda: next_text(document),
        as_json=as_json,
        as_csv=as_csv,
        rows=lambda: document["runs"],
        columns=COLUMNS,
        next_command=onward,
    )
