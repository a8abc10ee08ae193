"""The command `fit`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli import csv_rows
from scaling.cli.output import TableOutput, choice, echo_err, option, page, typed_command
from scaling.errors import ScalingError

DATA, MODEL, INTERVALS = "Data", "Law and estimator", "Intervals"
Source = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOURCE...", help="A results folder, or .parquet, .csv, .json, .jsonl files."
    ),
]


def complete_law(incomplete: str) -> list[str]:
    """For the shell: the laws whose name begins so."""
    from scaling.fit.fit_options import AUTO, TABLE_LAWS, TWO_STAGE
    from scaling.fit.laws.laws import LAWS

    return [name for name in (AUTO, *LAWS, TWO_STAGE, *TABLE_LAWS) if name.startswith(incomplete)]


@dataclass(frozen=True)
class FitArguments:
    """The fields of `FitOptions` but its law, as the command line takes them."""

    formula: Annotated[
        str | None,
        option(
            'A law of your own: "L = E + A/N^alpha + B/D^beta", or a law.toml with one.',
            MODEL,
            "TEXT|law.toml",
        ),
    ] = None
    start: Annotated[
        str | None,
        option("With --formula: values from which the fit begins too.", MODEL, "NAME=VALUE,..."),
    ] = None
    approach: Annotated[
        str,
        choice(
            "parametric isoflop envelope",
            "The approach whose exponents head the result; all three are computed.",
            MODEL,
        ),
    ] = "parametric"
    minimum: Annotated[
        str,
        choice(
            "parabola cubic akima", "Interpolation of each isoFLOP curve.", MODEL, "interpolation"
        ),
    ] = "parabola"
    objective: Annotated[
        str | None,
        choice(
            "huber-log lad-log mse-log huber mse",
            "What is minimised, of log losses or of losses; default huber-log (mse of accuracies).",
            MODEL,
            "objective",
        ),
    ] = None
    delta: Annotated[
        float | None,
        option(
            "Huber's threshold, in units of the residual; default 0.001, for few runs twice their "
            "noise.",
            MODEL,
        ),
    ] = None
    fix: Annotated[
        str | None,
        option('Fixed parameters: "alpha=0.35,ln A=6.26".', MODEL, "NAME=VALUE,..."),
    ] = None
    one_sided: Annotated[
        float,
        option(
            "Weight in (0, 1] of runs above the law: under-tuned runs can only be worse.",
            MODEL,
            "W",
        ),
    ] = 1.0
    columns: Annotated[
        str | None,
        option("Column names: N=params, D=tokens, C=flops, L=loss.", DATA, "N=...,D=..."),
    ] = None
    params: Annotated[
        str,
        choice("with_head total nonembedding active", "Convention of N in a results folder.", DATA),
    ] = "with_head"
    flops: Annotated[
        str, choice("exact 6nd kaplan chinchilla", "Convention of C in a results folder.", DATA)
    ] = "exact"
    where: Annotated[
        str | None,
        option("Keep the rows that satisfy this: 'loss < 4 and n_layers == 2'.", DATA, "EXPR"),
    ] = None
    drop_highest: Annotated[int, option("Leave out the K highest losses.", DATA, "K", min=0)] = 0
    readout: Annotated[
        str | None,
        choice(
            "constant averaged",
            "Fit constant-LR (or averaged-weight) losses instead of cooled-down ones.",
            DATA,
        ),
    ] = None
    eval_set: Annotated[
        str | None,
        option("Fit the losses on an evaluation set of the sweep (`evals.sets`).", DATA, "NAME"),
    ] = None
    holdout: Annotated[
        str | None,
        option(
            "Number of largest budgets (or names of curves) held out; default 1.",
            INTERVALS,
            "K|none",
        ),
    ] = None
    rollout: Annotated[
        bool,
        option("Also predict each size from the smaller ones.", INTERVALS),
    ] = False
    bootstrap: Annotated[
        int,
        option(
            "Resamples, each refitted to convergence; 0 for no intervals.",
            INTERVALS,
            min=0,
            max=100_000,
        ),
    ] = 1000
    resample: Annotated[
        str,
        choice(
            "auto pairs clusters residual",
            "Bootstrap method; auto is residual below 100 runs.",
            INTERVALS,
        ),
    ] = "auto"
    ci: Annotated[float, option("Coverage of the intervals.", INTERVALS)] = 0.95
    seed: Annotated[int, option("Seed of the resamples.", INTERVALS, min=0)] = 0
    cluster: Annotated[
        str | None, option("Resample whole groups of this column.", INTERVALS, "COLUMN")
    ] = None


def fit(
    source: Source,
    arguments: FitArguments,
    law: Annotated[
        list[str] | None,
        option(
            "auto (several laws combined), chinchilla, skaling, kaplan, ... (docs/laws.md lists "
            "all); given twice, laws are compared.",
            MODEL,
            "LAW",
            autocompletion=complete_law,
            show_default="auto",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option("File to write; for a results folder DIR/fits/LAW.json.", "Output", "FIT.json"),
    ] = None,
    *,
    output: TableOutput,
) -> None:
    """Fit a scaling law to a sweep or to your own table: all three approaches, with intervals.

    Example: scaling fit runs.csv --columns 'N=params,D=tokens,L=loss' --out fit.json
    """
    from scaling.fit.pipeline import FitOptions
    from scaling.fit.pipeline import fit as run_fit
    from scaling.report.parts import candidate_laws
    from scaling.report.terminal import fit_text

    laws = list(dict.fromkeys(law or ["auto"]))
    options = FitOptions(law=laws[0], **vars(arguments))
    if len(laws) > 1:
        if out is not None:
            what = "one file holds one fit, and --law is given twice"
            raise ScalingError(what, where="--out", remedy="leave it out, or name one law")
        fits = (run_fit(source, replace(options, law=each)) for each in laws)
        judged = [candidate_laws.JudgedLaw.of(each) for each in fits]
        table, rows = candidate_laws.compared(judged), [each.to_dict() for each in judged]
        shown = page(table, table and table.caption)
        output.emit({"laws": rows}, lambda: shown, rows=lambda: rows)
        return
    result = run_fit(source, options)
    document = result.to_dict()
    if out is None and len(source) == 1 and (source[0] / "runs").is_dir():
        name = "formula" if "=" in document["law"] else document["law"]
        name = name if arguments.approach == "parametric" else arguments.approach
        name = "-".join(filter(None, (name, arguments.readout, arguments.eval_set)))
        out = source[0] / "fits" / f"{name}.json"
    if out is not None:
        result.save(out)
        echo_err(f"written: {out}")
    output.emit(
        document,
        lambda: fit_text(result, None if out is None else str(out), typed_command()),
        rows=lambda: csv_rows.fit_rows(document),
        columns=csv_rows.FITTED,
    )
