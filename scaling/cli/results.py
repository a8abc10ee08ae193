"""The commands `results compact`, `check`, `export` and `export-model`."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import typer

from scaling.cli.app import add_command
from scaling.cli.output import Output, argument, choice, echo_err, option
from scaling.errors import RUNS_FAILED, ScalingError
from scaling.trackers import TRACKERS

FOLDER = argument("DIR", "A sweep's folder.")
SHOWN = 40
group = typer.Typer(
    name="results",
    no_args_is_help=True,
    help="Maintain a results folder: compact, check, export.",
)


def compact(folder: Path = FOLDER, *, output: Output) -> None:
    """Merge the run files of a sweep into few; safe during `scaling run` and after a kill.

    Example: scaling results compact results/demo
    """
    from scaling.execute.lease import Lease
    from scaling.execute.sweep_folder import SweepFolder
    from scaling.store import compaction

    SweepFolder(folder).read_plan()
    with Lease(folder) as lease:
        done = compaction.compact(folder, lease.locked)
    for name in () if output.as_json else done.corrupt:
        echo_err(f"warning: corrupt, left where it is: {name}")
    text = f"{folder}: {done.runs} runs in {done.written} new files, {done.removed} files removed"
    next_command = f"scaling results check {shlex.quote(str(folder))}"
    output.emit(asdict(done), lambda: text, next_command)


def check(
    folder: Path = FOLDER,
    *,
    output: Output,
) -> None:
    """Verify the checksum of every file. Exits 3 if any is corrupt; `scaling run` then retrains
    those runs.

    Example: scaling results check results/demo
    """
    from scaling.execute.verify import inspect
    from scaling.render.table import record_table

    checks, quoted = inspect(folder), shlex.quote(str(folder))
    sweep_file = f"{quoted}/sweep.toml"
    if not checks:
        remedy = "name a folder made by `scaling run`"
        raise ScalingError("holds no file of a sweep", where=folder, remedy=remedy)
    counts = Counter(item.state for item in checks)
    corrupt = [item for item in checks if item.state == "corrupt"]
    if "sweep.toml" in {item.path for item in corrupt}:
        sweep_file = f"SWEEP.toml --out {quoted}"
    listed = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    suspect = [vars(item) for item in checks if item.state != "whole"]
    title = f"{folder}: {listed}"
    table = record_table("files", title, suspect, max_rows=SHOWN)
    output.emit(
        {
            "counts": dict(counts),
            "corrupt": [{"file": item.path, "reason": item.reason} for item in corrupt],
        },
        lambda: [table] if table else title,
        f"scaling run {sweep_file}" if corrupt else f"scaling status {quoted}",
    )
    if corrupt:
        raise typer.Exit(RUNS_FAILED)


def export(
    folder: Path = FOLDER,
    to: str = choice(" ".join(TRACKERS), "The tracker.", kind="tracker", default=...),
    out: str = option(
        "Folder of the tracker's files; for MLflow also a URI.", metavar="PATH", default=...
    ),
    *,
    output: Output,
) -> None:
    """Log every run of a folder to a tracker: all metrics, its configuration, its sweep.

    Run it again and it adds what is new. W&B is offline, or as WANDB_MODE says.

    Example: scaling results export results/reference --to tensorboard --out boards
    """
    from scaling.trackers import check
    from scaling.trackers.export import export as run_export

    check([to], "--to")
    _check_folder(folder)
    if not out.strip():
        raise ScalingError(
            "is empty", where="--out", remedy="name a folder for the tracker's files: --out boards"
        )
    document = run_export(folder, to, out, echo_err)
    output.emit(
        document,
        lambda: (
            f"{out}: {document['numbers_written']} numbers of {document['runs_written']} runs "
            f"to {to} ({document['runs']} runs in {folder})"
        ),
    )


def export_model(
    folder: Path = FOLDER,
    run_id: str = argument("RUN_ID", "A finished run trained with --keep-weights."),
    out: Path = option("The folder to write.", metavar="FOLDER", default=...),
    layout: Literal["scaling", "hf"] = option(
        "This program's own, or that of transformers.", names="--format", default="scaling"
    ),
    *,
    output: Output,
) -> None:
    """Write a trained model as model.safetensors and config.json; `scaling.export.load` reads it.

    With --format hf, `transformers` and what builds on it read it: RMSNorm, rotations, SwiGLU and
    no biases (a Llama, or a Qwen3 with qk_norm).

    Example: scaling run sweeps/demo.toml --out results/kept --keep-weights

    Example: scaling results export-model results/kept RUN_ID --out exported

    Only runs trained with --keep-weights have a model; `scaling status results/kept` lists run ids.
    """
    from scaling.export import export_model as run_export

    _check_folder(folder)
    document = run_export(folder, run_id, out, layout)

    def text() -> str:
        loss = f", loss {document['loss']['value']:.4f} nats" if document["loss"] else ""
        n_params, n_arrays = document["n_params"]["total"], len(document["tensors"])
        return f"{out}: {n_arrays} arrays, {n_params} parameters (total){loss}"

    output.emit(document, text)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ScalingError(
            "no such folder", where=folder, remedy="name a folder made by `scaling run`"
        )


for function in (compact, check, export, export_model):
    add_command(group, function)
