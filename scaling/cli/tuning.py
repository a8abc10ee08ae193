"""The verb `tune`, and what `run` does before it trains a sweep that asks for a tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.engines import RayAddress, Request, WaitForNodes
from scaling.cli.listing import RUNGS, rung_rows
from scaling.cli.manner import AcceptChanges, Mesh, MicroBatch, Pack, Remat, Workers, check_pack, execution
from scaling.cli.output import Csv, Json, console, note, print_csv, print_json
from scaling.cli.sweeps import Out, Overrides, SweepPath, folder_of, naming, plan_of
from scaling.cli.training import MaxRuns, Simulate, Training, TrainOptions, checked_law
from scaling.errors import ScalingError, unknown

if TYPE_CHECKING:
    from scaling.config import Sweep
    from scaling.execute.folder import SweepFolder
    from scaling.plan import Plan

EMITTED = "tuned.toml"
ENGINES = ("local", "ray")
Emit = Annotated[Path | None, typer.Option("--emit", metavar="SWEEP.toml", help="Write the tuned sweep here; default DIR/tuned.toml.")]


EPILOG = """Example: scaling tune sweeps/tuning.toml --workers 2

Example: scaling tune sweeps/honest.toml task.seq_len=128"""


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("tune", epilog=EPILOG)(tune)


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
    """Measure what a sweep's tuning tables ask for, and write the sweep with the measured rules; run it again to take it up."""
    from scaling.cli.tuning_tables import tuning_tables
    from scaling.execute.policy import Policy
    from scaling.overrides import described, load_changed

    if executor not in ENGINES:
        raise unknown("executor", executor, ENGINES, where="--executor")
    check_pack(pack)
    if simulate is not None and executor != "local":
        raise ScalingError("a simulated sweep needs no cluster", where="--simulate", remedy="leave out --executor")
    loaded, how = load_changed(sweep, overrides or ()), execution(mesh, micro_batch, remat)
    checked_law(simulate)
    options = TrainOptions(
        executor, simulate, how, Policy(), pack, workers, max_runs, resources=resources, ray_address=ray_address,
        wait_for_nodes=wait_for_nodes, accept_changes=accept_changes, as_json=as_json, as_csv=as_csv,
    )  # fmt: skip
    folder = folder_of(loaded, out)
    _check_target(emit)
    found, _ = _tuned(loaded, described(sweep, overrides or ()), folder, Training(options), emit)
    if as_json:
        return print_json(found)
    if as_csv:
        return print_csv(rung_rows(found), RUNGS)
    console().print(tuning_tables(found))
    return typer.echo(f"next: scaling run {emit or folder.path / EMITTED}{f' --out {out}' if out else ''}")


def _check_target(emit: Path | None) -> None:
    """Raise ScalingError, before anything is trained, where --emit would replace what `tune` has not written itself."""
    from scaling.tuning import MARK

    if emit is None or not emit.exists():
        return
    if not emit.is_file() or MARK not in emit.read_bytes()[:4096].decode("utf-8", "replace"):
        raise ScalingError("is there already, and `scaling tune` has not written it", where=str(emit), remedy="name another file")


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
        text = f"{rule['coef']:.3g} x N^{rule['n_power']:.3f}" if rule["kind"] == "power" else f"{rule['ratio']:.3g} x the recipe's rule"
        note(f"tuned {entry['field']} = {text}, {entry['runs']} runs ({folder.path / 'tuning.json'})")
    return sweep


def already_tuned(loaded: Sweep, folder: SweepFolder) -> Sweep:
    """The sweep with the rules that its folder holds. Raises ScalingError where they are still to be measured."""
    if not loaded.tuning:
        return loaded
    from scaling.tuning import is_pending, recall

    held = recall(folder.path, loaded) if is_pending(loaded) else None
    if held is not None and held.sweep is None:
        what = f"the sweep is to be tuned first, and an array of jobs cannot wait for that: {held.why}"
        raise ScalingError(what, where="tuning", remedy=f"scaling tune SWEEP --out {folder.path}, then submit again")
    return held.sweep if held is not None and held.sweep is not None else loaded


def _tuned(loaded: Sweep, path: str, folder: SweepFolder, training: Training, emit_to: Path | None) -> tuple[dict[str, Any], Sweep]:
    """Tune a sweep in its folder, and publish tuning.json and the tuned sweep. Ends the command where training is stopped."""
    from scaling.execute.folder import SweepFolder
    from scaling.tasks import open_task, resolve
    from scaling.tuning import document, emit, planner, publish
    from scaling.tuning import tune as carry_out

    law = training.options.simulate

    def train(place: Path, plan: Plan) -> None:
        stage = SweepFolder(place)
        _stop_as(stage, training, training.train(stage, plan))

    folder.check_same_sweep(loaded, law)
    with naming(path):
        task = resolve(loaded.base.task)
        found = carry_out(loaded, planner(task, open_task(task).vocab_size, law), folder.path, train, law)
    held = document(found, plan_of(found.sweep, path, law).shared_flops)
    publish(folder.path, held)
    emit(emit_to or folder.path / EMITTED, found.sweep)
    for warning in held["warnings"]:
        note(f"warning: {warning}")
    return held, found.sweep


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
        for line in (f"{stage.path}: {counts}; stopped by {reason}", "next: the same command takes it up"):
            typer.echo(line, err=training.options.as_csv)
    raise typer.Exit(code)
