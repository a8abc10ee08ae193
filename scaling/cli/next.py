"""The command `next`."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.cli.output import TableOutput, argument, echo_err, option
from scaling.errors import ScalingError
from scaling.formatting import format_flops, format_percent
from scaling.units import flops_option

if TYPE_CHECKING:
    from scaling.predict.design.next_runs import Proposal
    from scaling.predict.design.pool import PoolProposal

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
    cost: str | None = option("What a run costs; default 6*N*D.", POOL, "EXPR"),
    law: str | None = option("A law of docs/laws.md; default chinchilla.", POOL, "LAW"),
    formula: str | None = option('A law of your own: "L = E + A/N^alpha".', POOL, "TEXT|law.toml"),
    columns: str | None = option("Columns of both tables.", POOL, "N=...,L=..."),
    count: int | None = option("Number of runs proposed; default 5.", POOL, min=1, max=1000),
    largest: str | None = option(
        "Maximum cost of one run; default half of --budget.", metavar="FLOPS"
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
    others: dict[str, object] = {"DIR": folder, "--largest": largest, "--out": out}
    if pool is None:
        others = {"--law": law, "--formula": formula, "--columns": columns}
        others |= {"--cost": cost, "--count": count}
    for name, value in others.items():
        if value is not None:
            raise ScalingError(
                f"{name} is of runs from {'a pool' if pool is None else 'a fit'}",
                remedy=f"leave it out, or {'name' if pool is None else 'leave out'} --pool",
            )
    if law is not None and formula is not None:
        raise ScalingError("--law and --formula both name the law", remedy="give one")
    if pool is not None:
        from scaling.predict.design.pool import next_from_pool

        limit = None if budget is None else flops_option(budget, "--budget")
        named = formula or law or "chinchilla"
        picks = next_from_pool(
            pool, Path(target), cost or "6*N*D", named, columns, limit, count or 5
        )
        document = picks.to_dict()
        return output.emit(document, lambda: pool_text(picks), rows=document["runs"])
    if folder is None or budget is None:
        raise ScalingError(
            "neither a fit with --budget nor a pool is given",
            remedy="name a results folder and --budget FLOPS, or --pool POOL.csv",
        )
    from scaling.predict.design import next_runs as propose

    proposal = propose(folder, budget, target, largest, out)
    next_command = "the same command with --out SWEEP.toml writes these runs as a sweep"
    if out:
        echo_err(f"written: {out}")
        next_command = f"scaling run {shlex.quote(str(out))}"
    document = proposal.to_dict()
    return output.emit(document, lambda: next_text(proposal), next_command, rows=document["runs"])


def next_text(proposal: Proposal) -> list[object]:
    """The runs, what they cost, and how much they narrow N* and L* at the target."""
    from scaling.render.table import record_table

    columns = {"n_params": "parameters", "tokens": "tokens", "flops": "FLOPs"}
    rows = [run.to_dict() for run in proposal.runs]
    size, loss = proposal.sd_log_n_star, proposal.sd_log_loss
    before, after = (f"a factor of {math.exp(sd):.3g}" for sd in (size.before, size.after))
    losses = " to ".join(format_percent(sd) for sd in (loss.before, loss.after))
    sentence = (
        f"The standard error of N* at {format_flops(proposal.target)} FLOPs falls from {before} "
        f"to {after}, that of L* from {losses}, for {format_flops(proposal.spent)} of "
        f"{format_flops(proposal.budget)} FLOPs."
    )
    if proposal.spent < proposal.flops_alone:
        alone = format_flops(proposal.flops_alone)
        sentence += f" Runs of one size share their prefix; separate runs would cost {alone}."
    title, counts = "The most informative runs", ("parameters", "tokens")
    table = record_table("next", title, rows, columns=columns, count=counts)
    return [table, sentence, *proposal.warnings]


def pool_text(proposal: PoolProposal) -> list[object]:
    """The runs of a pool that are proposed, and how far they narrow the prediction."""
    from scaling.render.table import record_table

    rows = [
        {"row of the pool": run.row, **run.inputs, "cost": run.cost, "share of variance": run.gain}
        for run in proposal.runs
    ]
    counted = f"{proposal.trained} runs trained, {proposal.candidates} candidates"
    sentence = f"{counted}; these cost {proposal.spent:.4g}."
    if proposal.rms_sd is not None and proposal.rms_sd_after is not None:
        narrowed = f"{proposal.rms_sd:.4g} to {proposal.rms_sd_after:.4g}"
        sentence += f" The standard error of the target falls from {narrowed}."
    rough = tuple(rows[0])[1:] if rows else ()
    return [record_table("next", "Runs to train next", rows, rough=rough), sentence]
