"""The command `run`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scaling.cli.options import BUDGET, CLUSTER, OUT, OVERRIDES, SWEEP, TrainingOptions
from scaling.cli.output import Output, choice, flag, option

if TYPE_CHECKING:
    from scaling.execute.run_sweep import SweepOutcome

SHOWN = 20  # runs with a reason that the summary lists


@dataclass(frozen=True)
class RunArguments(TrainingOptions):
    """Where and how `run` trains."""

    max_flops: str | None = option(
        "Stop cleanly after this many FLOPs of training.", BUDGET, "FLOPS"
    )
    max_seconds: float | None = option(
        "Stop cleanly after this many seconds.", BUDGET, min=0, max=1e9
    )
    retries: int = option(
        "Retries per run after a worker or device failure.", min=0, max=1000, default=2
    )
    fail_fast: bool = flag("Stop at the first run that fails or diverges.")
    hosts: int = option(
        "Hosts that train one run together (with --mesh), inside a Slurm job.",
        CLUSTER,
        min=1,
        max=4096,
        default=1,
    )
    slurm: str = option(
        "Options of sbatch, such as partition=gpu,gpus=1.", CLUSTER, "KEY=VALUE,...", default=""
    )
    slurm_dry_run: bool = flag(
        "With --executor slurm: print the batch script and submit nothing.",
        CLUSTER,
        names="--dry-run",
    )
    trackers: list[str] | None = option(
        "Log runs as they end to wandb, tensorboard or mlflow; can be repeated.",
        "Tracking",
        "TRACKER",
        names="--track",
    )
    keep_weights: bool = flag(
        "Keep the parameters of finished runs, for `scaling results export-model`.", "Output"
    )


def run(
    sweep: Path = SWEEP,
    overrides: list[str] | None = OVERRIDES,
    *,
    out: Path | None = OUT,
    executor: str = choice("local ray slurm", "Where to train.", CLUSTER, default="local"),
    training: RunArguments,
    output: Output,
) -> None:
    """Train the missing runs of a sweep, here, on Slurm or on Ray.

    Run it again to continue after an interruption; several at once share the work.

    Example: scaling run sweeps/demo.toml --workers 2

    Example: scaling run sweeps/norms.toml optim.lr=3e-3 'model.norm=[rmsnorm,layernorm]'
    """
    from scaling.cli.training_display import Display
    from scaling.config.overrides import as_shell_words, load_with_overrides
    from scaling.execute.planning import folder_of
    from scaling.execute.run_sweep import run_sweep
    from scaling.units import flops_option

    shell_words = as_shell_words(sweep, overrides or ())
    limit, settings = training.max_flops, {}
    if training.slurm:
        from scaling.execute.slurm import parse_settings

        settings = parse_settings(training.slurm)
    options = training.run_options(
        executor,
        shell_words,
        partial(Display, to_stderr=output.as_json),
        max_flops=limit and flops_option(limit, "--max-flops"),
        slurm=settings,
        trackers=tuple(training.trackers or ()),
    )
    loaded = load_with_overrides(sweep, overrides or ())
    outcome = run_sweep(loaded, folder_of(loaded, out, sweep), options)
    to_out = f" --out {shlex.quote(str(out))}" if out else ""
    if (array := outcome.array) is not None:
        text, document = array.script, dict[str, Any](script=array.script, job_id=None)
        if array.job_id is not None:
            document = {
                "job_id": array.job_id,
                "elements": array.elements,
                "script": str(array.path),
            }
            text = f"{outcome.folder.path}: job {array.job_id} with {array.elements} elements\n"
            text += f"next: scaling status {shlex.quote(str(outcome.folder.path))}"
    else:
        document = outcome.status.to_dict()
        again = f"scaling run {shell_words}{to_out}"
        if outcome.in_tuning:
            from scaling.cli.tune import stopped_text

            text = stopped_text(outcome)
        else:
            text = _summary(outcome, again)
    output.emit(document, lambda: text)
    raise typer.Exit(outcome.exit_code)


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
        saved = "" if outcome.stop.reason == "disk" else ", with all states saved"
        lines.append(f"  stopped{saved}: {outcome.stop.message}")
    next_command = f"scaling {'fit' if outcome.sweep.supports_law_fit else 'report'} "
    next_command += shlex.quote(str(folder))
    if status.counts.missing or not status.counts.done:
        next_command = f"{again} trains the remaining runs"
    return "\n".join([*lines, f"next: {next_command}"])
