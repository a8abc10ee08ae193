"""The command `plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.csv_rows import PLANNED, ROOM
from scaling.cli.device_options import DeviceName, annotate, room_of
from scaling.cli.execution_options import (
    Mesh,
    MicroBatch,
    Remat,
    Workers,
    execution,
)
from scaling.cli.expected_precision import LawFrom, Noise, Target, expectation
from scaling.cli.output import Csv, Json, console, echo_err, print_csv, print_json

if TYPE_CHECKING:
    pass
from scaling.cli.sweep_options import Overrides, SweepPath, planned_sweep


def plan(
    sweep: SweepPath,
    overrides: Overrides = None,
    workers: Workers = None,
    probe: Annotated[
        bool, typer.Option(help="Time a few shapes on this machine to estimate seconds (cached).")
    ] = True,
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
    """Show every run with N, D, C, batch, learning rate, steps, seconds and memory; trains nothing.

    Also shows the intervals that a fit of these runs is expected to have.

    Example: scaling plan sweeps/demo.toml

    Example: scaling plan sweeps/demo.toml optim.lr=3e-3 'design.budgets=[3e10,1e11]' --no-probe
    """
    from scaling.cli.tables import plan_document, plan_table
    from scaling.execute.devices import check_mesh, resolve_workers
    from scaling.execute.timing import measure_speed

    how = execution(mesh, micro_batch, remat)
    count = resolve_workers(workers, how)
    room = room_of(device, count) if device else None
    _, planned = planned_sweep(sweep, overrides=overrides or ())
    check_mesh(planned.runs, how)
    if probe:
        echo_err("timing a few shapes on this machine (cached afterwards; --no-probe skips it) ...")
    speed = measure_speed(planned.runs, count, how) if probe else None
    document = annotate(plan_document(planned, speed, count), planned.runs, how, room)
    if planned.sweep.supports_law_fit or target is not None:
        document["expected"] = expectation(planned, target, law_from, noise)
    if as_json:
        return print_json(document)
    if as_csv:
        echo_err(
            f"{len(document['runs'])} runs; {len(document['refused'])} cells refused (--json gives the reasons)"
        )
        return print_csv(document["runs"], PLANNED + (ROOM if room else ()))
    return console().print(plan_table(document))
