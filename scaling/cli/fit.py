"""The command `fit`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from scaling.cli.options import BOOTSTRAP, CI, INTERVALS
from scaling.cli.output import TableOutput, argument, choice, echo_err, option
from scaling.errors import ScalingError

DATA, MODEL = "Data", "Law and estimator"


def complete_law(incomplete: str) -> list[str]:
    """For the shell: the laws whose name begins so."""
    from scaling.fit.fit_options import LAW_NAMES

    return [name for name in LAW_NAMES if name.startswith(incomplete)]


@dataclass(frozen=True)
class FitArguments:
    """The fields of `FitOptions` but its law, as the command line takes them."""

    formula: str | None = option(
        'A law of your own: "L = E + A/N^alpha + B/D^beta", or a law.toml with one.',
        MODEL,
        "TEXT|law.toml",
    )
    start: str | None = option("Extra starting values for --formula.", MODEL, "NAME=VALUE,...")
    approach: str = choice(
        "parametric isoflop envelope",
        "The approach whose exponents head the result; all three are computed.",
        MODEL,
        default="parametric",
    )
    minimum: str = choice(
        "parabola akima",
        "Interpolation of each isoFLOP curve.",
        MODEL,
        "interpolation",
        default="parabola",
    )
    objective: str | None = choice(
        "huber-log lad-log mse-log huber mse",
        "What is minimised, of log losses or of losses; default huber-log (mse of accuracies).",
        MODEL,
        "objective",
    )
    delta: float | None = option(
        "Huber's threshold, in units of the residual; default 0.001, for few runs twice their "
        "noise.",
        MODEL,
    )
    fix: str | None = option('Fixed parameters: "alpha=0.35,ln A=6.26".', MODEL, "NAME=VALUE,...")
    columns: str | None = option(
        "Column names: N=params, D=tokens, C=flops, L=loss.", DATA, "N=...,D=..."
    )
    params: str = choice(
        "with_head total nonembedding active",
        "Convention of N in a results folder.",
        DATA,
        "convention",
        default="with_head",
    )
    flops: str = choice(
        "exact 6nd kaplan chinchilla", "Convention of C in a results folder.", DATA, default="exact"
    )
    where: str | None = option(
        "Keep the rows that satisfy this: 'loss < 4 and n_layers == 2'.", DATA, "EXPR"
    )
    checkpoints: str = choice(
        "auto last all",
        "Rows of one run in a table: auto uses the last where it is sure which they are, last goes "
        "by the order of rows, all uses every row.",
        DATA,
        default="auto",
    )
    drop_highest: int = option("Leave out the K highest losses.", DATA, "K", min=0, default=0)
    eval_set: str | None = option(
        "Fit the losses on an evaluation set of the sweep (`evals.sets`).", DATA, "NAME"
    )
    holdout: str | None = option(
        "Number of largest budgets (or names of curves) held out; default 1.", INTERVALS, "K|none"
    )
    bootstrap: int = BOOTSTRAP
    resample: str = choice(
        "auto pairs clusters residual",
        "Bootstrap method; auto is residual below 100 runs.",
        INTERVALS,
        default="auto",
    )
    ci: float = CI
    seed: int = option("Seed of the resamples.", INTERVALS, min=0, default=0)
    cluster: str | None = option("Resample whole groups of this column.", INTERVALS, "COLUMN")


def fit(
    source: list[Path] = argument(
        "SOURCE...", "A results folder, or .parquet, .csv, .json, .jsonl files."
    ),
    *,
    arguments: FitArguments,
    law: list[str] | None = option(
        "auto (several laws combined), chinchilla, skaling, kaplan, ... (docs/laws.md lists "
        "all); given twice, or with --formula, laws are compared.",
        MODEL,
        "LAW",
        autocompletion=complete_law,
        show_default="auto",
    ),
    out: Path | None = option(
        "File to write, by default DIR/fits/LAW.json of a results folder; of several laws their "
        "table, .tex or .csv.",
        "Output",
        "FIT.json",
    ),
    output: TableOutput,
) -> None:
    """Fit a scaling law to a sweep or to your own table: all three approaches, with intervals.

    Example: scaling fit runs.csv --columns 'N=params,D=tokens,L=loss' --out fit.json
    """
    from scaling.files import write_text
    from scaling.fit.document import in_one_table
    from scaling.fit.pipeline import FitOptions
    from scaling.fit.pipeline import fit as run_fit
    from scaling.report.parts import candidate_laws
    from scaling.report.terminal import fit_parts

    given = vars(arguments)
    by_name = {**given, "formula": None, "start": None} if law else given
    options = [FitOptions(law=each, **by_name) for each in dict.fromkeys(law or ["auto"])]
    if law and arguments.formula:
        options.append(FitOptions(**given))
    if len(options) > 1:
        if out is not None and out.suffix not in (".tex", ".csv"):
            what = "one file holds one fit, and several laws are asked for"
            remedy = "name one law, or write their table: --out laws.tex or laws.csv"
            raise ScalingError(what, where="--out", remedy=remedy)
        fits = (run_fit(source, each) for each in options)
        judged = [candidate_laws.JudgedLaw.of(each) for each in fits]
        table, rows = candidate_laws.compared(judged), [each.to_dict() for each in judged]
        if out is not None and table is not None:
            is_csv = out.suffix == ".csv"
            write_text(out, table.to_csv() if is_csv else table.to_latex())
            echo_err(f"written: {out}")
        return output.emit({"laws": rows}, lambda: [table], rows=rows)
    result = run_fit(source, options[0])
    document = result.to_dict()
    if out is None and len(source) == 1 and (source[0] / "runs").is_dir():
        name = "formula" if "=" in document["law"] else document["law"]
        name = name if arguments.approach == "parametric" else arguments.approach
        name = "-".join(filter(None, (name, arguments.eval_set)))
        out = source[0] / "fits" / f"{name}.json"
    if out is not None:
        result.save(out)
        echo_err(f"written: {out}")
    [estimates] = in_one_table(result)
    parameters = [{"parameter": name} | each.to_dict() for name, each in estimates.items()]
    return output.emit(
        document,
        lambda: fit_parts(
            result, str(out) if out else None, shlex.join(["scaling", *sys.argv[1:]])
        ),
        rows=document.get("groups") or parameters,  # of coverage: one row per model
    )
