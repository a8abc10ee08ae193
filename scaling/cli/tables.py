"""Tables of plans and states for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from scaling.cli.expected_precision import expectation_lines
from scaling.formatting import format_bytes, format_count, format_flops, format_seconds
from scaling.render.rich_table import WrappingTable

if TYPE_CHECKING:
    from scaling.execute.status import Status

SHOWN = 1000  # runs that a table lists: a hundred thousand take minutes to lay out
COLOURS = {"done": "green", "running": "cyan", "failed": "red", "missing": "dim"}


def table(title: str, *columns: str, numbers: bool = True) -> Table:
    """An empty table in the common style: thin, numbers to the right; on a narrow terminal,
    one paragraph per row.
    """
    rows = WrappingTable(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(columns):
        rows.add_column(
            column,
            justify="right" if numbers and index else "left",
            no_wrap=index == 0,
            header_style="bold",
        )
    return rows


def plan_table(document: dict[str, Any]) -> Group:
    """What `scaling plan` prints: the runs, the infeasible cells with their reasons, the totals."""
    head = (
        f"{document['sweep']}: {len(document['runs'])} runs, {format_flops(document['flops'])} "
        "FLOPs"
    )
    runs = table(
        head,
        "run",
        "N (total, non-emb)",
        "shape",
        "D",
        "D/N",
        "C",
        "batch",
        "lr",
        "steps",
        "time",
        "memory",
    )
    for entry in document["runs"][:SHOWN]:
        runs.add_row(*_plan_cells(entry))
    parts: list[Any] = [
        runs,
        *(
            [Text(f"... and {len(document['runs']) - SHOWN:,} more (--json lists all)")]
            if len(document["runs"]) > SHOWN
            else []
        ),
        Text(
            "N: blocks and head (with_head), then total and non-embedding; shape: layers x "
            "width; C: exact FLOPs; batch in tokens",
            style="dim",
        ),
    ]
    if document["merged"]:
        parts.append(
            Text(
                f"{document['merged']} cells fell together with another: the nearest buildable "
                "model is the same"
            )
        )
    if document["shared_prefixes"]:
        share = document["flops"] / document["flops_alone"]
        text = (
            f"{document['shared_prefixes']} shared prefixes serve several budgets each: {share:.0%} of the "
            f"{format_flops(document['flops_alone'])} FLOPs of runs alone"
        )
        parts.append(Text(text))
    if "device" in document:
        parts.append(_fitting(document))
    if document["infeasible"]:
        infeasible = table(
            f"\ninfeasible: {len(document['infeasible'])} cells", "cell", "reason", numbers=False
        )
        for item in document["infeasible"][:40]:
            infeasible.add_row(item["cell"], escape(item["reason"]))
        parts.append(infeasible)
        if len(document["infeasible"]) > 40:
            parts.append(
                Text(f"... and {len(document['infeasible']) - 40} more (--json lists all)")
            )
    if document["seconds"] is not None:
        workers, wall = document["workers"], format_seconds(document["wall_seconds"])
        parts.append(
            Text(
                f"\nabout {format_seconds(document['seconds'])} of training, {wall} with "
                f"{workers} worker(s)"
            )
        )
    return Group(
        *parts, *(expectation_lines(document["expected"]) if "expected" in document else [])
    )


def _fitting(document: dict[str, Any]) -> Any:
    """Whether the runs fit the device: a line, or the runs that do not with what would make them
    fit.
    """
    large = [entry for entry in document["runs"] if not entry["fits"]]
    capacity = format_bytes(document["runs"][0]["device_memory_bytes"])
    if not large:
        return Text(f"every run fits {document['device']}: {capacity} can be used")
    rows = table(
        f"\n{len(large)} of {len(document['runs'])} runs do not fit {document['device']}: "
        f"{capacity} can be used",
        "run",
        "needs",
        "fits with",
    )
    rows.columns[2].justify = "left"
    for entry in large[:40]:
        rows.add_row(
            entry["run_id"],
            format_bytes(entry["memory_bytes"]),
            entry["remedy"] or "nothing: a smaller model or batch",
        )
    if len(large) > 40:
        rows.add_row("...", f"{len(large) - 40} more", "(--json lists all)")
    return rows


def _plan_cells(entry: dict[str, Any]) -> list[str]:
    return [
        entry["run_id"],
        " ".join(
            format_count(entry[name])
            for name in ("n_params_with_head", "n_params", "n_params_nonembedding")
        ),
        f"{entry['n_layers']}x{entry['d_model']}",
        format_count(entry["tokens"]),
        f"{entry['tokens_per_param']:.3g}",
        format_flops(entry["flops"]),
        str(entry["batch_tokens"]),
        f"{entry['lr']:.2e}",
        str(entry["n_steps"]),
        format_seconds(entry["seconds"]) if entry["seconds"] is not None else "-",
        format_bytes(entry["memory_bytes"]),
    ]


def status_table(status: Status) -> Group:
    """What `scaling status` prints; N counts blocks and head."""
    counts = ", ".join(f"{count} {name}" for name, count in status.counts.model_dump().items())
    runs = table(
        f"{escape(status.sweep)}: {counts}",
        "run",
        "status",
        "N",
        "D",
        "step",
        "val loss",
        "train loss",
        "attempts",
        "reason",
    )
    for run in status.runs[:SHOWN]:
        loss = f"{run.loss:.4f}" if run.loss is not None else ""
        runs.add_row(
            run.run_id,
            Text(run.status, style=COLOURS[run.status]),
            format_count(run.n_params_with_head),
            format_count(run.tokens),
            str(run.step or ""),
            loss if run.loss_split == "val" else "",
            loss if run.loss_split == "train" else "",
            str(run.attempts or ""),
            escape(run.reason or ""),
        )
    parts: list[Any] = [runs, Text("N: blocks + head")]
    if len(status.runs) > SHOWN:
        parts.append(Text(f"... and {len(status.runs) - SHOWN:,} more (--json lists all)"))
    if status.eta_seconds:
        parts.append(Text(f"time left: {format_seconds(status.eta_seconds)}"))
    cost = status.cost
    if cost.flops:
        spent = (
            f"{format_flops(cost.flops)} FLOPs in {format_seconds(cost.worker_seconds)} "
            "of all workers"
        )
        parts.append(
            Text(f"cost so far: {spent}; planned {format_flops(cost.planned_flops)} FLOPs")
        )
    if status.processes:
        parts.append(Text(f"training now: {', '.join(status.processes)}"))
    if status.simulated:
        parts.append(Text(f"simulated from {status.simulated}: nothing was trained"))
    if status.no_longer_planned:
        n_runs = len(status.no_longer_planned)
        parts.append(
            Text(f"{n_runs} finished runs are kept that the sweep file no longer asks for")
        )
    return Group(*parts)
