"""The verbs that keep a results folder: merge its run files, look whether every file is what was written, hand on what it holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.output import Csv, Json, console, echo_err, print_csv, print_json
from scaling.errors import RUNS_FAILED, ScalingError

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's folder.")]
SHOWN = 40
MODEL_EPILOG = """Example: scaling run sweeps/demo.toml --out results/kept --keep-weights

Example: scaling results export-model results/kept RUN_ID --out exported

Only runs that were trained with --keep-weights hold a model; `scaling status results/kept` lists their ids."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    made = typer.Typer(
        no_args_is_help=True,
        help="Keep a results folder: merge its run files, check every file, export runs and models.",
    )
    made.command("compact", epilog="Example: scaling results compact results/demo")(compact)
    made.command("check", epilog="Example: scaling results check results/demo")(check)
    made.command(
        "export",
        epilog="Example: scaling results export results/reference --to tensorboard --out boards",
    )(export)
    made.command("export-model", epilog=MODEL_EPILOG)(export_model)
    app.add_typer(made, name="results")


def compact(folder: Folder, as_json: Json = False) -> None:
    """Merge the files of single runs into few; safe beside `scaling run`, and after a kill simply called again."""
    from dataclasses import asdict

    from scaling.execute.lease import Lease
    from scaling.execute.session import compact as merge
    from scaling.execute.sweep_folder import SweepFolder

    SweepFolder(folder).read_plan()
    with Lease(folder) as lease:
        done = merge(folder, lease)
    if as_json:
        return print_json(asdict(done))
    for text in done.corrupt:
        typer.echo(f"warning: left where it is: {text}", err=True)
    return typer.echo(
        f"{folder}: {done.runs} runs in {done.written} new files, {done.removed} files removed"
    )


def check(folder: Folder, as_json: Json = False, as_csv: Csv = False) -> None:
    """Look at every file: is it what was written? Ends with 3 where one is not; `scaling run` then redoes what it held."""
    from rich.markup import escape

    from scaling.cli.tables import table
    from scaling.execute.verify import inspect
    from scaling.formatting import sanitize

    found = inspect(folder)
    counts = Counter(item.state for item in found)
    corrupt = [item for item in found if item.state == "corrupt"]
    document = {
        "counts": dict(counts),
        "corrupt": [{"file": item.path, "reason": item.reason} for item in corrupt],
    }
    if as_json:
        print_json(document)
    elif as_csv:
        print_csv(
            [{"file": item.path, "state": item.state, "reason": item.reason} for item in found],
            ("file", "state", "reason"),
        )
    else:
        text = (
            ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no files"
        )
        shown = [item for item in found if item.state != "whole"]
        made = table(f"{folder}: {text}", "file", "state", "reason", numbers=False)
        for item in shown[:SHOWN]:
            made.add_row(*map(escape, (sanitize(item.path), item.state, sanitize(item.reason))))
        console().print(made) if shown else typer.echo(f"{folder}: {text}")
    if corrupt:
        raise typer.Exit(RUNS_FAILED)


def export(
    folder: Folder,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="TRACKER",
            help="wandb (offline, or as WANDB_MODE says), tensorboard or mlflow.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", metavar="PATH", help="Folder for the tracker's files; for MLflow also a URI."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Log every run of a folder to a tracker, from its rows: all numbers, its configuration, its sweep; again, and it adds what is new."""
    from scaling.trackers import check
    from scaling.trackers.export import export as carry_out

    check([to], "--to")
    _check_folder(folder)
    if not out.strip():
        raise ScalingError(
            "names no place",
            where="--out",
            remedy="name a folder for the tracker's files: --out boards",
        )
    done = carry_out(folder, to, out, echo_err)
    if as_json:
        return print_json(done)
    return typer.echo(
        f"{out}: {done['numbers_written']} numbers of {done['runs_written']} runs to {to} ({done['runs']} runs in {folder})"
    )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ScalingError(
            "no such folder", where=str(folder), remedy="name a folder made by `scaling run`"
        )


def export_model(
    folder: Folder,
    run_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID", help="A finished run that was trained with --keep-weights."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to write.")],
    as_json: Json = False,
) -> None:
    """Write a trained model as model.safetensors and config.json; `scaling.export.load` reads it back."""
    from scaling.export import export_model as carry_out

    _check_folder(folder)
    document = carry_out(folder, run_id, out)
    if as_json:
        return print_json(document)
    loss = document["loss"]
    told = f", loss {loss['value']:.4f} nats" if loss else ""
    return typer.echo(
        f"{out}: {len(document['tensors'])} arrays, {document['n_params']['total']} parameters{told}"
    )
