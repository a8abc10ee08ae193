"""The options of `--executor` and of what it trains."""

from __future__ import annotations

from typing import Annotated

import typer

HostsOfARun = Annotated[
    int,
    typer.Option(
        "--hosts",
        min=1,
        max=4096,
        help="Hosts that train one run together (with --mesh), under Ray or inside a Slurm job.",
    ),
]
Request = Annotated[
    str | None,
    typer.Option(
        "--resources",
        metavar="cpu=1,gpu=1,...",
        help="What Ray keeps for each process; names of your own are allowed.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address", help="A Ray cluster; default RAY_ADDRESS, or the one running here."
    ),
]
WaitForNodes = Annotated[
    bool, typer.Option("--wait-for-nodes", help="Wait for nodes that Ray's autoscaler will add.")
]
SlurmSettings = Annotated[
    str,
    typer.Option(
        "--slurm",
        metavar="KEY=VALUE,...",
        help="Options of sbatch: partition=gpu,time=04:00:00,gpus=1,cpus-per-task=8.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="With --executor slurm: print the batch script and submit nothing."
    ),
]
MaxRuns = Annotated[
    int | None, typer.Option("--max-runs", min=1, help="Train at most this many runs now.")
]
Simulate = Annotated[
    str | None,
    typer.Option(
        metavar="published:NAME",
        help="Train nothing: draw the losses from a published law, to rehearse a sweep.",
    ),
]
