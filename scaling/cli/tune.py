"""The command `tune`: measure the rules of a sweep's [[tuning]] tables."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from scaling.cli.csv_rows import TUNED, tuning_rows
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
from scaling.cli.executor_options import MaxRuns, RayAddress, Request, Simulate, WaitForNodes
from scaling.cli.output import Csv, Json, choice, console, echo_err, print_csv, print_json
from scaling.cli.sweep_options import Out, Overrides, SweepPath, folder_of
from scaling.cli.tables import table
from scaling.errors import ScalingError
from scaling.formatting import format_count

if TYPE_CHECKING:
    from scaling.execute.run_sweep import SweepOutcome

EXECUTORS = ("local", "ray")
Emit = Annotated[
    Path | None,
    typer.Option(
        "--emit", metavar="SWEEP.toml", help="Write the tuned sweep here; default DIR/tuned.toml."
    ),
]


def tune(
    sweep: SweepPath,
    overrides: Overrides = None,
    out: Out = None,
    emit: Emit = None,
    executor: Annotated[
        str, choice("--executor", EXECUTORS, "Where to train.", "Cluster")
    ] = "local",
    workers: Workers = None,
    max_runs: MaxRuns = None,
    simulate: Simulate = None,
    mesh: Mesh = None,
    micro_batch: MicroBatch = None,
    remat: Remat = "none",
    pack: Pack = "auto",
    resources: Request = None,
    ray_address: RayAddress = None,
    wait_for_nodes: WaitForNodes = False,
    accept_changes: AcceptChanges = False,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Tune the fields of a sweep's [[tuning]] tables and write the sweep with the measured rules.

    An interrupted tuning continues when the command is run again.

    Example: scaling tune sweeps/tuning.toml --workers 2

    Example: scaling tune sweeps/honest.toml task.seq_len=128
    """
    from scaling.cli.progress import Display
    from scaling.config.overrides import as_shell_words, load_with_overrides
    from scaling.execute.options import Executor, RunOptions
    from scaling.execute.run_sweep import TUNED_FILE, tune_sweep
    from scaling.execute.status import read_status

    options = RunOptions(
        executor=Executor(executor),
        execution=execution(mesh, micro_batch, remat),
        workers=workers,
        pack=parse_pack(pack),
        max_runs=max_runs,
        simulate=simulate,
        allow_changes=accept_changes,
        resources=resources,
        ray_address=ray_address,
        wait_for_nodes=wait_for_nodes,
        source=as_shell_words(sweep, overrides or ()),
        on_message=echo_err,
        monitor=partial(Display, to_stderr=as_json or as_csv),
    )
    loaded = load_with_overrides(sweep, overrides or ())
    folder = folder_of(loaded, out, sweep)
    _check_target(emit)
    outcome = tune_sweep(loaded, folder, options, emit)
    if outcome.stopped is not None:
        if as_json:
            print_json(read_status(outcome.stopped.folder).to_dict())
        else:
            print_stopped_tuning(outcome.stopped, to_stderr=as_csv)
        raise typer.Exit(outcome.stopped.exit_code)
    assert outcome.result is not None
    document = outcome.result.to_dict()
    if as_json:
        return print_json(document)
    if as_csv:
        return print_csv(tuning_rows(document), TUNED)
    console().print(tuning_tables(document))
    return typer.echo(
        f"next: scaling run {emit or folder.path / TUNED_FILE}{f' --out {out}' if out else ''}"
    )


def print_stopped_tuning(outcome: SweepOutcome, *, to_stderr: bool = False) -> None:
    """How far a tuning came that was stopped."""
    from scaling.execute.status import read_status

    counts = read_status(outcome.folder).summary
    reason = outcome.stop.message if outcome.stop else ""
    typer.echo(f"{outcome.folder.path}: {counts}; stopped by {reason}", err=to_stderr)
    typer.echo("next: run the same command again to continue", err=to_stderr)


def _check_target(emit: Path | None) -> None:
    """Raise ScalingError, before anything is trained, where --emit would replace what `tune` has
    not written itself.
    """
    from scaling.tuning import MARK

    if emit is None or not emit.exists():
        return
    if not emit.is_file() or MARK not in emit.read_bytes()[:4096].decode("utf-8", "replace"):
        raise ScalingError(
            "is there already, and `scaling tune` has not written it",
            where=str(emit),
            remedy="name another file",
        )


def tuning_tables(document: dict[str, Any]) -> Group:
    """What `scaling tune` prints: for each field its values, optima and rule, and the cost."""
    from scaling.report.parts.tuning import cost, rule, short

    parts: list[Any] = []
    for field in document["fields"]:
        unit = f" ({field['unit']})" if field["unit"] else ""
        fraction = field["short_run_frac"]
        runs = f"short runs at {fraction:.0%} of D" if fraction else "no short runs"
        parts += [
            Text(f"{field['field']}{unit}: {runs}", style="bold"),
            _values_table(field),
            Text(),
            short(field).to_rich(),
            Text(rule(field)),
            Text(),
        ]
    n_runs = sum(field["runs"] for field in document["fields"])
    parts.append(Text(f"{cost(document)} {n_runs} runs."))
    if document["simulated"]:
        parts.append(Text(f"simulated from {document['simulated']}: nothing was trained"))
    return Group(*parts)


def _values_table(field: dict[str, Any]) -> Any:
    rows = table("", "N", "D", "value", "short run", "loss", "")
    for size in field["sizes"]:
        losses = [item["loss"] for item in size["values"] if item["loss"] is not None]
        for row, item in enumerate(size["values"]):
            notes = {
                "best": item["loss"] is not None and item["loss"] == min(losses),
                "the recipe's": item["index"] == 0,
                item["state"]: item["state"] != "trained",
            }
            value = item["value"]
            rows.add_row(
                *(
                    [format_count(size["n_params"]), format_count(size["tokens"])]
                    if row == 0
                    else ["", ""]
                ),
                format_count(value) if value >= 1 else f"{value:.2e}",
                _loss(item["short_run_loss"]),
                _loss(item["loss"]),
                Text(", ".join(note for note, applies in notes.items() if applies)),
            )
    rows.columns[-1].justify = "left"
    return rows


def _loss(loss: float | None) -> str:
    return "" if loss is None or not math.isfinite(loss) else f"{loss:.4f}"
