"""The verb `tune`, and what `run` does before it trains a sweep that asks for a tuning."""

from __future__ import annotations

import math
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
    check_pack,
    execution,
)
from scaling.cli.executor_options import RayAddress, Request, WaitForNodes
from scaling.cli.output import Csv, Json, console, echo_err, print_csv, print_json
from scaling.cli.sweep_options import (
    Out,
    Overrides,
    SweepPath,
    errors_name_file,
    folder_of,
    plan_of,
)
from scaling.cli.tables import table
from scaling.cli.training_session import MaxRuns, Simulate, Training, TrainOptions, checked_law
from scaling.errors import ScalingError, unknown_choice
from scaling.formatting import format_count

if TYPE_CHECKING:
    from scaling.config import Sweep
    from scaling.execute.sweep_folder import SweepFolder
    from scaling.plan import Plan

EMITTED = "tuned.toml"
ENGINES = ("local", "ray")
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
    executor: Annotated[str, typer.Option(help="Where to train: local or ray.")] = "local",
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
    from scaling.config.overrides import as_shell_words, load_with_overrides
    from scaling.execute.coordinator import Policy

    if executor not in ENGINES:
        raise unknown_choice("executor", executor, ENGINES, where="--executor")
    check_pack(pack)
    if simulate is not None and executor != "local":
        raise ScalingError(
            "a simulated sweep needs no cluster", where="--simulate", remedy="leave out --executor"
        )
    loaded, how = load_with_overrides(sweep, overrides or ()), execution(mesh, micro_batch, remat)
    checked_law(simulate)
    options = TrainOptions(
        executor,
        simulate,
        how,
        Policy(),
        pack,
        workers,
        max_runs,
        resources=resources,
        ray_address=ray_address,
        wait_for_nodes=wait_for_nodes,
        accept_changes=accept_changes,
        as_json=as_json,
        as_csv=as_csv,
    )
    folder = folder_of(loaded, out, sweep)
    _check_target(emit)
    found, _ = _tuned(
        loaded, as_shell_words(sweep, overrides or ()), folder, Training(options), emit
    )
    if as_json:
        return print_json(found)
    if as_csv:
        return print_csv(tuning_rows(found), TUNED)
    console().print(tuning_tables(found))
    return typer.echo(
        f"next: scaling run {emit or folder.path / EMITTED}{f' --out {out}' if out else ''}"
    )


def _check_target(emit: Path | None) -> None:
    """Raise ScalingError, before anything is trained, where --emit would replace what `tune` has not written itself."""
    from scaling.tuning import MARK

    if emit is None or not emit.exists():
        return
    if not emit.is_file() or MARK not in emit.read_bytes()[:4096].decode("utf-8", "replace"):
        raise ScalingError(
            "is there already, and `scaling tune` has not written it",
            where=str(emit),
            remedy="name another file",
        )


def tuned_first(loaded: Sweep, path: str, folder: SweepFolder, training: Training) -> Sweep:
    """The sweep with its measured rules, which are measured now where they are not yet."""
    if not loaded.tuning:
        return loaded
    from scaling.tuning import is_pending

    if not is_pending(loaded):
        return loaded
    found, sweep = _tuned(loaded, path, folder, training, None)
    for entry in found["fields"]:
        rule = entry["rule"]
        text = (
            f"{rule['coef']:.3g} x N^{rule['n_power']:.3f}"
            if rule["kind"] == "power"
            else f"{rule['ratio']:.3g} x the recipe's rule"
        )
        echo_err(
            f"tuned {entry['field']} = {text}, {entry['runs']} runs ({folder.path / 'tuning.json'})"
        )
    return sweep


def already_tuned(loaded: Sweep, folder: SweepFolder) -> Sweep:
    """The sweep with the rules that its folder holds. Raises ScalingError where they are still to be measured."""
    if not loaded.tuning:
        return loaded
    from scaling.tuning import is_pending, load_tuned

    held = load_tuned(folder.path, loaded) if is_pending(loaded) else None
    if held is not None and held.sweep is None:
        what = (
            f"the sweep is to be tuned first, and an array of jobs cannot wait for that: {held.why}"
        )
        raise ScalingError(
            what,
            where="tuning",
            remedy=f"scaling tune SWEEP --out {folder.path}, then submit again",
        )
    return held.sweep if held is not None and held.sweep is not None else loaded


def _tuned(
    loaded: Sweep, path: str, folder: SweepFolder, training: Training, emit_to: Path | None
) -> tuple[dict[str, Any], Sweep]:
    """Tune a sweep in its folder, and publish tuning.json and the tuned sweep. Ends the command where training is stopped."""
    from scaling.execute.sweep_folder import SweepFolder
    from scaling.tasks import open_task, resolve
    from scaling.tuning import planner, tuning_result, write_tuned_sweep
    from scaling.tuning import tune as carry_out

    law = training.options.simulate

    def train(place: Path, plan: Plan) -> None:
        stage = SweepFolder(place)
        _stop_as(stage, training, training.train(stage, plan))

    folder.check_same_sweep(loaded, law)
    with errors_name_file(path):
        task = resolve(loaded.base.task)
        found = carry_out(
            loaded, planner(task, open_task(task).vocab_size, law), folder.path, train, law
        )
    result = tuning_result(found, plan_of(found.sweep, path, law).shared_flops)
    result.save(folder.path)
    write_tuned_sweep(emit_to or folder.path / EMITTED, found.sweep)
    for warning in result.warnings:
        echo_err(f"warning: {warning}")
    return result.to_dict(), found.sweep


def _stop_as(stage: SweepFolder, training: Training, ended: Any) -> None:
    """End the command with the exit code of the contract where training stopped early; all states are saved."""
    from scaling.execute.status import status as examine

    stop = training.stopped(ended)
    if stop is None:
        return
    reason, code = stop
    document = examine(stage)
    if training.options.as_json:
        print_json(document)
    else:
        counts = ", ".join(f"{count} {name}" for name, count in document["counts"].items() if count)
        for line in (
            f"{stage.path}: {counts}; stopped by {reason}",
            "next: the same command takes it up",
        ):
            typer.echo(line, err=training.options.as_csv)
    raise typer.Exit(code)


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
