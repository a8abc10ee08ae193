"""The options that say how runs are carried out, never what they compute."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from scaling.cli.output import choice
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.config import Execution

Rematerialisation = Literal["none", "products", "block"]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        rich_help_panel="Device",
        min=1,
        max=1024,
        help="Parallel processes; default one per core, or one on a GPU.",
    ),
]
Mesh = Annotated[
    str | None,
    typer.Option(
        "--mesh",
        rich_help_panel="Device",
        metavar="AXIS=N,...",
        help="Devices that share a run: data=2,fsdp=4,tensor=1. Default one device.",
    ),
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        "--micro-batch",
        rich_help_panel="Device",
        min=1,
        max=2**24,
        help="Sequences processed at a time; gradients are summed over the batch.",
    ),
]
Remat = Annotated[
    str,
    choice(
        "--remat",
        get_args(Rematerialisation),
        "Rematerialisation: products saves matmul outputs, block saves block inputs only.",
        "Device",
        kind="way of rematerialisation",
    ),
]
Pack = Annotated[
    str,
    typer.Option(
        "--pack",
        rich_help_panel="Device",
        metavar="auto|N",
        help="vmap several runs of one shape into one program: auto (small runs on an accelerator) or at most N.",
    ),
]
Coordinator = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help='Address of process 0 of several hosts, or "auto" inside Slurm or a pod.',
    ),
]
Processes = Annotated[
    int | None, typer.Option(min=1, max=2**20, help="Processes that train the run together.")
]
Process = Annotated[
    int | None,
    typer.Option(min=0, max=2**20, help="Index of this process; process 0 writes the results."),
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        "--accept-other-machine",
        help="Continue although code, corpus, versions, threads or devices have changed.",
    ),
]
MAX_PACK = 4096


def execution(mesh: str | None, micro_batch: int | None, remat: str) -> Execution:
    """The options as an `Execution`. Raises ScalingError naming the option."""
    from scaling.config import Execution, MeshShape
    from scaling.config.mesh import parse_mesh

    shape = parse_mesh(mesh) if mesh else MeshShape()
    return Execution.model_validate({"mesh": shape, "micro_batch": micro_batch, "remat": remat})


def parse_pack(text: str) -> int | Literal["auto"]:
    """`--pack` as "auto" or a number of runs. Raises ScalingError for anything else."""
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MAX_PACK):
        raise ScalingError(
            f"--pack = {text[:40]!r} is not a number of runs",
            remedy=f'write "auto", or a number from 1 to {MAX_PACK}',
        )
    return int(text)


@contextlib.contextmanager
def distributed_process(
    coordinator: str | None, processes: int | None, process: int | None
) -> Iterator[bool]:
    """Join the processes of one run while inside; yields whether this is the one that writes."""
    if coordinator is None and processes is None and process is None:
        yield True
        return
    from scaling.train.distributed import DistributedConfig, initialize_distributed, is_first

    settings = (
        DistributedConfig()
        if (coordinator, processes, process) == ("auto", None, None)
        else DistributedConfig(coordinator, processes, process)
    )
    with _redirect_stdout(), initialize_distributed(settings):
        yield is_first()


@contextlib.contextmanager
def _redirect_stdout() -> Iterator[None]:
    """Send what libraries print to file descriptor 1 (gloo names its peers) to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
