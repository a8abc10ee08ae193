"""The command `reconcile`."""

from __future__ import annotations

import shlex
from pathlib import Path

from scaling.cli.options import BOOTSTRAP, CI
from scaling.cli.output import Output, argument, option


def reconcile(
    source: str = argument("SOURCE|FIT.json|published:NAME", "Runs, a fit, or a published law."),
    columns: str | None = option("Column names of your own table.", metavar="N=...,D=..."),
    omega: float = option(
        "N_total = N + W N^(1/3), for tables of total parameters only.",
        metavar="W",
        default=47491.0,
    ),
    bootstrap: int = BOOTSTRAP,
    ci: float = CI,
    *,
    output: Output,
) -> None:
    """Compare Kaplan's and Chinchilla's exponents on the same runs, and say why they differ.

    Example: scaling reconcile results/demo
    """
    from scaling.fit.fit_options import FitOptions
    from scaling.predict.reconcile import reconcile as run_reconcile
    from scaling.report.terminal import reconcile_parts

    result = run_reconcile(source, FitOptions(columns=columns, bootstrap=bootstrap, ci=ci), omega)
    command = "fit" if result.countings else "report"
    next_command = f"scaling {command} {shlex.quote(source)}" if Path(source).exists() else None
    output.emit(result.to_dict(), lambda: reconcile_parts(result), next_command)
