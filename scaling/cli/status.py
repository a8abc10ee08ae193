"""The command `status`."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.csv_rows import STATES
from scaling.cli.output import Csv, Json, console, echo_err, is_interactive, print_csv, print_json
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.execute.sweep_folder import SweepFolder
from scaling.cli.sweep_options import folder_of

LOG_SECONDS = 60.0


def status(
    target: Annotated[
        Path, typer.Argument(metavar="SWEEP|DIR", help="A sweep file or a sweep's folder.")
    ],
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep updating until training ends.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.2, max=3600, help="Seconds between updates with --watch.")
    ] = 2.0,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Show which runs are done, running, failed or missing, the time left and the cost so far.

    Example: scaling status results/demo
    """
    from scaling.config.sweep_file import load_sweep
    from scaling.execute.sweep_folder import SweepFolder

    if not target.exists():
        raise ScalingError(
            "no such file or folder",
            where=str(target),
            remedy="name a sweep file, or a folder made by `scaling run`",
        )
    folder = SweepFolder(target) if target.is_dir() else folder_of(load_sweep(target), None, target)
    if watch and (as_json or as_csv):
        form = "--json" if as_json else "--csv"
        raise ScalingError(
            f"--watch and {form} exclude each other",
            remedy=f"call `scaling status {form}` again and again",
        )
    if watch:
        return _watch(_in_training(folder), every)
    from scaling.cli.tables import status_table
    from scaling.execute.status import read_status

    status = read_status(_in_training(folder))
    for warning in status.warnings:
        echo_err(f"warning: {warning}")
    if as_csv:
        return print_csv(status.to_dict()["runs"], STATES)
    return print_json(status.to_dict()) if as_json else console().print(status_table(status))


def _in_training(folder: SweepFolder) -> SweepFolder:
    """The folder, or that of the field that is being tuned while the sweep has no plan yet."""
    from scaling.execute.sweep_folder import SweepFolder

    stages = sorted(
        (folder.path / "tuning").glob("*/plan.json"), key=lambda path: path.stat().st_mtime
    )
    if not stages or (folder.path / "plan.json").exists():
        return folder
    echo_err(f"{folder.path} is being tuned; this is {stages[-1].parent}")
    return SweepFolder(stages[-1].parent)


def _watch(folder: SweepFolder, every: float) -> None:
    """Update the table until no process trains here; in a log, a line per minute and the table at
    the end.
    """
    from rich.live import Live

    from scaling.cli.tables import status_table
    from scaling.execute.lease import HeartbeatMonitor
    from scaling.execute.status import read_status
    from scaling.formatting import format_seconds

    monitor, page, last_line = HeartbeatMonitor(), console(), -math.inf
    status = read_status(folder, monitor)
    if not is_interactive(page):
        while status.processes:
            if time.monotonic() - last_line > LOG_SECONDS:
                last_line = time.monotonic()
                eta = f", {format_seconds(status.eta_seconds)} left" if status.eta_seconds else ""
                echo_err(f"{folder.path}: {status.summary}{eta}")
            time.sleep(every)
            status = read_status(folder, monitor)
        return page.print(status_table(status))
    with Live(
        status_table(status), console=page, auto_refresh=False, vertical_overflow="visible"
    ) as live:
        while status.processes:
            time.sleep(every)
            status = read_status(folder, monitor)
            live.update(status_table(status), refresh=True)
    return None
