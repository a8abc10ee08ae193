"""The options of `--executor` and of what it trains."""

from __future__ import annotations

from typing import Annotated

import typer

HostsOfARun = Annotated[
    int,
    typer.Option(
        "--hosts",
        rich_help_panel="Cluster",
        min=1,
        max=4096,
        help="Hosts that train one run together (with --mesh), under Ray or inside a Slurm job.",
    ),
]
Request = Annotated[
    str | None,
    typer.Option(
        "--resources",
        rich_help_panel="Cluster",
        metavar="cpu=1,gpu=1,...",
        help="Ray resources per process, your own names too, e.g. cpu=1,gpu=1.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        rich_help_panel="Cluster",
        help="A Ray cluster; default RAY_ADDRESS, or the one running here.",
    ),
]
WaitForNodes = Annotated[
    bool,
    typer.Option(
        "--wait-for-nodes",
        rich_help_panel="Cluster",
        help="Wait for nodes that Ray's autoscaler will add.",
    ),
]
SlurmSettings = Annotated[
    str,
    typer.Option(
        "--slurm",
        rich_help_panel="Cluster",
        metavar="KEY=VALUE,...",
        help="Options of sbatch, such as partition=gpu,gpus=1.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        rich_help_panel="Cluster",
        help="With --executor slurm: print the batch script and submit nothing.",
    ),
]
MaxRuns = Annotated[
    int | None,
    typer.Option(
        "--max-runs",
        rich_help_panel="Budget",
        min=1,
        help="Train at most this many runs now.",
    ),
]
Simulate = Annotated[
    str | None,
    typer.Option(
        metavar="published:NAME",
        help="Dry-run the sweep on losses of a published law; nothing is trained.",
    ),
]
