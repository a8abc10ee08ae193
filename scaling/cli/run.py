"""The command `run`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.execution_options import (
    AcceptChanges,
    Mesh,
    MicroBatch,
    Pack,
    Remat,
    Workers,
    execution,
    parse_pack,
)
from scaling.cli.executor_options import (
    DryRun,
    HostsOfARun,
    MaxRuns,
    RayAddress,
    Request,
    Simulate,
    SlurmSettings,
    WaitForNodes,
)
from scaling.cli.output import Json, choice, echo_err, print_json
from scaling.cli.sweep_options import Out, Overrides, SweepPath, folder_of
from scaling.cli.tune import print_stopped_tuning
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.execute.run_sweep import SweepOutcome

EXECUTORS = ("local", "ray", "slurm")
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        rich_help_panel="Tracking",
        help="Log runs as they train to wandb, tensorboard or mlflow; can be repeated.",
    ),
]
KeepWeights = Annotated[
    bool,
    typer.Option(
        "--keep-weights",
        rich_help_panel="Output",
        help="Keep the parameters of finished runs, for `scaling results export-model`.",
    ),
]
Flops = Annotated[
    str | None,
    typer.Option(
        "--max-flops",
        metavar="FLOPS",
        rich_help_panel="Budget",
        help="Stop cleanly after this many FLOPs of training.",
    ),
]


def run(
    sweep: SweepPath,
    overrides: Overrides = None,
    out: Out = None,
    executor: Annotated[
        str, choice("--executor", EXECUTORS, "Where to train.", "Cluster")
    ] = "local",
    workers: Workers = None,
    max_runs: MaxRuns = None,
    max_flops: Flops = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            min=0, max=1e9, rich_help_panel="Budget", help="Stop cleanly after this many seconds."
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            max=1000,
            help="Retries per run after a worker or device failure.",
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
    from scaling.cli.progress import Display
    from scaling.config.overrides import as_shell_words, load_with_overrides
    from scaling.execute.options import Executor, RunOptions
    from scaling.execute.run_sweep import run_sweep
    from scaling.execute.slurm import parse_settings
    from scaling.execute.status import read_status
    from scaling.formatting import count_option

    if slurm and executor != Executor.SLURM:
        raise ScalingError("--slurm is for Slurm", remedy="add --executor slurm, or leave it out")
    flops = (
        None if max_flops is None else count_option(max_flops, "--max-flops", "write it as 1e15")
    )
    shell_words = as_shell_words(sweep, overrides or ())
    options = RunOptions(
        executor=Executor(executor),
        execution=execution(mesh, micro_batch, remat),
        workers=workers,
        pack=parse_pack(pack),
        hosts=hosts,
        max_runs=max_runs,
        max_flops=flops,
        max_seconds=max_seconds,
        retries=retries,
        fail_fast=fail_fast,
        simulate=simulate,
        allow_changes=accept_changes,
        keep_weights=keep_weights,
        trackers=tuple(track or ()),
        resources=resources,
        ray_address=ray_address,
        wait_for_nodes=wait_for_nodes,
        slurm=parse_settings(slurm) if slurm else {},
        slurm_dry_run=dry_run,
        source=shell_words,
        on_message=echo_err,
        monitor=partial(Display, to_stderr=as_json),
    )
    loaded = load_with_overrides(sweep, overrides or ())
    outcome = run_sweep(loaded, folder_of(loaded, out, sweep), options)
    if outcome.array is not None:
        print_array(outcome, as_json)
    elif as_json:
        print_json(read_status(outcome.folder).to_dict())
    elif outcome.in_tuning:
        print_stopped_tuning(outcome)
    else:
        again = f"scaling run {shell_words}" + (
            f" {shlex.join(['--out', str(out)])}" if out else ""
        )
        _summary(outcome, again)
    raise typer.Exit(outcome.exit_code)


def print_array(outcome: SweepOutcome, as_json: bool) -> None:
    """The Slurm jobs that were submitted, or the script of those that were not."""
    array, folder = outcome.array, outcome.folder.path
    assert array is not None
    if as_json and array.job_id is None:
        print_json({"script": array.script, "job_id": None})
    elif as_json:
        script = {"elements": array.elements, "script": str(array.path)}
        print_json({"job_id": array.job_id, **script})
    elif array.job_id is None:
        typer.echo(array.script)
    else:
        typer.echo(
            f"{folder}: job {array.job_id} with {array.elements} elements; watch it with: "
            f"scaling status {folder} --watch"
        )


def _summary(outcome: SweepOutcome, again: str) -> None:
    from scaling.execute.status import read_status

    folder, status = outcome.folder.path, read_status(outcome.folder)
    typer.echo(f"{folder}: {status.summary or '0 done'}")
    _listed([f"{run.run_id}  {run.reason}" for run in status.runs if run.reason])
    if status.no_longer_planned:
        n_runs = len(status.no_longer_planned)
        typer.echo(f"  kept, though the sweep file no longer asks for them: {n_runs} runs")
    if outcome.stop and outcome.stop.reason != "signal":
        typer.echo(f"  stopped, with all states saved: {outcome.stop.message}")
    onward = "scaling fit" if outcome.sweep.supports_law_fit else "scaling report"
    typer.echo(
        f"next: {onward} {folder}"
        if not status.counts.missing
        else f"next: {again} trains the remaining runs"
    )


def _listed(lines: Sequence[str], most: int = 20) -> None:
    for line in lines[:most]:
        typer.echo(f"  {line}")
    if len(lines) > most:
        typer.echo(f"  ... and {len(lines) - most} more (scaling status lists all)")
