"""The command `next`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.output import Csv, Json, echo_err, emit
from scaling.errors import ScalingError
from scaling.formatting import count_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scaling.predict.design.pool_next import PoolProposal

POOL = "Runs of a pool"


def next_runs(
    target: Annotated[
        str,
        typer.Option(
            metavar="FLOPS|TARGET.csv",
            help="The budget whose optimum, or the table whose losses, are to be predicted.",
        ),
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A results folder with a fit, or a fit.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="FLOPS", help="Cost of all next runs together.")
    ] = None,
    pool: Annotated[
        Path | None,
        typer.Option(
            metavar="POOL.csv",
            rich_help_panel=POOL,
            help="Runs that could be trained; those that have a loss are.",
        ),
    ] = None,
    cost: Annotated[
        str,
        typer.Option(metavar="EXPR", rich_help_panel=POOL, help="What a run costs."),
    ] = "6*N*D",
    law: Annotated[
        str,
        typer.Option(metavar="LAW", rich_help_panel=POOL, help="A law of docs/laws.md."),
    ] = "chinchilla",
    formula: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|law.toml",
            rich_help_panel=POOL,
            help='A law of your own: "L = E + A/N^alpha".',
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="N=...,L=...", rich_help_panel=POOL, help="Columns of both tables."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, max=1000, rich_help_panel=POOL, help="Number of runs proposed.")
    ] = 5,
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
    """Propose the runs that most narrow the optimum and its loss at a target budget, or those of a
    pool that most narrow the losses of a target table.

    Example: scaling next results/demo --budget 1e13 --target 1e15

    Example: scaling next --pool candidates.csv --target target.csv --cost "6*N*D" --law chinchilla
    """
    if pool is not None:
        from scaling.predict.design.pool_next import next_from_pool

        limit = None if budget is None else count_option(budget, "--budget", "give FLOPs")
        picks = next_from_pool(pool, Path(target), cost, formula or law, columns, limit, count)
        emit(
            picks.to_dict(),
            lambda: pool_text(picks),
            as_json=as_json,
            as_csv=as_csv,
            rows=lambda: [run.to_dict() for run in picks.runs],
            columns=("row", "cost", "gain"),
        )
        return
    if folder is None or budget is None:
        raise ScalingError(
            "neither a fit with --budget nor a pool is given",
            remedy="name a results folder and --budget FLOPS, or --pool POOL.csv",
        )
    from scaling.predict.design import next_runs as propose
    from scaling.predict.design import write_sweep
    from scaling.report.terminal import next_text

    proposal = propose(folder, budget, target, largest, rho)
    onward = "the same command with --out SWEEP.toml writes these runs as a sweep"
    if out:
        write_sweep(proposal, folder, out)
        echo_err(f"written: {out}")
        onward = f"scaling run {shlex.quote(str(out))}"
    emit(
        proposal.to_dict(),
        lambda: next_text(proposal),
        as_json=as_json,
        as_csv=as_csv,
        rows=lambda: [run.to_dict() for run in proposal.runs],
        next_command=onward,
    )


def pool_text(proposal: PoolProposal) -> RenderableType:
    """The runs of a pool that are proposed, and how far they narrow the prediction."""
    from rich.console import Group
    from rich.text import Text

    from scaling.render.table import Column, Table

    names = list(proposal.runs[0].inputs) if proposal.runs else []
    columns = (
        Column("row of the pool", "integer"),
        *(Column(name, "rough") for name in names),
        Column("cost", "rough"),
        Column("share of variance", "rough"),
    )
    rows = tuple((run.row, *run.inputs.values(), run.cost, run.gain) for run in proposal.runs)
    counted = f"{proposal.trained} runs trained, {proposal.candidates} candidates"
    sentence = f"{counted}; these cost {proposal.spent:.4g}."
    if proposal.rms_sd is not None and proposal.rms_sd_after is not None:
        narrowed = f"{proposal.rms_sd:.4g} to {proposal.rms_sd_after:.4g}"
        sentence += f" The standard error of the target falls from {narrowed}."
    return Group(Table("next", "Runs to train next", columns, rows).to_rich(), Text(sentence))
