"""The command `run`."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import BUDGET, CLUSTER, Out, Overrides, SweepPath, TrainingOptions
from scaling.cli.output import Output, choice, option
from scaling.cli.tune import stopped_text
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.execute.run_sweep import SlurmArray, SweepOutcome

SHOWN = 20  # runs with a reason that the summary lists


def run(
    sweep: SweepPath,
    overrides: Overrides = None,
    *,
    out: Out = None,
    executor: Annotated[str, choice("local ray slurm", "Where to train.", CLUSTER)] = "local",
    training: TrainingOptions,
    max_flops: Annotated[
        str | None,
        option("Stop cleanly after this many FLOPs of training.", BUDGET, "FLOPS"),
    ] = None,
    max_seconds: Annotated[
        float | None,
        option("Stop cleanly after this many seconds.", BUDGET, min=0, max=1e9),
    ] = None,
    retries: Annotated[
        int,
        option("Retries per run after a worker or device failure.", min=0, max=1000),
    ] = 2,
    fail_fast: Annotated[bool, option("Stop at the first run that fails or diverges.")] = False,
    hosts: Annotated[
        int,
        option(
            "Hosts that train one run together (with --mesh), under Ray or inside a Slurm job.",
            CLUSTER,
            min=1,
            max=4096,
        ),
    ] = 1,
    slurm: Annotated[
        str,
        option("Options of sbatch, such as partition=gpu,gpus=1.", CLUSTER, "KEY=VALUE,..."),
    ] = "",
    dry_run: Annotated[
        bool,
        option("With --executor slurm: print the batch script and submit nothing.", CLUSTER),
    ] = False,
    track: Annotated[
        list[str] | None,
        option(
            "Log runs as they train to wandb, tensorboard or mlflow; can be repeated.",
            "Tracking",
            "TRACKER",
        ),
    ] = None,
    keep_weights: Annotated[
        bool,
        option(
            "Keep the parameters of finished runs, for `scaling results export-model`.", "Output"
        ),
    ] = False,
    output: Output,
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
    from scaling.execute.slurm import parse_settings
    from scaling.formatting import count_option

    if slurm and executor != Executor.SLURM:
        raise ScalingError("--slurm is for Slurm", remedy="add --executor slurm, or leave it out")
    shell_words = as_shell_words(sweep, overrides or ())
    options = training.run_options(
        executor,
        shell_words,
        partial(Display, to_stderr=output.as_json),
        max_flops=max_flops and count_option(max_flops, "--max-flops", "write it as 1e15"),
        max_seconds=max_seconds,
        retries=retries,
        fail_fast=fail_fast,
        hosts=hosts,
        slurm=parse_settings(slurm) if slurm else {},
        slurm_dry_run=dry_run,
        trackers=tuple(track or ()),
        keep_weights=keep_weights,
    )
    loaded = load_with_overrides(sweep, overrides or ())
    outcome = run_sweep(loaded, folder_of(loaded, out, sweep), options)
    to_out = f" --out {shlex.quote(str(out))}" if out else ""
    if outcome.array is not None:
        document, text = _submitted(outcome.array, outcome.folder.path)
    else:
        document = outcome.status.to_dict()
        again = f"scaling run {shell_words}{to_out}"
        text = stopped_text(outcome) if outcome.in_tuning else _summary(outcome, again)
    output.emit(document, lambda: text)
    raise typer.Exit(outcome.exit_code)


def _submitted(array: SlurmArray, folder: Path) -> tuple[dict[str, Any], str]:
    """The Slurm jobs that were submitted, or the script of those that were not."""
    if array.job_id is None:
        return {"script": array.script, "job_id": None}, array.script
    document = {"job_id": array.job_id, "elements": array.elements, "script": str(array.path)}
    text = f"{folder}: job {array.job_id} with {array.elements} elements"
    return document, f"{text}\nnext: scaling status {shlex.quote(str(folder))} --watch"


def _summary(outcome: SweepOutcome, again: str) -> str:
    """What was trained, what was not and why, and the next command."""
    folder, status = outcome.folder.path, outcome.status
    reasons = [f"  {run.run_id}  {run.reason}" for run in status.runs if run.reason]
    lines = [f"{folder}: {status.summary or '0 done'}", *reasons[:SHOWN]]
    if len(reasons) > SHOWN:
        lines.append(f"  ... and {len(reasons) - SHOWN} more (scaling status lists all)")
    if status.no_longer_planned:
        n_runs = len(status.no_longer_planned)
        lines.append(f"  kept, though the sweep file no longer asks for them: {n_runs} runs")
    if outcome.stop and outcome.stop.reason != "signal":
        lines.append(f"  stopped, with all states saved: {outcome.stop.message}")
    onward = f"scaling {'fit' if outcome.sweep.supports_law_fit else 'report'} "
    onward += shlex.quote(str(folder))
    if status.counts.missing or not status.counts.done:
        onward = f"{again} trains the remaining runs"
    return "\n".join([*lines, f"next: {onward}"])
