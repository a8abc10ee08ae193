"""The command `plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.csv_rows import DEVICE_FIT, PLANNED
from scaling.cli.device_options import DeviceName, device_memory
from scaling.cli.execution_options import (
    Mesh,
    MicroBatch,
    Remat,
    Workers,
    execution,
)
from scaling.cli.expected_precision import LawFrom, Noise, Target, expectation
from scaling.cli.output import Csv, Json, echo_err, emit

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
    from scaling.cli.tables import plan_table
    from scaling.execute.devices import check_mesh, resolve_workers
    from scaling.execute.timing import measure_speed
    from scaling.plan.document import plan_document

    how_to_run = execution(mesh, micro_batch, remat)
    n_workers = resolve_workers(workers, how_to_run)
    memory = device_memory(device, n_workers) if device else None
    _, planned = planned_sweep(sweep, overrides=overrides or ())
    check_mesh(planned.runs, how_to_run)
    if probe:
        echo_err("timing a few shapes on this machine (cached afterwards; --no-probe skips it) ...")
    speed = measure_speed(planned.runs, n_workers, how_to_run) if probe else None
    has_law = planned.sweep.supports_law_fit or target is not None
    document = plan_document(
        planned,
        speed,
        n_workers,
        execution=how_to_run,
        device=memory,
        expected=expectation(planned, target, law_from, noise) if has_law else None,
    ).to_dict()
    if as_csv:
        n_runs, n_infeasible = len(document["runs"]), len(document["infeasible"])
        echo_err(f"{n_runs} runs; {n_infeasible} infeasible cells (--json gives the reasons)")
    emit(
        {key: value for key, value in document.items() if not (as_csv and key == "warnings")},
        lambda: plan_table(document),
        as_json=as_json,
        as_csv=as_csv,
        rows=lambda: document["runs"],
        columns=PLANNED + (DEVICE_FIT if memory else ()),
    )
