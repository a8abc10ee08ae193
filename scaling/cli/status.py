"""The command `status`."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.cli.output import (
    TableOutput,
    argument,
    console,
    echo_err,
    flag,
    is_interactive,
    option,
    page,
)
from scaling.errors import ScalingError
from scaling.formatting import format_flops, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scaling.execute.status import Status
    from scaling.execute.sweep_folder import SweepFolder

LOG_SECONDS = 60.0
SHOWN = 1000  # rows of the table
STYLES = {"done": "green", "running": "cyan", "failed": "red", "missing": "dim"}


def status(
    target: Path = argument("SWEEP|DIR", "A sweep file or a sweep's folder."),
    watch: bool = flag("Keep updating until training ends."),
    every: float = option("Seconds between updates with --watch.", min=0.2, max=3600, default=2.0),
    *,
    output: TableOutput,
) -> None:
    """Show which runs are done, running, failed or missing, the time left and the cost so far.

    Example: scaling status results/demo
    """
    from scaling.config.sweep_file import load_sweep
    from scaling.execute.planning import folder_of
    from scaling.execute.status import read_status
    from scaling.execute.sweep_folder import SweepFolder

    if not target.exists():
        raise ScalingError(
            "no such file or folder",
            where=target,
            remedy="name a sweep file, or a folder made by `scaling run`",
        )
    folder = SweepFolder(target) if target.is_dir() else folder_of(load_sweep(target), None, target)
    if watch and (output.as_json or output.as_csv):
        form = "--json" if output.as_json else "--csv"
        raise ScalingError(
            f"--watch and {form} exclude each other",
            remedy=f"call `scaling status {form}` again and again",
        )
    if watch:
        return _watch(_in_training(folder), every)
    status = read_status(_in_training(folder))
    for warning in status.warnings:
        echo_err(f"warning: {warning}")
    return output.emit(
        status.to_dict() | ({} if output.as_json else {"warnings": []}),  # printed already
        lambda: status_text(status),
        rows=lambda: status.to_dict()["runs"],
        next_command=_next_command(status, folder.path),
    )


def _next_command(status: Status, folder: Path) -> str:
    from scaling.execute.sweep_folder import supports_law_fit

    quoted = shlex.quote(str(folder))
    if status.processes:
        return f"scaling status {quoted} --watch"
    if status.counts.missing or status.counts.failed:
        simulated = f" --simulate {status.simulated}" if status.simulated else ""
        return f"scaling run {shlex.quote(str(folder / 'sweep.toml'))}{simulated}"
    return f"scaling {'fit' if supports_law_fit(folder) else 'report'} {quoted}"


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

    from scaling.execute.lease import HeartbeatMonitor
    from scaling.execute.status import read_status

    monitor, terminal, last_line = HeartbeatMonitor(), console(), -math.inf
    status = read_status(folder, monitor)
    if not is_interactive(terminal):
        while status.processes:
            if time.monotonic() - last_line > LOG_SECONDS:
                last_line = time.monotonic()
                eta = f", {format_seconds(status.eta_seconds)} left" if status.eta_seconds else ""
                echo_err(f"{folder.path}: {status.summary}{eta}")
            time.sleep(every)
            status = read_status(folder, monitor)
        return terminal.print(status_text(status))
    with Live(
        status_text(status), console=terminal, auto_refresh=False, vertical_overflow="visible"
    ) as live:
        while status.processes:
            time.sleep(every)
            status = read_status(folder, monitor)
            live.update(status_text(status), refresh=True)
    return None


def status_text(status: Status) -> RenderableType:
    """What `scaling status` prints; N counts blocks and head, of experts those of a token."""
    from scaling.render.table import Column, Table

    columns = (
        Column("run"),
        Column("status", styles=STYLES),
        Column("N", "count"),
        Column("D", "count"),
        Column("step", "integer"),
        Column("val loss", "number"),
        Column("train loss", "number"),
        Column("attempts", "integer"),
        Column("reason"),
    )
    has_experts = any(run.n_params_active < run.n_params_with_head for run in status.runs)
    rows = []
    for run in status.runs:
        loss = "" if run.loss is None else f"{run.loss:.4f}"
        rows.append(
            (
                run.run_id,
                run.status,
                run.n_params_active,
                run.tokens,
                run.step or "",
                loss if run.loss_split == "val" else "",
                loss if run.loss_split == "train" else "",
                run.attempts or "",
                run.reason or "",
            )
        )
    counts = ", ".join(f"{count} {name}" for name, count in status.counts.model_dump().items())
    parts: list[object] = [
        Table("status", f"{status.sweep}: {counts}", columns, tuple(rows), max_rows=SHOWN),
        "N: blocks + head" + (", with a token's own experts" if has_experts else ""),
    ]
    if status.eta_seconds:
        parts.append(f"time left: {format_seconds(status.eta_seconds)}")
    cost = status.cost
    if cost.flops:
        parts.append(
            f"cost so far: {format_flops(cost.flops)} FLOPs in "
            f"{format_seconds(cost.worker_seconds)} of all workers; planned "
            f"{format_flops(cost.planned_flops)} FLOPs"
        )
    if status.processes:
        pace = f" ({status.pace})" if status.pace else ""
        parts.append(f"training now: {', '.join(status.processes)}{pace}")
    if status.simulated:
        parts.append(f"simulated from {status.simulated}: nothing was trained")
    if status.no_longer_planned:
        n_runs = len(status.no_longer_planned)
        parts.append(f"{n_runs} finished runs are kept that the sweep file no longer asks for")
    return page(*parts)
