"""The command `status`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.cli.output import TableOutput, argument, echo_err
from scaling.errors import ScalingError
from scaling.formatting import format_flops, format_seconds

if TYPE_CHECKING:
    from scaling.execute.status import Status
    from scaling.execute.sweep_folder import SweepFolder

SHOWN = 1000  # rows of the table


def status(
    target: Path = argument("SWEEP|DIR", "A sweep file or a sweep's folder."),
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
    status = read_status(_in_training(folder))
    document = status.to_dict()
    output.emit(
        document,
        lambda: status_text(status),
        _next_command(status, folder.path),
        rows=document["runs"],
    )


def _next_command(status: Status, folder: Path) -> str:
    from scaling.execute.sweep_folder import supports_law_fit

    quoted = shlex.quote(str(folder))
    if status.processes:
        return f"scaling report {quoted} --watch"
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


def status_text(status: Status) -> list[object]:
    """What `scaling status` prints; N counts blocks and head, of experts those of a token."""
    from scaling.render.table import record_table

    columns = {
        "run_id": "run",
        "status": "status",
        "n_params_active": "N",
        "tokens": "D",
        "step": "step",
        "loss": "loss",
        "loss_split": "split",
        "attempts": "attempts",
        "reason": "reason",
    }
    counts = ", ".join(f"{count} {name}" for name, count in status.counts.model_dump().items())
    title = f"{status.sweep}: {counts}"
    has_experts = any(run.n_params_active < run.n_params_with_head for run in status.runs)
    parts: list[object] = [
        record_table(
            "status",
            title,
            status.runs,
            max_rows=SHOWN,
            columns=columns,
            text=("split", "reason"),  # in which the first runs may have none
            loss=("loss",),
        ),
        "N: blocks + head" + (", with a token's own experts" if has_experts else ""),
    ]
    return [*parts, *progress_lines(status), *status.warnings]


def progress_lines(status: Status) -> list[str]:
    """Time left, cost and what is in training, a line each."""
    parts = []
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
    return parts
