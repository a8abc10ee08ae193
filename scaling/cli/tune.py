"""The command `tune`: measure the rules of a sweep's [[tuning]] tables."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scaling.cli.options import CLUSTER, OUT, OVERRIDES, SWEEP, TrainingOptions
from scaling.cli.output import Output, choice, option

if TYPE_CHECKING:
    from scaling.execute.run_sweep import SweepOutcome
    from scaling.tuning.document import TuningResult


def tune(
    sweep: Path = SWEEP,
    overrides: list[str] | None = OVERRIDES,
    *,
    out: Path | None = OUT,
    tuned_file: Path | None = option(
        "Write the tuned sweep here; default DIR/tuned.toml.", metavar="SWEEP.toml", names="--emit"
    ),
    executor: str = choice("local ray", "Where to train.", CLUSTER, default="local"),
    training: TrainingOptions,
    output: Output,
) -> None:
    """Tune the fields of a sweep's [[tuning]] tables and write the sweep with the measured rules.

    An interrupted tuning continues when the command is run again.

    Example: scaling tune sweeps/tuning.toml --workers 2

    Example: scaling tune sweeps/honest.toml task.seq_len=128
    """
    from scaling.cli.training_display import Display
    from scaling.config.overrides import as_shell_words, load_with_overrides
    from scaling.execute.planning import folder_of
    from scaling.execute.run_sweep import TUNED_FILE, TuningStopped, tune_sweep
    from scaling.tuning.document import check_target

    source = as_shell_words(sweep, overrides or ())
    monitor = partial(Display, to_stderr=output.as_json)
    options = training.run_options(executor, source, monitor)
    loaded = load_with_overrides(sweep, overrides or ())
    folder = folder_of(loaded, out, sweep)
    if tuned_file is not None:
        check_target(tuned_file)
    try:
        result = tune_sweep(loaded, folder, options, tuned_file)
    except TuningStopped as stopped:
        text = stopped_text(stopped.outcome)
        output.emit(stopped.outcome.status.to_dict(), lambda: text)
        raise typer.Exit(stopped.outcome.exit_code) from None
    target = shlex.quote(str(tuned_file or folder.path / TUNED_FILE))
    output.emit(
        result.to_dict(),
        lambda: tuning_text(result),
        f"scaling run {target}" + (f" --out {shlex.quote(str(out))}" if out else ""),
    )


def stopped_text(outcome: SweepOutcome) -> str:
    """How far a tuning came that was stopped."""
    reason = outcome.stop.message if outcome.stop else ""
    summary = f"{outcome.folder.path}: {outcome.status.summary}; stopped by {reason}"
    return f"{summary}\nnext: run the same command again to continue"


def tuning_text(result: TuningResult) -> list[object]:
    """What `scaling tune` prints: for each field its optima and rule, and the cost."""
    from scaling.report.parts.training import cost, field_table

    parts: list[object] = []
    for field in result.fields:
        unit, fraction = f" ({field.unit})" if field.unit else "", field.short_run_frac
        runs = f"short runs at {100 * fraction:.0f} % of D" if fraction else "no short runs"
        parts += [f"{field.field}{unit}: {runs}", field_table(field)]
    parts.append(f"{cost(result)} {sum(field.runs for field in result.fields)} runs.")
    if result.simulated:
        parts.append(f"simulated from {result.simulated}: nothing was trained")
    return parts
