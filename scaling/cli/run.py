"""The command `run`."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import BUDGET, CLUSTER, Out, Overrides, SweepPath, TrainingOptions
from scaling.cli.output import Json, choice, print_json
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.execute.run_sweep import SweepOutcome

EXECUTORS = ("local", "ray", "slurm")
SHOWN = 20  # runs with a reason that the summary lists


def run(
    sweep: SweepPath,
    overrides: Overrides = None,
    *,
    out: Out = None,
    executor: Annotated[str, choice("--executor", EXECUTORS, "Where to train.", CLUSTER)] = "local",
    training: TrainingOptions,
    max_flops: Annotated[
        str | None,
        typer.Option(
            "--max-flops",
            metavar="FLOPS",
            rich_help_panel=BUDGET,
            help="Stop cleanly after this many FLOPs of training.",
        ),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            min=0, max=1e9, rich_help_panel=BUDGET, help="Stop cleanly after this many seconds."
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(min=0, max=1000, help="Retries per run after a worker or device failure."),
    ] = 2,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first run that fails or diverges.")
    ] = False,
    hosts: Annotated[
        int,
        typer.Option(
            "--hosts",
            rich_help_panel=CLUSTER,
            min=1,
            max=4096,
            help="Hosts that train one run together (with --mesh), under Ray or inside a Slurm "
            "job.",
        ),
    ] = 1,
    slurm: Annotated[
        str,
        typer.Option(
            "--slurm",
            rich_help_panel=CLUSTER,
            metavar="KEY=VALUE,...",
            help="Options of sbatch, such as partition=gpu,gpus=1.",
        ),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            rich_help_panel=CLUSTER,
            help="With --executor slurm: print the batch script and submit nothing.",
        ),
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="TRACKER",
            rich_help_panel="Tracking",
            help="Log runs as they train to wandb, tensorboard or mlflow; can be repeated.",
        ),
    ] = None,
    keep_weights: Annotated[
        bool,
        typer.Option(
            "--keep-weights",
            rich_help_panel="Output",
            help="Keep the parameters of finished runs, for `scaling results export-model`.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train the missing runs of a sweep, here, on Slurm or on Ray.

    Run it again to continue after an interruption; several at once share the work.

    Example: scaling run sweeps/demo.toml --workers 2

    Example: scaling run sweeps/norms.toml optim.lr=3e-3 'model.norm=[rmsnorm,layernorm]'
    """
    from scaling.cli.progress import Display
    from scaling.config.overrides import as_shell_words, load_with_overrides
    from scaling.execute.options import Executor
    from scaling.execute.planning import folder_of
    from scaling.execute.run_sweep import run_sweep
    from scaling.formatting import count_option

    if slurm and executor != Executor.SLURM:
        raise ScalingError("--slurm is for Slurm", remedy="add --executor slurm, or leave it out")
    settings = {}
    if slurm:
        from scaling.execute.slurm import parse_settings

        settings = parse_settings(slurm)
    shell_words = as_shell_words(sweep, overrides or ())
    options = training.run_options(
        executor,
        shell_words,
        partial(Display, to_stderr=as_json),
        max_flops=max_flops and count_option(max_flops, "--max-flops", "write it as 1e15"),
        max_seconds=max_seconds,
        retries=retries,
        fail_fast=fail_fast,
        hosts=hosts,
        slurm=settings,
        slurm_dry_run=dry_run,
        trackers=tuple(track or ()),
        keep_weights=keep_weights,
    )
    loaded = load_with_overrides(sweep, overrides or ())
    outcome = run_sweep(loaded, folder_of(loaded, out, sweep), options)
    if outcome.array is not None:
        print_array(outcome, as_json)
    elif as_json:
        print_json(outcome.status.to_dict())
    elif outcome.in_tuning:
        from scaling.cli.tune import print_stopped_tuning

        print_stopped_tuning(outcome)
    else:
        to_out = f" --out {shlex.quote(str(out))}" if out else ""
        _print_summary(outcome, f"scaling run {shell_words}{to_out}")
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
        typer.echo(f"{folder}: job {array.job_id} with {array.elements} elements")
        typer.echo(f"next: scaling status {shlex.quote(str(folder))} --watch")


def _print_summary(outcome: SweepOutcome, again: str) -> None:
    folder, status = outcome.folder.path, outcome.status
    typer.echo(f"{folder}: {status.summary or '0 done'}")
    reasons = [f"  {run.run_id}  {run.reason}" for run in status.runs if run.reason]
    for line in reasons[:SHOWN]:
        typer.echo(line)
    if len(reasons) > SHOWN:
        typer.echo(f"  ... and {len(reasons) - SHOWN} more (scaling status lists all)")
    if status.no_longer_planned:
        n_runs = len(status.no_longer_planned)
        typer.echo(f"  kept, though the sweep file no longer asks for them: {n_runs} runs")
    if outcome.stop and outcome.stop.reason != "signal":
        typer.echo(f"  stopped, with all states saved: {outcome.stop.message}")
    onward = "scaling fit" if outcome.sweep.supports_law_fit else "scaling report"
    if status.counts.missing or not status.counts.done:
        typer.echo(f"next: {again} trains the remaining runs")
    else:
        typer.echo(f"next: {onward} {shlex.quote(str(folder))}")
