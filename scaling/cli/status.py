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
    from scaling.execute.status import status as examine

    document = examine(_in_training(folder))
    for warning in document["warnings"]:
        echo_err(f"warning: {warning}")
    if as_csv:
        return print_csv(document["runs"], STATES)
    return print_json(document) if as_json else console().print(status_table(document))


def _in_training(folder: SweepFolder) -> SweepFolder:
    """The folder, or, while a sweep is being tuned and has no plan of its own, that of the field that is tuned now."""
    from scaling.execute.sweep_folder import SweepFolder

    stages = sorted(
        (folder.path / "tuning").glob("*/plan.json"), key=lambda path: path.stat().st_mtime
    )
    if not stages or (folder.path / "plan.json").exists():
        return folder
    echo_err(f"{folder.path} is being tuned; this is {stages[-1].parent}")
    return SweepFolder(stages[-1].parent)


def _watch(folder: SweepFolder, every: float) -> None:
    """A table that stays up to date until nobody trains here any more; in a log, a line a minute and the table at the end."""
    from rich.live import Live

    from scaling.cli.tables import status_table
    from scaling.execute.lease import HeartbeatMonitor
    from scaling.execute.status import status as examine
    from scaling.formatting import format_seconds

    seen, page, told = HeartbeatMonitor(), console(), -math.inf
    document = examine(folder, seen)
    if not is_interactive(page):
        while document["processes"]:
            if time.monotonic() - told > LOG_SECONDS:
                told = time.monotonic()
                counts = ", ".join(
                    f"{count} {name}" for name, count in document["counts"].items() if count
                )
                echo_err(
                    f"{folder.path}: {counts}"
                    + (
                        f", {format_seconds(document['eta_seconds'])} left"
                        if document["eta_seconds"]
                        else ""
                    )
                )
            time.sleep(every)
            document = examine(folder, seen)
        return page.print(status_table(document))
    with Live(
        status_table(document), console=page, auto_refresh=False, vertical_overflow="visible"
    ) as live:
        while document["processes"]:
            time.sleep(every)
            document = examine(folder, seen)
            live.update(status_table(document), refresh=True)
    return None
