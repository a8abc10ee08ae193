"""The options that say how runs are carried out, never what they compute."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.output import echo_err
from scaling.errors import ScalingError, unknown_choice

if TYPE_CHECKING:
    from scaling.config import Execution, RunConfig
    from scaling.execute.packing import Packing

Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        max=1024,
        help="Processes side by side; default one a core, one on a GPU.",
    ),
]
Mesh = Annotated[
    str | None,
    typer.Option(
        "--mesh",
        metavar="AXIS=N,...",
        help="Devices that share a run: data=2,fsdp=4,tensor=1. Default one device.",
    ),
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        "--micro-batch",
        min=1,
        max=2**24,
        help="Sequences processed at a time; gradients are summed over the batch.",
    ),
]
Remat = Annotated[
    str,
    typer.Option(
        "--remat",
        help="Activations computed again instead of kept: none, products (all but matrix products), block.",
    ),
]
Pack = Annotated[
    str,
    typer.Option(
        "--pack",
        metavar="auto|N",
        help="Runs of one shape in one program: as many as a trial says, or at most N.",
    ),
]
Coordinator = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help='Several hosts train one run: where process 0 listens, or "auto" inside Slurm or a pod.',
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
        help="Go on though code, corpus, versions, threads or devices have changed.",
    ),
]
LAYOUTS = ("none", "products", "block")
MAX_PACK = 4096


def execution(mesh: str | None, micro_batch: int | None, remat: str) -> Execution:
    """The options as an `Execution`. Raises ScalingError naming the option."""
    from scaling.config import Execution, MeshShape
    from scaling.config.mesh import parse_mesh

    if remat not in LAYOUTS:
        raise unknown_choice("way of rematerialisation", remat, LAYOUTS, where="--remat")
    shape = parse_mesh(mesh) if mesh else MeshShape()
    return Execution.model_validate({"mesh": shape, "micro_batch": micro_batch, "remat": remat})


def default_workers(workers: int | None, how: Execution) -> int:
    """Processes side by side: as asked, one where devices share a run, else one a core or accelerator."""
    from scaling.execute import environment

    if how.mesh.n_devices > 1:
        if workers and workers > 1:
            raise ScalingError(
                f"{workers} workers and a mesh exclude each other",
                where="--workers",
                remedy="one process drives all devices",
            )
        return 1
    return workers or environment.default_workers()


def check_pack(pack: str) -> None:
    """Raise ScalingError where `--pack` is neither "auto" nor a number of runs."""
    if pack != "auto" and not (
        pack.isascii() and pack.isdigit() and 1 <= int(pack[:6]) <= MAX_PACK and len(pack) < 6
    ):
        raise ScalingError(
            f"--pack = {pack[:40]!r} is not a number of runs",
            remedy=f'write "auto", or a number from 1 to {MAX_PACK}',
        )


def packing(
    pack: str, runs: Sequence[RunConfig], workers: int, how: Execution, kept: Path
) -> Packing:
    """The packs that `--pack` asks for; `auto` takes the choices that the sweep has `kept`, or times them and keeps them.

    Raises ScalingError for a size that is none, or a pack on a mesh.
    """
    from scaling.execute.packing import Packing, fixed, measure_packs, read

    if pack == "auto":
        chosen = read(kept) if kept.exists() else measure_packs(runs, workers, how, echo_err)
        if chosen.choices:
            chosen.write(kept)
        return chosen
    check_pack(pack)
    if int(pack) > 1 and how.mesh.n_devices > 1:
        raise ScalingError(
            f"a pack of {pack} runs and a mesh exclude each other",
            where="--pack",
            remedy="leave out one of the two",
        )
    return fixed(runs, int(pack)) if int(pack) > 1 else Packing()


@contextlib.contextmanager
def distributed_process(
    coordinator: str | None, processes: int | None, process: int | None
) -> Iterator[bool]:
    """Be one of several processes while inside, if so asked; says whether this is the one that writes."""
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
    """What libraries print below Python's feet (gloo names its peers) goes to stderr: stdout is for the document."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
