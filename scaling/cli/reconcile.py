"""The command `reconcile`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.output import Csv, Json, emit

if TYPE_CHECKING:
    from scaling.predict.reconcile import CountedRuns

APPROACHES = ("parametric", "isoflop", "envelope")


def reconcile(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE|FIT.json|published:NAME", help="Runs, a fit, or a published law."
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(metavar="N=...,D=...", help="Column names of your own table."),
    ] = None,
    omega: Annotated[
        float,
        typer.Option(
            metavar="W", help="N_total = N + W N^(1/3), for tables of total parameters only."
        ),
    ] = 47491.0,
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0, max=100_000, help="Resamples, each refitted to convergence; 0 for no intervals."
        ),
    ] = 1000,
    ci: Annotated[float, typer.Option(help="Coverage of the intervals.")] = 0.95,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Compare Kaplan's and Chinchilla's exponents on the same runs, and say why they differ.

    Example: scaling reconcile results/demo
    """
    from scaling.fit.fit_options import FitOptions
    from scaling.predict.reconcile import reconcile as run_reconcile
    from scaling.report.terminal import reconcile_text

    result = run_reconcile(source, FitOptions(columns=columns, bootstrap=bootstrap, ci=ci), omega)
    emit(
        result.to_dict(),
        lambda: reconcile_text(result),
        as_json=as_json,
        as_csv=as_csv,
        rows=lambda: [
            _row(counted, approach) for counted in result.countings for approach in APPROACHES
        ],
        next_command=f"scaling fit {shlex.quote(source)}" if Path(source).exists() else None,
    )


def _row(counted: CountedRuns, approach: str) -> dict[str, Any]:
    """The exponent a of one counting and approach, or why there is none."""
    exponents = getattr(counted, approach).to_dict()
    a = exponents.get("a") or {}
    return {
        "counting": counted.label,
        "approach": approach,
        **{part: a.get(part) for part in ("value", "lo", "hi")},
        "unavailable": exponents.get("unavailable"),
    }
