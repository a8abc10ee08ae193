"""The verb `run`: train what is missing of a sweep, here, on a Slurm cluster or on a Ray cluster."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.execution_options import (
    AcceptChanges,
    Mesh,
    MicroBatch,
    Pack,
    Remat,
    Workers,
    check_pack,
    execution,
)
from scaling.cli.executor_options import (
    DryRun,
    HostsOfARun,
    RayAddress,
    Request,
    SlurmSettings,
    WaitForNodes,
    submit,
)
from scaling.cli.output import Json, print_json
from scaling.cli.sweep_options import Out, Overrides, SweepPath, folder_of, plan_of
from scaling.cli.training_session import MaxRuns, Simulate, Training, TrainOptions, checked_law
from scaling.cli.tune import already_tuned, tuned_first
from scaling.errors import DISK, RUNS_FAILED, STOPPED, ScalingError, unknown_choice

if TYPE_CHECKING:
    from scaling.config import Sweep
    from scaling.execute.coordinator import SweepOutcome

Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="Log runs as they train to wandb, tensorboard or mlflow; may be given several times.",
    ),
]
KeepWeights = Annotated[
    bool,
    typer.Option(
        "--keep-weights",
        help="Keep the parameters of finished runs (4 bytes each), for `scaling results export-model`.",
    ),
]
ENGINES = ("local", "ray", "slurm")
Flops = Annotated[
    str | None,
    typer.Option(
        "--max-flops", metavar="FLOPS", help="Stop cleanly after this many FLOPs of training."
    ),
]


def run(
    sweep: SweepPath,
    overrides: Overrides = None,
    out: Out = None,
    executor: Annotated[str, typer.Option(help="Where to train: local, ray or slurm.")] = "local",
    workers: Workers = None,
    max_runs: MaxRuns = None,
    max_flops: Flops = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0, max=1e9, help="Stop cleanly after this many seconds.")
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            max=1000,
            help="Tries again, from its checkpoint, of a run whose worker or device died.",
        ),
    ] = 2,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first run that fails or diverges.")
    ] = False,
    simulate: Simulate = None,
    mesh: Mesh = None,
    micro_batch: MicroBatch = None,
    remat: Remat = "none",
    pack: Pack = "auto",
    hosts: HostsOfARun = 1,
    resources: Request = None,
    ray_address: RayAddress = None,
    wait_for_nodes: WaitForNodes = False,
    slurm: SlurmSettings = "",
    dry_run: DryRun = False,
    accept_changes: AcceptChanges = False,
    track: Track = None,
    keep_weights: KeepWeights = False,
    as_json: Json = False,
) -> None:
    """Train the missing runs of a sweep, here, on Slurm or on Ray.

    Run it again to continue after an interruption; several at once share the work.

    Example: scaling run sweeps/demo.toml --workers 2

    Example: scaling run sweeps/norms.toml optim.lr=3e-3 'model.norm=[rmsnorm,layernorm]'
    """
    from scaling.config.overrides import as_shell_words, load_with_overrides
    from scaling.execute.coordinator import Policy
    from scaling.formatting import count_option

    if executor not in ENGINES:
        raise unknown_choice("executor", executor, ENGINES, where="--executor")
    _check_options(executor, simulate, slurm, hosts, pack, dry_run)
    _check_tracking_options(track or (), keep_weights, simulate, hosts)
    how = execution(mesh, micro_batch, remat)
    most = None if max_flops is None else count_option(max_flops, "--max-flops", "write it as 1e15")
    policy = Policy(retries, fail_fast, most, max_seconds)
    loaded, law = load_with_overrides(sweep, overrides or ()), checked_law(simulate)
    asked = as_shell_words(sweep, overrides or ())
    folder = folder_of(loaded, out, sweep)
    if executor == "slurm":
        submit(
            folder,
            plan_of(already_tuned(loaded, folder), asked),
            workers,
            slurm,
            dry_run,
            as_json,
            _forwarded_options(locals()),
        )
        return
    options = TrainOptions(
        executor,
        simulate,
        how,
        policy,
        pack,
        workers,
        max_runs,
        hosts,
        resources,
        ray_address,
        wait_for_nodes,
        accept_changes,
        as_json,
        tuple(track or ()),
    )
    training = Training(options)
    loaded = tuned_first(loaded, asked, folder, training)
    training.options = replace(
        options, keep_weights=keep_weights
    )  # of the runs of a ladder nobody asks for the weights
    ended = training.train(folder, plan_of(loaded, asked, law))
    again = f"scaling run {asked}" + (f" {shlex.join(['--out', str(out)])}" if out else "")
    _finish(folder, loaded, again, ended, as_json)


def _check_options(
    executor: str, simulate: str | None, slurm: str, hosts: int, pack: str, dry_run: bool
) -> None:
    """Raise ScalingError for options that another one makes meaningless, before anything is planned or written."""
    check_pack(pack)
    if dry_run and executor != "slurm":
        raise ScalingError(
            "--dry-run shows the script of --executor slurm",
            remedy="`scaling plan SWEEP` shows what would be trained",
        )
    if simulate is not None and executor != "local":
        raise ScalingError(
            "a simulated sweep needs no cluster", where="--simulate", remedy="leave out --executor"
        )
    if slurm and executor != "slurm":
        raise ScalingError("--slurm is for Slurm", remedy="add --executor slurm, or leave it out")
    if hosts > 1 and (
        simulate is not None or (executor == "local" and "SLURM_JOB_ID" not in os.environ)
    ):
        raise ScalingError(
            f"--hosts {hosts} is for Ray, or for the inside of a Slurm job",
            remedy="add --executor ray, or use --slurm nodes=2",
        )


def _check_tracking_options(
    track: Sequence[str], keep_weights: bool, simulate: str | None, hosts: int
) -> None:
    """Raise ScalingError for a tracker that is not here, or weights that nobody could keep, before anything is planned or written."""
    from scaling.trackers import check

    check(track, "--track")
    if keep_weights and simulate is not None:
        raise ScalingError(
            "a simulated run has no weights",
            where="--keep-weights",
            remedy="leave out one of --keep-weights and --simulate",
        )
    if keep_weights and hosts > 1:
        raise ScalingError(
            f"weights that are spread over {hosts} hosts are not kept",
            where="--keep-weights",
            remedy="train on the devices of one host",
        )


def _forwarded_options(given: dict[str, Any]) -> list[str]:
    """The options that each element of a Slurm array takes over."""
    found: list[str] = []
    for name, default in (
        ("mesh", None),
        ("micro_batch", None),
        ("remat", "none"),
        ("pack", "auto"),
        ("retries", 2),
        ("max_flops", None),
        ("max_seconds", None),
        ("max_runs", None),
    ):
        if given[name] != default:
            found += [f"--{name.replace('_', '-')}", str(given[name])]
    found += [part for kind in given["track"] or () for part in ("--track", kind)]
    return found + [
        f"--{name.replace('_', '-')}"
        for name in ("fail_fast", "accept_changes", "keep_weights")
        if given[name]
    ]


def _finish(
    folder: Any, sweep: Sweep, again: str, ended: SweepOutcome | None, as_json: bool
) -> None:
    """Say how the sweep stands, and end with the exit code of the contract."""
    from scaling.execute.status import status as examine

    document = examine(folder)
    if as_json:
        print_json(document)
    else:
        _summary(document, folder.path, sweep, again, ended)
    _exit_as(document, ended)


def _summary(
    document: dict[str, Any], folder: Path, sweep: Sweep, again: str, ended: SweepOutcome | None
) -> None:
    counts = document["counts"]
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "done")
    typer.echo(f"{folder}: {text}")
    _listed(
        [f"{entry['run_id']}  {entry['reason']}" for entry in document["runs"] if entry["reason"]]
    )
    if document["no_longer_planned"]:
        typer.echo(
            f"  kept, though the sweep file no longer asks for them: {len(document['no_longer_planned'])} runs"
        )
    if ended and ended.stopped:
        typer.echo(f"  stopped, with all states saved: {ended.stopped}")
    onward = "scaling fit" if sweep.supports_law_fit else "scaling report"
    typer.echo(
        f"next: {onward} {folder}" if not counts["missing"] else f"next: {again} takes up the rest"
    )


def _listed(lines: Sequence[str], most: int = 20) -> None:
    for line in lines[:most]:
        typer.echo(f"  {line}")
    if len(lines) > most:
        typer.echo(f"  ... and {len(lines) - most} more (scaling status lists all)")


def _exit_as(document: dict[str, Any], ended: SweepOutcome | None) -> None:
    """Exit codes of the contract: a signal, a full disk, failed runs, a budget."""
    from scaling.execute.signals import exit_code

    if ended and ended.signal:
        raise typer.Exit(exit_code(ended.signal))
    if ended and ended.exit_code == DISK:
        raise typer.Exit(DISK)
    if document["counts"]["failed"]:
        raise typer.Exit(RUNS_FAILED)
    if ended and ended.stopped:
        raise typer.Exit(STOPPED)
