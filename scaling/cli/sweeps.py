"""The verbs that train: plan, run, train, status."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.devices import DeviceName, annotate, check, check_shapes, room_of
from scaling.cli.manner import (
    Coordinator,
    Mesh,
    MicroBatch,
    Pack,
    Process,
    Processes,
    Remat,
    Workers,
    default_workers,
    execution,
    packing,
    several,
)  # fmt: skip
from scaling.cli.output import Json, console, note, print_json
from scaling.errors import DISK, RUNS_FAILED, STOPPED, ScalingError, unknown

if TYPE_CHECKING:
    from scaling.config import Sweep
    from scaling.execute.folder import SweepFolder
    from scaling.plan import Plan

SweepPath = Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file (TOML).")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The sweep's folder; default results/<name>.")]
ENGINES = ("local",)
MANY_EPOCHS = 4


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command("plan", epilog="Example: scaling plan sweeps/demo.toml")(plan)
    app.command("run", epilog="Example: scaling run sweeps/demo.toml --workers 2")(run)
    app.command("train", epilog="Example: scaling train sweeps/demo.toml --run 3f2a9c0d1e4b --out results/one")(train)
    app.command("status", epilog="Example: scaling status results/demo")(status)


def planned_sweep(path: Path) -> tuple[Sweep, Plan]:
    """A sweep file, and its plan on the corpus that is here. Raises ScalingError that names the file."""
    from scaling.plan import plan as expand
    from scaling.sweepfile import load_sweep
    from scaling.tasks import epochs, open_task, resolve

    sweep = load_sweep(path)
    try:
        task = resolve(sweep.base.task)
        opened = open_task(task)
        plan = expand(sweep, task, opened.vocab_size)
    except ScalingError as error:
        error.where = error.where if error.where.startswith(str(path)) else f"{path}: {error.where}".removesuffix(": ")
        raise
    most = max(epochs(opened, item.run.tokens) for item in plan.runs)
    if most > MANY_EPOCHS:
        note(f"warning: up to {most:.1f} passes over the training data; beyond {MANY_EPOCHS} repeated tokens teach less (Muennighoff 2023)")
    return sweep, plan


def _folder(sweep: Sweep, out: Path | None) -> SweepFolder:
    from scaling.execute.folder import SweepFolder

    return SweepFolder(out or Path("results") / sweep.name)


def plan(
    sweep: SweepPath,
    workers: Workers = None,
    probe: Annotated[bool, typer.Option(help="Time a few shapes on this machine to estimate seconds (cached).")] = True,
    device: DeviceName = None,
    mesh: Mesh = None,
    micro_batch: MicroBatch = None,
    remat: Remat = "none",
    as_json: Json = False,
) -> None:
    """Show every run with N, D, C, batch, learning rate, steps, seconds and memory; trains nothing."""
    from scaling.cli.tables import plan_document, plan_table
    from scaling.execute.estimate import measure_speed

    how = execution(mesh, micro_batch, remat)
    count = default_workers(workers, how)
    room = room_of(device, count) if device else None
    _, planned = planned_sweep(sweep)
    check_shapes(planned.runs, how)
    if probe:
        note("timing a few shapes on this machine (cached afterwards; --no-probe skips it) ...")
    speed = measure_speed(planned.runs, count, how) if probe else None
    document = annotate(plan_document(planned, speed, count), planned.runs, how, room)
    if as_json:
        return print_json(document)
    return console().print(plan_table(document))


def run(
    sweep: SweepPath,
    out: Out = None,
    executor: Annotated[str, typer.Option(help="Where to train: local.")] = "local",
    workers: Workers = None,
    max_runs: Annotated[int | None, typer.Option(min=1, help="Train at most this many runs now.")] = None,
    mesh: Mesh = None,
    micro_batch: MicroBatch = None,
    remat: Remat = "none",
    pack: Pack = "auto",
    accept_other_machine: Annotated[
        bool, typer.Option("--accept-other-machine", help="Resume checkpoints written under other versions, threads or devices.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train what is missing of a sweep; running it twice is a no-op, and an interrupted sweep is taken up where it stood."""
    from scaling.cli.progress import Display
    from scaling.execute.local import Manner, execute
    from scaling.execute.status import status as examine

    if executor not in ENGINES:
        raise unknown("executor", executor, ENGINES, where="--executor")
    how = execution(mesh, micro_batch, remat)
    count = default_workers(workers, how)
    loaded, planned = planned_sweep(sweep)
    folder = _folder(loaded, out)
    check([item for item in planned.runs if not folder.run_file(item.run_id).exists()], how, count)
    with folder.lock():
        folder.check_same_sweep(loaded)
        folder.write_plan(planned)
        missing = [item for item in planned.runs if not folder.run_file(item.run_id).exists()]
        chosen = missing[:max_runs]
        packs = packing(pack, [item.run for item in chosen], count, how, folder.packing)
        manner = Manner(count, how, packs, accept_other_machine)
        with Display(folder.path, planned, chosen, to_stderr=as_json) as display:
            ended = execute(folder, loaded.name, chosen, manner, display.observe) if chosen else None
    document = examine(folder)
    if as_json:
        print_json(document)
    else:
        _summary(document, folder.path, sweep)
    _exit_as(document, ended)


def _summary(document: dict[str, Any], folder: Path, sweep: Path) -> None:
    counts = document["counts"]
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "done")
    typer.echo(f"{folder}: {text}")
    for entry in document["runs"]:
        if entry["reason"]:
            typer.echo(f"  {entry['run_id']}  {entry['reason']}")
    if document["no_longer_planned"]:
        typer.echo(f"  kept, though the sweep file no longer asks for them: {len(document['no_longer_planned'])} runs")
    typer.echo(f"next: scaling fit {folder}" if not counts["missing"] else f"next: scaling run {sweep} takes up the rest")


def _exit_as(document: dict[str, Any], ended: Any) -> None:
    """Exit codes of the contract: a signal, a full disk, failed runs."""
    if ended and ended.signal:
        raise typer.Exit(128 + ended.signal)
    if ended and ended.exit_code == DISK:
        raise typer.Exit(DISK)
    if document["counts"]["failed"]:
        raise typer.Exit(RUNS_FAILED)


def train(
    sweep: Annotated[Path | None, typer.Argument(metavar="[SWEEP]", help="A sweep file (TOML).")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="The run to train, as `scaling plan` names it.")] = None,
    out: Out = None,
    mesh: Mesh = None,
    micro_batch: MicroBatch = None,
    remat: Remat = "none",
    coordinator: Coordinator = None,
    processes: Processes = None,
    process: Process = None,
    accept_other_machine: Annotated[
        bool, typer.Option("--accept-other-machine", help="Resume a checkpoint written under other versions, threads or devices.")
    ] = False,
    serve: Annotated[Path | None, typer.Option(hidden=True, help="Serve a coordinator over stdin and stdout.")] = None,
    as_json: Json = False,
) -> None:
    """Train one run of a sweep in this process, with this process's threads and devices; or in several, one on each host."""
    from scaling.execute import environment, worker
    from scaling.family import Family

    if serve is not None:
        return worker.serve(serve)
    environment.restart_once()
    if sweep is None or run_id is None:
        raise ScalingError("train needs a sweep file and --run RUN_ID", remedy="`scaling plan SWEEP` lists the run ids")
    how = execution(mesh, micro_batch, remat)
    loaded, planned = planned_sweep(sweep)
    known = {item.run_id: item for item in planned.runs}
    if run_id not in known:
        raise ScalingError(f"run {run_id!r} is not in the plan", where=str(sweep), remedy="`scaling plan SWEEP` lists the run ids")
    folder = _folder(loaded, out)
    if coordinator is None:
        check([known[run_id]], how, 1)
    with several(coordinator, processes, process) as first, folder.lock() if first else nullcontext():
        if first:
            folder.check_same_sweep(loaded)
            folder.write_plan(planned)
        order = worker.Order(loaded.name, Family((known[run_id].run,)), how, accept_other_machine=accept_other_machine)
        done = folder.run_file(run_id).exists()
        kind = "done" if done else worker.train_family(folder, order, should_stop=worker.StopFlag(), emit=_print_progress)[run_id]
    document = {"run_id": run_id, "outcome": kind, "file": str(folder.run_file(run_id)), "reason": folder.reason(run_id) or None}
    if as_json and first:
        print_json(document)
    elif first:
        typer.echo(f"{run_id}: {kind}")
    raise typer.Exit({"done": 0, "diverged": RUNS_FAILED, "stopped": STOPPED}[kind])


def _print_progress(event: dict[str, Any]) -> None:
    if event["event"] == "progress" and event["step"] % 64 == 0:
        note(f"step {event['step']}/{event['n_steps']}  loss {event['loss']:.4f}  {event['tokens_per_second']:,.0f} tokens/s")


def status(
    target: Annotated[Path, typer.Argument(metavar="SWEEP|DIR", help="A sweep file or a sweep's folder.")],
    as_json: Json = False,
) -> None:
    """Say which runs of a sweep are done, running, failed or missing, and the time left."""
    from scaling.cli.tables import status_table
    from scaling.execute.folder import SweepFolder
    from scaling.execute.status import status as examine
    from scaling.sweepfile import load_sweep

    folder = SweepFolder(target) if target.is_dir() else _folder(load_sweep(target), None)
    document = examine(folder)
    if as_json:
        return print_json(document)
    return console().print(status_table(document))
