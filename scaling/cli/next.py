"""The command `next`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.cli.output import TableOutput, argument, echo_err, option, page
from scaling.errors import ScalingError
from scaling.formatting import count_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scaling.predict.design.pool_next import PoolProposal

POOL = "Runs of a pool"


def next_runs(
    target: str = option(
        "The budget whose optimum, or the table whose losses, are to be predicted.",
        metavar="FLOPS|TARGET.csv",
        default=...,
    ),
    folder: Path | None = argument("DIR", "A results folder with a fit, or a fit.", default=None),
    budget: str | None = option("Cost of all next runs together.", metavar="FLOPS"),
    pool: Path | None = option(
        "Candidate runs; rows with a loss count as already trained.", POOL, "POOL.csv"
    ),
    cost: str = option("What a run costs.", POOL, "EXPR", default="6*N*D"),
    law: str = option("A law of docs/laws.md.", POOL, "LAW", default="chinchilla"),
    formula: str | None = option('A law of your own: "L = E + A/N^alpha".', POOL, "TEXT|law.toml"),
    columns: str | None = option("Columns of both tables.", POOL, "N=...,L=..."),
    count: int = option("Number of runs proposed.", POOL, min=1, max=1000, default=5),
    largest: str | None = option("Maximum cost of one run; default --budget.", metavar="FLOPS"),
    rho: float = option(
        "Noise correlation in [0, 1) between runs that share a prefix.", default=0.5
    ),
    out: Path | None = option(
        "Write the proposal as a sweep that `scaling run` takes.", "Output", "SWEEP.toml"
    ),
    *,
    output: TableOutput,
) -> None:
    """Propose the runs that most narrow the optimum and its loss at a target budget, or those of a
    pool that most narrow the losses of a target table.

    Example: scaling next results/demo --budget 1e13 --target 1e15

    Example: scaling next --pool candidates.csv --target target.csv --cost "6*N*D" --law chinchilla
    """
    if pool is not None:
        from scaling.predict.design.pool_next import next_from_pool

        limit = None if budget is None else count_option(budget, "--budget")
        picks = next_from_pool(pool, Path(target), cost, formula or law, columns, limit, count)
        document = picks.to_dict()
        return output.emit_table(document, lambda: document["runs"], lambda: pool_text(picks))
    if folder is None or budget is None:
        raise ScalingError(
            "neither a fit with --budget nor a pool is given",
            remedy="name a results folder and --budget FLOPS, or --pool POOL.csv",
        )
    from scaling.predict.design import next_runs as propose
    from scaling.predict.design import write_sweep
    from scaling.report.terminal import next_parts

    proposal = propose(folder, budget, target, largest, rho)
    next_command = "the same command with --out SWEEP.toml writes these runs as a sweep"
    if out:
        write_sweep(proposal, folder, out)
        echo_err(f"written: {out}")
        next_command = f"scaling run {shlex.quote(str(out))}"
    document = proposal.to_dict()
    return output.emit_table(
        document, lambda: document["runs"], lambda: page(*next_parts(proposal)), next_command
    )


def pool_text(proposal: PoolProposal) -> RenderableType:
    """The runs of a pool that are proposed, and how far they narrow the prediction."""
    from scaling.render.table import record_table

    rows = [
        {
            "row of the pool": run.row,
            **run.inputs,
            "cost": run.cost,
            "share of variance": run.gain,
        }
        for run in proposal.runs
    ]
    rough = tuple(rows[0])[1:] if rows else ()
    counted = f"{proposal.trained} runs trained, {proposal.candidates} candidates"
    sentence = f"{counted}; these cost {proposal.spent:.4g}."
    if proposal.rms_sd is not None and proposal.rms_sd_after is not None:
        narrowed = f"{proposal.rms_sd:.4g} to {proposal.rms_sd_after:.4g}"
        sentence += f" The standard error of the target falls from {narrowed}."
    table = record_table("next", "Runs to train next", rows, rough=rough)
    return page(table, sentence)
