"""The command `train`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.execution_options import (
    AcceptChanges,
    Coordinator,
    Mesh,
    MicroBatch,
    Process,
    Processes,
    Remat,
    distributed_process,
    execution,
)
from scaling.cli.output import Json, echo_err, print_json
from scaling.errors import RUNS_FAILED, STOPPED, ScalingError

if TYPE_CHECKING:
    from scaling.execute import events
    from scaling.execute.events import OnEvent
    from scaling.execute.sweep_folder import SweepFolder
    from scaling.plan import Plan
from scaling.cli.sweep_options import Out, folder_of, planned_sweep

TRAIN_SECONDS = 5.0


def train(
    sweep: Annotated[
        Path | None, typer.Argument(metavar="[SWEEP]", help="A sweep file (TOML).")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", help="The run to train, as `scaling plan` names it.")
    ] = None,
    out: Out = None,
    mesh: Mesh = None,
    micro_batch: MicroBatch = None,
    remat: Remat = "none",
    coordinator: Coordinator = None,
    processes: Processes = None,
    process: Process = None,
    accept_changes: AcceptChanges = False,
    serve: Annotated[
        Path | None, typer.Option(hidden=True, help="Serve a coordinator over stdin and stdout.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train one run of a sweep in this process, or in several processes, one on each host.

    Example: scaling train sweeps/demo.toml --run 3f2a9c0d1e4b --out results/one
    """
    from scaling.config.run_groups import RunGroup, constant_lr_eval_steps
    from scaling.execute import environment, worker
    from scaling.execute.devices import check_devices
    from scaling.execute.signals import exit_code

    if serve is not None:
        return worker.serve(serve, distributed_process(coordinator, processes, process))
    if sweep is None or run_id is None:
        raise ScalingError(
            "train needs a sweep file and --run RUN_ID",
            remedy="`scaling plan SWEEP` lists the run ids",
        )
    environment.restart_once()
    how = execution(mesh, micro_batch, remat)
    loaded, planned = planned_sweep(sweep, out=out)
    known = {item.run_id: item for item in planned.runs}
    if run_id not in known:
        raise ScalingError(
            f"run {run_id!r} is not in the plan",
            where=str(sweep),
            remedy="`scaling plan SWEEP` lists the run ids",
        )
    folder = folder_of(loaded, out, sweep)
    if coordinator is None:
        check_devices([known[run_id]], how, 1)
    stop = worker.StopFlag()
    with (
        distributed_process(coordinator, processes, process) as first,
        _claimed(folder, planned, run_id, accept_changes, first) as lease,
    ):
        request = worker.TrainRequest(
            sweep=loaded.name,
            group=RunGroup(
                (known[run_id].run,),
                read_at=constant_lr_eval_steps([item.run for item in planned.runs]).get(run_id, ()),
            ),
            execution=how,
            allow_changes=accept_changes,
            lease=lease,
        )
        done = folder.is_finished(run_id)
        kind = (
            "done"
            if done
            else worker.train_group(folder, request, should_stop=stop, on_event=_progress())[run_id]
        )
    document = {
        "run_id": run_id,
        "outcome": kind,
        "file": str(folder.run_file(run_id)),
        "reason": folder.reason(run_id) or None,
    }
    if as_json and first:
        print_json(document)
    elif first:
        typer.echo(f"{run_id}: {kind}")
    raise typer.Exit(
        {"done": 0, "diverged": RUNS_FAILED, "stopped": exit_code(stop.received)}[kind]
    )


@contextmanager
def _claimed(
    folder: SweepFolder, planned: Plan, run_id: str, accept: bool, first: bool
) -> Iterator[str | None]:
    """Hold a run of a folder (on process 0 of several); yields the lease's file. Raises
    ScalingError (75) when another has it.
    """
    from scaling.execute.session import SweepSession

    if not first:
        yield None
        return
    session = SweepSession(folder, planned, echo_err, accept_changes=accept)
    with session.lease as lease:
        session.prepare()
        with lease.locked() as claimed:
            if run_id in claimed:
                what = f"run {run_id} is in training by another process"
                raise ScalingError(
                    what,
                    where=str(folder.path),
                    remedy="watch it with `scaling status`",
                    exit_code=STOPPED,
                )
            lease.claim([run_id])
        yield str(lease.path)


def _progress() -> OnEvent:
    """Prints how a run gets on, one line every few seconds: a long run fills no log."""
    from scaling.execute import events

    last = -math.inf

    def show(event: events.RunEvent) -> None:
        nonlocal last
        if not isinstance(event, events.RunProgress) or time.monotonic() - last < TRAIN_SECONDS:
            return
        last = time.monotonic()
        echo_err(
            f"step {event.step}/{event.n_steps}  train loss {event.loss:.4f}  "
            f"{event.tokens_per_second:,.0f} tokens/s"
        )

    return show
