"""The command `report`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import typer

from scaling.cli.output import Output, argument, choice, flag, option
from scaling.cli.status import progress_lines
from scaling.errors import ScalingError
from scaling.formatting import format_flops


def report(
    source: list[Path] = argument(
        "DIR|FIT.json...",
        "A results folder, fits of one sweep, or several sweeps to compare with the first.",
    ),
    out: Path | None = option(
        "Folder to write; default DIR/report, FIT-report, or ./comparison for several sweeps.",
        "Output",
        "DIR",
    ),
    force: bool = flag("Replace a report of other sources in --out.", "Output"),
    budgets: str | None = option(
        "Budgets (of the first sweep) at which to report the compute multiplier.", metavar="C,..."
    ),
    models: bool = flag("Draw published laws and named models with the frontier of this fit."),
    style: str = choice(
        "screen paper",
        "paper: text kept as text, 9 points, 300 dots per inch, one column wide.",
        "Output",
        default="screen",
    ),
    width: float | None = option(
        "Width of the figures; 3.25 for paper.", "Output", "INCHES", min=1.0, max=20.0
    ),
    watch: bool = flag(
        "Serve a page on this machine that follows the sweep; writes no file. Ctrl-C ends it.",
        "While it trains",
    ),
    port: int = option(
        "Port of the page with --watch; 0 takes a free one.",
        "While it trains",
        min=0,
        max=65535,
        default=8765,
    ),
    *,
    output: Output,
) -> None:
    """Write index.html (self-contained), report.md, figures and tables.

    Several sweeps are compared: do their laws differ, and how much compute does one need for the
    loss of another?

    Example: scaling report results/demo

    Example: scaling report results/demo --style paper --width 3.25 --models

    Example: scaling report results/demo --watch

    Example: scaling report results/base results/longer --out comparison --budgets 1e13,1e14
    """
    from scaling import files
    from scaling.units import flops_option

    if watch:
        if (
            len(source) > 1
            or out
            or force
            or budgets
            or output.as_json
            or style != "screen"
            or width
        ):
            raise ScalingError(
                "follows one sweep and writes no files",
                where="--watch",
                remedy="scaling report DIR --watch, with --port and --models alone",
            )
        return _watch(source[0], port, models)
    from scaling.render.matplotlib_backend import Style
    from scaling.report.inputs import is_comparison
    from scaling.report.page import COMPARISON, write_report

    flops = [flops_option(part, "--budgets") for part in (budgets or "").split(",") if part]
    if any(budget < 1 for budget in flops):
        raise ScalingError(
            "a budget is at least one FLOP", where="--budgets", remedy="write --budgets 1e13,10T"
        )
    figures = Style(style, width)  # type: ignore[arg-type]
    page = write_report(source, out, budgets=flops, style=figures, models=models, force=force)
    document: dict[str, Any] = {"report": str(page), "folder": str(page.parent)}
    if output.as_json and is_comparison(source):
        document["comparison"] = files.read_json(page.parent / f"{COMPARISON}.json")
    return output.emit(
        document,
        lambda: f"report: {page}",
        next_command=None if is_comparison(source) else _next_command(source[0]),
    )


def _watch(folder: Path, port: int, models: bool) -> None:
    """Serve the report of a folder, with its status on top, until Ctrl-C."""
    from scaling.execute.lease import Heartbeats
    from scaling.execute.status import read_status
    from scaling.execute.sweep_folder import SweepFolder
    from scaling.report.watch import HOST, LiveReport, bind, follow

    if not folder.is_dir():
        raise ScalingError(
            "no such folder",
            where=folder,
            remedy="name the folder of a sweep that `scaling run` trains or has trained",
        )
    sweep, seen = SweepFolder(folder), Heartbeats()
    budget = 10 * max(run.flops for run in sweep.read_plan().runs)

    def status_lines() -> list[str]:
        status = read_status(sweep, seen)
        running = [run for run in status.runs if run.status == "running" and run.loss is not None]
        return [
            f"{status.summary} of {len(status.runs)} runs",
            *progress_lines(status),
            *(f"{run.run_id}: step {run.step:,}, train loss {run.loss:.4f}" for run in running),
        ]

    live = LiveReport(folder, budget, models)
    with bind(live, port) as server:
        live.refresh(status_lines())
        typer.echo(f"http://{HOST}:{server.server_port}   (Ctrl-C ends it)")
        follow(server, live, status_lines)


def _next_command(source: Path) -> str | None:
    """A prediction of the page's fit at ten times its largest budget, or a fit where there is none
    and can be one.
    """
    from scaling.execute.sweep_folder import supports_law_fit
    from scaling.fit.result import FitResult, fit_paths

    path = source if source.is_file() else next(iter(fit_paths(source)), None)
    if path is None:
        return f"scaling fit {shlex.quote(str(source))}" if supports_law_fit(source) else None
    fit = FitResult.load(path)
    if "flops" not in fit.range or "a" not in fit.derived:
        return None
    budget = format_flops(10 * fit.range["flops"][1])
    return f"scaling predict {shlex.quote(str(path))} --flops {budget}"
