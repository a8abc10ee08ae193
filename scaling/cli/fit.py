"""The verbs of the right half: fit, reconcile, next, report; predict has a file of its own. None of them starts jax."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli import csv_rows
from scaling.cli.output import Csv, Json, console, echo_err, note_warnings, print_csv, print_json

Source = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOURCE...", help="A results folder, or .parquet, .csv, .json, .jsonl files."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(
        "fit",
        epilog="Example: scaling fit runs.csv --columns 'N=params,D=tokens,L=loss' --out fit.json",
    )(fit)


def fit(
    source: Source,
    law: Annotated[
        str,
        typer.Option(
            help="auto (several laws combined), chinchilla, skaling, kaplan, power, bnsl, two-stage, coverage, ... (docs/laws.md)."
        ),
    ] = "auto",
    approach: Annotated[
        str, typer.Option(help="parametric, isoflop or envelope: the one that heads the result.")
    ] = "parametric",
    valley: Annotated[
        str, typer.Option(help="How an isoFLOP valley's bottom is found: parabola, cubic or akima.")
    ] = "parabola",
    objective: Annotated[
        str, typer.Option(help="huber-log, lad-log, mse-log, huber or mse.")
    ] = "huber-log",
    delta: Annotated[
        float, typer.Option(help="Huber's threshold, in the units of the residual.")
    ] = 1e-3,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="N=...,D=...", help="Names of the columns: N=params,D=tokens,C=flops,L=loss."
        ),
    ] = None,
    params: Annotated[
        str, typer.Option(help="How N is counted from results: with_head, total or nonembedding.")
    ] = "with_head",
    flops: Annotated[
        str, typer.Option(help="How C is counted from results: exact, 6nd, kaplan or chinchilla.")
    ] = "exact",
    where: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR",
            help="Keep rows for which this holds, e.g. 'loss < 4 and n_layers == 2'.",
        ),
    ] = None,
    drop_highest: Annotated[
        int, typer.Option(metavar="K", min=0, help="Leave out the K highest losses.")
    ] = 0,
    holdout: Annotated[
        str | None,
        typer.Option(
            metavar="K|none", help="Largest budgets (or curves, by name) to leave out; default 1."
        ),
    ] = None,
    fix: Annotated[
        str | None,
        typer.Option(metavar="NAME=VALUE,...", help='Hold parameters: "alpha=0.35,ln A=6.26".'),
    ] = None,
    rollout: Annotated[
        bool, typer.Option("--rollout", help="Predict each size from the smaller ones, too.")
    ] = False,
    one_sided: Annotated[
        float,
        typer.Option(
            metavar="W",
            help="Weight of runs above the law, 0 to 1: under-tuned runs can only be worse.",
        ),
    ] = 1.0,
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0, max=100_000, help="Resamples, each refitted to convergence; 0 for none."
        ),
    ] = 1000,
    resample: Annotated[
        str, typer.Option(help="auto, pairs, clusters or wild; auto is wild below 100 runs.")
    ] = "auto",
    ci: Annotated[float, typer.Option(help="Coverage of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    cluster: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Resample whole groups of this column.")
    ] = None,
    readout: Annotated[
        str | None,
        typer.Option(
            metavar="constant|averaged",
            help="Fit what trunks say at each budget without cooling down.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FIT.json", help="Where to write; for a results folder fits/<law>.json."
        ),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Fit scaling laws to a sweep or to anybody's table: all three roads side by side, with intervals and warnings."""
    from scaling.fit.fit_document import dump
    from scaling.fit.pipeline import FitOptions
    from scaling.fit.pipeline import fit as run_fit

    options = FitOptions(
        law=law,
        approach=approach,
        valley=valley,
        objective=objective,
        delta=delta,
        columns=columns,
        params=params,
        flops=flops,
        where=where,
        drop_highest=drop_highest,
        holdout=holdout,
        fix=fix,
        rollout=rollout,
        one_sided=one_sided,
        resample=resample,
        bootstrap=bootstrap,
        ci=ci,
        seed=seed,
        cluster=cluster,
        readout=readout,
    )
    document = run_fit(source, options)
    name = document["law"] if approach == "parametric" else approach
    target = out or _default_fit_path(source, f"{name}-{readout}" if readout else name)
    if target:
        dump(document, target)
        echo_err(f"written: {target}")
    if as_json:
        return print_json(document)
    if as_csv:
        note_warnings(document)
        return print_csv(csv_rows.fit_rows(document), csv_rows.FITTED)
    from scaling.report.terminal import fit_text

    return console().print(fit_text(document))


def _default_fit_path(source: list[Path], name: str) -> Path | None:
    """A results folder keeps its fits; a stranger's table is left alone."""
    if len(source) == 1 and (source[0] / "runs").is_dir():
        return source[0] / "fits" / f"{name}.json"
    return None
