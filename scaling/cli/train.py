"""The command `train`."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scaling.cli.options import ALLOW_CHANGES, OUT, ExecutionOptions
from scaling.cli.output import Output, argument, echo_err, option
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.execute import events

TRAIN_SECONDS = 5.0


def train(
    sweep: Path | None = argument("[SWEEP]", "A sweep file (TOML).", default=None),
    *,
    run_id: str | None = option("The run to train, as `scaling plan` names it.", names="--run"),
    out: Path | None = OUT,
    execution: ExecutionOptions,
    coordinator: str | None = option(
        'Address of process 0 of several hosts, or "auto" inside Slurm or a pod.',
        metavar="HOST:PORT",
    ),
    processes: int | None = option("Processes that train the run together.", min=1, max=2**20),
    process: int | None = option(
        "Index of this process; process 0 writes the results.", min=0, max=2**20
    ),
    allow_changes: bool = ALLOW_CHANGES,
    profile: Path | None = option(
        "Write a trace of some steps to this folder (TensorBoard, Perfetto)."
    ),
    serve: Path | None = option("Serve a coordinator over stdin and stdout.", hidden=True),
    output: Output,
) -> None:
    """Train one run of a sweep in this process, or in several processes, one on each host.

    Example: scaling train sweeps/demo.toml --run 3f2a9c0d1e4b --out results/one
    """
    from scaling.execute import environment, worker
    from scaling.execute.planning import folder_of, plan_sweep
    from scaling.execute.single_run import distributed_process, train_single_run

    hosts = distributed_process(coordinator, processes, process)
    if serve is not None:
        return worker.serve(serve, hosts)
    if sweep is None or run_id is None:
        raise ScalingError(
            "train needs a sweep file and --run RUN_ID",
            remedy="`scaling plan SWEEP` lists the run ids",
        )
    environment.restart_once()
    planned = plan_sweep(sweep, out=out, on_message=echo_err)
    folder = folder_of(planned.sweep, out, sweep)
    outcome = train_single_run(
        planned,
        run_id,
        folder,
        execution.execution(),
        hosts,
        source=str(sweep),
        is_distributed=coordinator is not None,
        allow_changes=allow_changes,
        on_message=echo_err,
        on_event=_progress(),
        profile=profile,
    )
    if outcome.is_first:
        output.emit(
            outcome.to_dict(),
            lambda: f"{run_id}: {outcome.outcome}",
            next_command=f"scaling status {shlex.quote(str(folder.path))}",
        )
    raise typer.Exit(outcome.exit_code)


def _progress() -> events.OnEvent:
    """Prints a line of progress every few seconds."""
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
            + (f"  MFU {event.mfu:.2f}" if event.mfu is not None else "")
        )

    return show
