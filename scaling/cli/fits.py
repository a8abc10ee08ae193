"""The verbs of the right half: fit, reconcile, next, report; predict has a file of its own. None of them starts jax."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli import listing, predicting
from scaling.cli.output import Csv, Json, console, note, note_warnings, print_csv, print_json

Source = Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="A results folder, or .parquet, .csv, .json, .jsonl files.")]
REPORT_EPILOG = """Example: scaling report results/demo

Example: scaling report results/base results/longer-context --out comparison --budgets 1e13,1e14"""


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command("fit", epilog="Example: scaling fit runs.csv --columns 'N=params,D=tokens,L=loss' --out fit.json")(fit)
    app.command("predict", epilog=predicting.EPILOG)(predicting.predict)
    app.command("reconcile", epilog="Example: scaling reconcile results/demo")(reconcile)
    app.command("next", epilog="Example: scaling next results/demo --budget 1e13 --target 1e15")(next_runs)
    app.command("report", epilog=REPORT_EPILOG)(report)


def fit(
    source: Source,
    law: Annotated[
        str, typer.Option(help="chinchilla, kaplan, power, bnsl, two-stage, coverage, lr-annealing, ... (docs/laws.md).")
    ] = "chinchilla",
    approach: Annotated[str, typer.Option(help="parametric, isoflop or envelope: the one that heads the result.")] = "parametric",
    valley: Annotated[str, typer.Option(help="How an isoFLOP valley's bottom is found: parabola, cubic or akima.")] = "parabola",
    objective: Annotated[str, typer.Option(help="huber-log, lad-log, mse-log, huber or mse.")] = "huber-log",
    delta: Annotated[float, typer.Option(help="Huber's threshold, in the units of the residual.")] = 1e-3,
    columns: Annotated[
        str | None, typer.Option(metavar="N=...,D=...", help="Names of the columns: N=params,D=tokens,C=flops,L=loss.")
    ] = None,
    params: Annotated[str, typer.Option(help="How N is counted from results: with_head, total or nonembedding.")] = "with_head",
    flops: Annotated[str, typer.Option(help="How C is counted from results: exact, 6nd, kaplan or chinchilla.")] = "exact",
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Keep rows for which this holds, e.g. 'loss < 4 and n_layers == 2'.")
    ] = None,
    drop_highest: Annotated[int, typer.Option(metavar="K", min=0, help="Leave out the K highest losses.")] = 0,
    holdout: Annotated[
        str | None, typer.Option(metavar="K|none", help="Largest budgets (or curves, by name) to leave out; default 1.")
    ] = None,
    fix: Annotated[str | None, typer.Option(metavar="NAME=VALUE,...", help='Hold parameters: "alpha=0.35,ln A=6.26".')] = None,
    rollout: Annotated[bool, typer.Option("--rollout", help="Predict each size from the smaller ones, too.")] = False,
    one_sided: Annotated[
        float, typer.Option(metavar="W", help="Weight of runs above the law, 0 to 1: under-tuned runs can only be worse.")
    ] = 1.0,
    bootstrap: Annotated[int, typer.Option(min=0, max=100_000, help="Resamples, each refitted to convergence; 0 for none.")] = 1000,
    resample: Annotated[str, typer.Option(help="auto, pairs, clusters or wild; auto is wild below 100 runs.")] = "auto",
    ci: Annotated[float, typer.Option(help="Coverage of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    cluster: Annotated[str | None, typer.Option(metavar="COLUMN", help="Resample whole groups of this column.")] = None,
    readout: Annotated[
        str | None, typer.Option(metavar="constant|averaged", help="Fit what trunks say at each budget without cooling down.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FIT.json", help="Where to write; for a results folder fits/<law>.json.")] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Fit scaling laws to a sweep or to anybody's table: all three roads side by side, with intervals and warnings."""
    from scaling.fit.document import dump
    from scaling.fit.run import FitOptions
    from scaling.fit.run import fit as run_fit

    options = FitOptions(
        law=law, approach=approach, valley=valley, objective=objective, delta=delta, columns=columns, params=params, flops=flops, where=where,
        drop_highest=drop_highest, holdout=holdout, fix=fix, rollout=rollout, one_sided=one_sided, resample=resample, bootstrap=bootstrap, ci=ci, seed=seed, cluster=cluster, readout=readout,
    )  # fmt: skip
    document = run_fit(source, options)
    name = law if approach == "parametric" else approach
    target = out or _default_fit_path(source, f"{name}-{readout}" if readout else name)
    if target:
        dump(document, target)
        note(f"written: {target}")
    if as_json:
        return print_json(document)
    if as_csv:
        note_warnings(document)
        return print_csv(listing.fit_rows(document), listing.FITTED)
    from scaling.report.text import fit_text

    return console().print(fit_text(document))


def _default_fit_path(source: list[Path], name: str) -> Path | None:
    """A results folder keeps its fits; a stranger's table is left alone."""
    if len(source) == 1 and (source[0] / "runs").is_dir():
        return source[0] / "fits" / f"{name}.json"
    return None


def reconcile(
    source: Annotated[str, typer.Argument(metavar="SOURCE|FIT.json|published:NAME", help="Runs, a fit, or a published law.")],
    columns: Annotated[str | None, typer.Option(metavar="N=...,D=...", help="Names of the columns of a foreign table.")] = None,
    omega: Annotated[
        float, typer.Option(metavar="W", help="N_total = N + W N^(1/3), for tables that hold total parameters only.")
    ] = 47491.0,
    bootstrap: Annotated[int, typer.Option(min=0, max=100_000, help="Resamples, each refitted to convergence; 0 for none.")] = 1000,
    ci: Annotated[float, typer.Option(help="Coverage of the intervals.")] = 0.95,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Kaplan against Chinchilla: the exponents of the same runs under both ways of counting, and why they differ."""
    from scaling.fit.options import FitOptions
    from scaling.fit.reconcile import reconcile as run_reconcile

    document = run_reconcile(source, FitOptions(columns=columns, bootstrap=bootstrap, ci=ci), omega)
    if as_json:
        return print_json(document)
    if as_csv:
        note_warnings(document)
        return print_csv(listing.reconcile_rows(document), listing.RECONCILED)
    from scaling.report.text import reconcile_text

    return console().print(reconcile_text(document))


def next_runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A results folder with a fit, or a fit.")],
    budget: Annotated[str, typer.Option(metavar="FLOPS", help="What the next runs may cost together.")],
    target: Annotated[str, typer.Option(metavar="FLOPS", help="The budget whose optimum is to be predicted.")],
    largest: Annotated[str | None, typer.Option(metavar="FLOPS", help="What one run may cost; default no limit but --budget.")] = None,
    rho: Annotated[float, typer.Option(help="Share of the noise that branches of one trunk have in common.")] = 0.5,
    out: Annotated[Path | None, typer.Option(metavar="SWEEP.toml", help="Write the proposal as a sweep that `scaling run` takes.")] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Propose the runs that most reduce the uncertainty of the compute-optimal N and its loss at a target budget."""
    from scaling.fit.design import next_runs as propose
    from scaling.fit.design import write_sweep

    document = propose(folder, budget, target, largest, rho)
    if out:
        write_sweep(document, folder, out)
        note(f"written: {out}")
    if as_json:
        return print_json(document)
    if as_csv:
        note_warnings(document)
        return print_csv(document["runs"], listing.PROPOSED)
    from scaling.report.text import next_text

    return console().print(next_text(document))


def report(
    source: Annotated[
        list[Path],
        typer.Argument(metavar="DIR|FIT.json...", help="A results folder, fits of one sweep, or several sweeps to compare with the first."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; default DIR/report, and ./comparison for several sweeps.")
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(metavar="C,...", help="With several sweeps: FLOPs of the first at which the compute of the others is asked."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write index.html (self-contained), report.md, figures and tables. Several sweeps are compared: do their laws differ, and how much
    compute does one need for the loss of another?
    """
    from scaling import durable
    from scaling.errors import ScalingError
    from scaling.quantity import count_option
    from scaling.report.material import several
    from scaling.report.page import COMPARISON, write_report

    remedy = 'write FLOPs with commas between them: --budgets 1e13,"10T"'
    asked = [count_option(part, "--budgets", remedy) for part in budgets.split(",")] if budgets is not None else []
    if any(each < 1 for each in asked):
        raise ScalingError("a budget is at least one FLOP", where="--budgets", remedy=remedy)
    page = write_report(source, out, budgets=asked)
    if as_json:
        found = durable.read_json(page.parent / f"{COMPARISON}.json") if several(source) else {}
        return print_json({"report": str(page), "folder": str(page.parent), **({"comparison": found} if found else {})})
    return typer.echo(f"report: {page}")
