"""The verbs around a sweep: plan, train one run, status. (`run` has a module of its own.)"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.devices import DeviceName, annotate, check, check_shapes, room_of
from scaling.cli.expecting import LawFrom, Noise, Target, expectation
from scaling.cli.listing import PLANNED, ROOM, STATES
from scaling.cli.manner import (
    AcceptChanges,
    Coordinator,
    Mesh,
    MicroBatch,
    Process,
    Processes,
    Remat,
    Workers,
    default_workers,
    execution,
    several,
)  # fmt: skip
from scaling.cli.output import Csv, Json, animates, console, note, print_csv, print_json
from scaling.errors import RUNS_FAILED, STOPPED, ScalingError

if TYPE_CHECKING:
    from scaling.config import Sweep
    from scaling.execute.folder import SweepFolder
    from scaling.plan import Plan


def keys_that_begin(incomplete: str) -> list[str]:
    """For the shell: the keys of a sweep file that begin so, with their sign."""
    from scaling.overrides import known_keys

    return [f"{key}=" for key in known_keys() if key.startswith(incomplete)]


SweepPath = Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file (TOML).")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Changes of the sweep file: optim.lr=3e-4, design.budgets='[1e12,1e13]'; a list for a field of model, optim or task is "
        "an axis. The changed sweep has a name and a folder of its own.",
        autocompletion=keys_that_begin,
    ),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The sweep's folder; default results/<name>.")]


TRAIN_SECONDS = 5.0
LOG_SECONDS = 60.0
PLAN_EPILOG = """Example: scaling plan sweeps/demo.toml

Example: scaling plan sweeps/demo.toml optim.lr=3e-3 'design.budgets=[3e10,1e11]' --no-probe"""


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command("plan", epilog=PLAN_EPILOG)(plan)
    app.command("train", epilog="Example: scaling train sweeps/demo.toml --run 3f2a9c0d1e4b --out results/one")(train)
    app.command("status", epilog="Example: scaling status results/demo")(status)


def planned_sweep(path: Path, simulated: str | None = None, out: Path | None = None, overrides: Sequence[str] = ()) -> tuple[Sweep, Plan]:
    """A sweep file, with what was tuned for it in its folder, and its plan on the corpus that is here (for a law to simulate).

    Raises ScalingError that names the file.
    """
    from scaling.overrides import described, load_changed

    sweep = as_tuned(load_changed(path, overrides), out, simulated)
    return sweep, plan_of(sweep, described(path, overrides), simulated)


def plan_of(sweep: Sweep, path: Path | str, simulated: str | None = None) -> Plan:
    """The plan of a sweep that was read from `path`. Raises ScalingError that names the file."""
    from scaling.cli.repeats import repeats
    from scaling.plan import plan as expand
    from scaling.tasks import open_task, resolve

    with naming(path):
        task = resolve(sweep.base.task)
        opened = open_task(task)
        plan = expand(sweep, task, opened.vocab_size, simulated)
        doubts = [*plan.warnings, *(repeats(opened, plan) if simulated is None else [])]
    for doubt in doubts:
        note(f"warning: {doubt}")
    return plan


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Errors name the file that they come from."""
    try:
        yield
    except ScalingError as error:
        error.where = error.where if error.where.startswith(str(path)) else f"{path}: {error.where}".removesuffix(": ")
        raise


def as_tuned(sweep: Sweep, out: Path | None, simulated: str | None = None) -> Sweep:
    """The sweep with the rules that were measured for it in its folder; says so where they are still to be measured."""
    if not sweep.tuning:
        return sweep
    from scaling.tuning import is_pending, recall

    if not is_pending(sweep):
        return sweep
    held = recall(folder_of(sweep, out).path, sweep, simulated)
    if held.sweep is not None:
        return held.sweep
    fields = ", ".join(dict.fromkeys(entry.field for entry in sweep.tuning))
    note(
        f"warning: [[tuning]]: {held.why}: {fields} and run ids are the recipe's guess until `scaling tune` (or `scaling run`) has measured"
    )
    return sweep


def folder_of(sweep: Sweep, out: Path | None) -> SweepFolder:
    """Where a sweep's results lie."""
    from scaling.execute.folder import SweepFolder

    path = out or Path("results") / sweep.name
    if path.exists() and not path.is_dir():
        raise ScalingError("is a file; results need a folder", where=str(path), remedy="name another one with --out")
    return SweepFolder(path)


def plan(
    sweep: SweepPath,
    overrides: Overrides = None,
    workers: Workers = None,
    probe: Annotated[bool, typer.Option(help="Time a few shapes on this machine to estimate seconds (cached).")] = True,
    device: DeviceName = None,
    mesh: Mesh = None,
    micro_batch: MicroBatch = None,
    remat: Remat = "none",
    target: Target = None,
    law_from: LawFrom = None,
    noise: Noise = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Show every run with N, D, C, batch, learning rate, steps, seconds and memory, and the intervals to expect; trains nothing."""
    from scaling.cli.tables import plan_document, plan_table
    from scaling.execute.estimate import measure_speed

    how = execution(mesh, micro_batch, remat)
    count = default_workers(workers, how)
    room = room_of(device, count) if device else None
    _, planned = planned_sweep(sweep, overrides=overrides or ())
    check_shapes(planned.runs, how)
    if probe:
        note("timing a few shapes on this machine (cached afterwards; --no-probe skips it) ...")
    speed = measure_speed(planned.runs, count, how) if probe else None
    document = annotate(plan_document(planned, speed, count), planned.runs, how, room)
    if planned.sweep.asks_for_a_law or target is not None:
        document["expected"] = expectation(planned, target, law_from, noise)
    if as_json:
        return print_json(document)
    if as_csv:
        note(f"{len(document['runs'])} runs; {len(document['refused'])} cells refused (--json gives the reasons)")
        return print_csv(document["runs"], PLANNED + (ROOM if room else ()))
    return console().print(plan_table(document))


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
    accept_changes: AcceptChanges = False,
    serve: Annotated[Path | None, typer.Option(hidden=True, help="Serve a coordinator over stdin and stdout.")] = None,
    as_json: Json = False,
) -> None:
    """Train one run of a sweep in this process, with this process's threads and devices; or in several, one on each host."""
    from scaling.execute import environment, worker
    from scaling.execute.signals import exit_code
    from scaling.family import Family, read_outs

    if serve is not None:
        return worker.serve(serve, several(coordinator, processes, process))
    if sweep is None or run_id is None:
        raise ScalingError("train needs a sweep file and --run RUN_ID", remedy="`scaling plan SWEEP` lists the run ids")
    environment.restart_once()
    how = execution(mesh, micro_batch, remat)
    loaded, planned = planned_sweep(sweep, out=out)
    known = {item.run_id: item for item in planned.runs}
    if run_id not in known:
        raise ScalingError(f"run {run_id!r} is not in the plan", where=str(sweep), remedy="`scaling plan SWEEP` lists the run ids")
    folder = folder_of(loaded, out)
    if coordinator is None:
        check([known[run_id]], how, 1)
    stop = worker.StopFlag()
    with several(coordinator, processes, process) as first, _claimed(folder, planned, run_id, accept_changes, first) as lease:
        order = worker.Order(
            loaded.name,
            Family((known[run_id].run,), read_at=read_outs([item.run for item in planned.runs]).get(run_id, ())),
            how,
            accept_other_machine=accept_changes,
            lease=lease,
        )
        done = folder.is_finished(run_id)
        kind = "done" if done else worker.train_family(folder, order, should_stop=stop, emit=_progress())[run_id]
    document = {"run_id": run_id, "outcome": kind, "file": str(folder.run_file(run_id)), "reason": folder.reason(run_id) or None}
    if as_json and first:
        print_json(document)
    elif first:
        typer.echo(f"{run_id}: {kind}")
    raise typer.Exit({"done": 0, "diverged": RUNS_FAILED, "stopped": exit_code(stop.received)}[kind])


@contextmanager
def _claimed(folder: SweepFolder, planned: Plan, run_id: str, accept: bool, first: bool) -> Iterator[str | None]:
    """Hold a run of a folder (on process 0 of several); yields the lease's file. Raises ScalingError (75) when another has it."""
    from scaling.execute.session import Sitting

    if not first:
        yield None
        return
    sitting = Sitting(folder, planned, note, accept_changes=accept)
    with sitting.lease as lease:
        sitting.settle()
        with lease.deciding() as held:
            if run_id in held:
                what = f"run {run_id} is in training by another process"
                raise ScalingError(what, where=str(folder.path), remedy="watch it with `scaling status`", exit_code=STOPPED)
            lease.hold([run_id])
        yield str(lease.path)


def _progress() -> Callable[[dict[str, Any]], None]:
    """Prints how a run gets on, one line every few seconds: a long run fills no log, and there is nothing to draw over."""
    last = -math.inf

    def show(event: dict[str, Any]) -> None:
        nonlocal last
        if event["event"] != "progress" or time.monotonic() - last < TRAIN_SECONDS:
            return
        last = time.monotonic()
        note(f"step {event['step']}/{event['n_steps']}  loss {event['loss']:.4f}  {event['tokens_per_second']:,.0f} tokens/s")

    return show


def status(
    target: Annotated[Path, typer.Argument(metavar="SWEEP|DIR", help="A sweep file or a sweep's folder.")],
    watch: Annotated[bool, typer.Option("--watch", help="Stay and follow until no run is in training.")] = False,
    every: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two looks with --watch.")] = 2.0,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Say which runs of a sweep are done, running, failed or missing, the time left, and what it has cost so far."""
    from scaling.execute.folder import SweepFolder
    from scaling.sweepfile import load_sweep

    if not target.exists():
        raise ScalingError("no such file or folder", where=str(target), remedy="name a sweep file, or a folder made by `scaling run`")
    folder = SweepFolder(target) if target.is_dir() else folder_of(load_sweep(target), None)
    if watch and (as_json or as_csv):
        form = "--json" if as_json else "--csv"
        raise ScalingError(f"--watch and {form} exclude each other", remedy=f"call `scaling status {form}` again and again")
    if watch:
        return _watch(_in_training(folder), every)
    from scaling.cli.tables import status_table
    from scaling.execute.status import status as examine

    document = examine(_in_training(folder))
    for warning in document["warnings"]:
        note(f"warning: {warning}")
    if as_csv:
        return print_csv(document["runs"], STATES)
    return print_json(document) if as_json else console().print(status_table(document))


def _in_training(folder: SweepFolder) -> SweepFolder:
    """The folder, or, while a sweep is being tuned and has no plan of its own, that of the field that is tuned now."""
    from scaling.execute.folder import SweepFolder

    stages = sorted((folder.path / "tuning").glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    if not stages or (folder.path / "plan.json").exists():
        return folder
    note(f"{folder.path} is being tuned; this is {stages[-1].parent}")
    return SweepFolder(stages[-1].parent)


def _watch(folder: SweepFolder, every: float) -> None:
    """A table that stays up to date until nobody trains here any more; in a log, a line a minute and the table at the end."""
    from rich.live import Live

    from scaling.cli.tables import status_table
    from scaling.execute.lease import Watch
    from scaling.execute.status import status as examine
    from scaling.quantity import format_seconds

    seen, page, told = Watch(), console(), -math.inf
    document = examine(folder, seen)
    if not animates(page):
        while document["processes"]:
            if time.monotonic() - told > LOG_SECONDS:
                told = time.monotonic()
                counts = ", ".join(f"{count} {name}" for name, count in document["counts"].items() if count)
                note(f"{folder.path}: {counts}" + (f", {format_seconds(document['eta_seconds'])} left" if document["eta_seconds"] else ""))
            time.sleep(every)
            document = examine(folder, seen)
        return page.print(status_table(document))
    with Live(status_table(document), console=page, auto_refresh=False, vertical_overflow="visible") as live:
        while document["processes"]:
            time.sleep(every)
            document = examine(folder, seen)
            live.update(status_table(document), refresh=True)
    return None
