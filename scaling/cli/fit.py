"""The command `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli import csv_rows
from scaling.cli.output import Csv, Json, choice, echo_err, emit, typed_command

DATA, MODEL, INTERVALS = "Data", "Law and estimator", "Intervals"
Source = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOURCE...", help="A results folder, or .parquet, .csv, .json, .jsonl files."
    ),
]
APPROACHES = ("parametric", "isoflop", "envelope")
MINIMA = ("parabola", "cubic", "akima")
OBJECTIVES = ("huber-log", "lad-log", "mse-log", "huber", "mse")
RESAMPLES = ("auto", "pairs", "clusters", "residual")
N_CONVENTIONS = ("with_head", "total", "nonembedding")
FLOPS_CONVENTIONS = ("exact", "6nd", "kaplan", "chinchilla")
READOUTS = ("constant", "averaged")


def complete_law(incomplete: str) -> list[str]:
    """For the shell: the laws whose name begins so."""
    from scaling.fit.fit_options import AUTO, TABLE_LAWS, TWO_STAGE
    from scaling.fit.laws.laws import LAWS

    return [name for name in (AUTO, *LAWS, TWO_STAGE, *TABLE_LAWS) if name.startswith(incomplete)]


def fit(
    source: Source,
    law: Annotated[
        str,
        typer.Option(
            metavar="LAW",
            autocompletion=complete_law,
            rich_help_panel=MODEL,
            help="auto (several laws combined), chinchilla, skaling, kaplan, ... (docs/laws.md "
            "lists all).",
        ),
    ] = "auto",
    formula: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|law.toml",
            rich_help_panel=MODEL,
            help='A law of your own: "L = E + A/N^alpha + B/D^beta", or a law.toml with one.',
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=VALUE,...",
            rich_help_panel=MODEL,
            help="With --formula: values from which the fit begins too.",
        ),
    ] = None,
    approach: Annotated[
        str,
        choice(
            "--approach",
            APPROACHES,
            "The approach whose exponents head the result; all three are computed.",
            MODEL,
        ),
    ] = "parametric",
    minimum: Annotated[
        str,
        choice(
            "--minimum", MINIMA, "Interpolation of each isoFLOP curve.", MODEL, kind="interpolation"
        ),
    ] = "parabola",
    objective: Annotated[
        str | None,
        choice(
            "--objective",
            OBJECTIVES,
            "What is minimised, of log losses or of losses; default huber-log (mse of accuracies).",
            MODEL,
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=MODEL,
            help="Huber's threshold, in units of the residual; default 0.001, for few runs twice "
            "their noise.",
        ),
    ] = None,
    fix: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=VALUE,...",
            rich_help_panel=MODEL,
            help='Fixed parameters: "alpha=0.35,ln A=6.26".',
        ),
    ] = None,
    one_sided: Annotated[
        float,
        typer.Option(
            metavar="W",
            rich_help_panel=MODEL,
            help="Weight in (0, 1] of runs above the law: under-tuned runs can only be worse.",
        ),
    ] = 1.0,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="N=...,D=...",
            rich_help_panel=DATA,
            help="Column names: N=params, D=tokens, C=flops, L=loss.",
        ),
    ] = None,
    params: Annotated[
        str, choice("--params", N_CONVENTIONS, "Convention of N in a results folder.", DATA)
    ] = "with_head",
    flops: Annotated[
        str, choice("--flops", FLOPS_CONVENTIONS, "Convention of C in a results folder.", DATA)
    ] = "exact",
    where: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR",
            rich_help_panel=DATA,
            help="Keep the rows that satisfy this: 'loss < 4 and n_layers == 2'.",
        ),
    ] = None,
    drop_highest: Annotated[
        int,
        typer.Option(
            metavar="K", min=0, rich_help_panel=DATA, help="Leave out the K highest losses."
        ),
    ] = 0,
    readout: Annotated[
        str | None,
        choice(
            "--readout",
            READOUTS,
            "Fit constant-LR (or averaged-weight) losses instead of cooled-down ones.",
            DATA,
        ),
    ] = None,
    eval_set: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=DATA,
            help="Fit the losses on an evaluation set of the sweep (`evals.sets`).",
        ),
    ] = None,
    holdout: Annotated[
        str | None,
        typer.Option(
            metavar="K|none",
            rich_help_panel=INTERVALS,
            help="Number of largest budgets (or names of curves) held out; default 1.",
        ),
    ] = None,
    rollout: Annotated[
        bool,
        typer.Option(
            "--rollout",
            rich_help_panel=INTERVALS,
            help="Also predict each size from the smaller ones.",
        ),
    ] = False,
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0,
            max=100_000,
            rich_help_panel=INTERVALS,
            help="Resamples, each refitted to convergence; 0 for no intervals.",
        ),
    ] = 1000,
    resample: Annotated[
        str,
        choice(
            "--resample", RESAMPLES, "Bootstrap method; auto is residual below 100 runs.", INTERVALS
        ),
    ] = "auto",
    ci: Annotated[
        float, typer.Option(rich_help_panel=INTERVALS, help="Coverage of the intervals.")
    ] = 0.95,
    seed: Annotated[
        int, typer.Option(min=0, rich_help_panel=INTERVALS, help="Seed of the resamples.")
    ] = 0,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            rich_help_panel=INTERVALS,
            help="Resample whole groups of this column.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FIT.json",
            rich_help_panel="Output",
            help="File to write; for a results folder DIR/fits/LAW.json.",
        ),
    ] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Fit a scaling law to a sweep or to your own table: all three approaches, with intervals.

    Example: scaling fit runs.csv --columns 'N=params,D=tokens,L=loss' --out fit.json
    """
    from scaling.fit.pipeline import FitOptions
    from scaling.fit.pipeline import fit as run_fit
    from scaling.report.terminal import fit_text

    options = FitOptions(
        law=law,
        formula=formula,
        start=start,
        approach=approach,
        minimum=minimum,
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
        eval_set=eval_set,
    )
    result = run_fit(source, options)
    document = result.to_dict()
    if out is None and len(source) == 1 and (source[0] / "runs").is_dir():
        name = "formula" if "=" in document["law"] else document["law"]
        name = name if approach == "parametric" else approach
        name = "-".join(filter(None, (name, readout, eval_set)))
        out = source[0] / "fits" / f"{name}.json"
    if out is not None:
        result.save(out)
        echo_err(f"written: {out}")
    emit(
        document,
        lambda: fit_text(result, None if out is None else str(out), typed_command()),
        as_json=as_json,
        as_csv=as_csv,
        rows=lambda: csv_rows.fit_rows(document),
        columns=csv_rows.FITTED,
    )
