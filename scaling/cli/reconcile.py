"""The command `reconcile`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.cli.options import BOOTSTRAP, CI
from scaling.cli.output import TableOutput, argument, option

if TYPE_CHECKING:
    from scaling.predict.reconcile import CountedRuns

APPROACHES = ("parametric", "isoflop", "envelope")


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
    output: TableOutput,
) -> None:
    """Compare Kaplan's and Chinchilla's exponents on the same runs, and say why they differ.

    Example: scaling reconcile results/demo
    """
    from scaling.fit.fit_options import FitOptions
    from scaling.predict.reconcile import reconcile as run_reconcile
    from scaling.report.terminal import reconcile_text

    result = run_reconcile(source, FitOptions(columns=columns, bootstrap=bootstrap, ci=ci), omega)
    output.emit(
        result.to_dict(),
        lambda: reconcile_text(result),
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
