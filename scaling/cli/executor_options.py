"""The options of the engines, and what each of them becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.execution_options import default_workers
from scaling.cli.output import echo_err, print_json
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.config import Execution
    from scaling.execute.lease import Lease
    from scaling.execute.local import Launcher
    from scaling.execute.sweep_folder import SweepFolder
    from scaling.plan import Plan

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


@dataclass(frozen=True)
class Engine:
    """How many workers it can hold (None: as many as the machine has cores or devices), and how it is opened for a lease."""

    open: Callable[[int], Callable[[Lease], Launcher]]
    slots: int | None = None


def launcher(
    executor: str,
    folder: SweepFolder,
    *,
    hosts: int,
    resources: str | None,
    address: str | None,
    wait: bool,
    simulated: str | None,
) -> Engine:
    """The engine that the options ask for. Raises ScalingError for options of another engine, or a cluster that is not there."""
    if executor != "ray" and (resources or address or wait):
        raise ScalingError(
            "--resources, --ray-address and --wait-for-nodes are for Ray",
            remedy="add --executor ray, or leave them out",
        )
    if simulated is not None:
        return Engine(lambda count: lambda lease: _simulated(folder), 1)
    if executor == "ray":
        return _on_ray(folder, hosts, resources, address, wait)
    return Engine(lambda count: lambda lease: _local(folder, count, hosts, lease))


def _simulated(folder: SweepFolder) -> Launcher:
    from scaling.execute.simulated import SimulatedLauncher

    return SimulatedLauncher(folder)


def _local(folder: SweepFolder, workers: int, hosts: int, lease: Lease) -> Launcher:
    from scaling.execute.local import LocalLauncher

    if hosts == 1:
        return LocalLauncher(folder.path, lease.name, workers, inherited=[lease.lock_fd])
    from scaling.execute.slurm import launch_prefix

    arguments = ("--coordinator", "auto")
    return LocalLauncher(
        folder.path,
        lease.name,
        workers,
        inherited=[lease.lock_fd],
        prefix=launch_prefix(hosts),
        arguments=arguments,
    )


def _on_ray(
    folder: SweepFolder, hosts: int, resources: str | None, address: str | None, wait: bool
) -> Engine:
    from scaling.execute.ray import RayLauncher, Resources, parse_resources

    folder.path.mkdir(parents=True, exist_ok=True)
    asked = parse_resources(resources) if resources else Resources()
    opened = RayLauncher(
        folder.path, asked, hosts=hosts, address=address, wait_for_nodes=wait, notice=echo_err
    )

    def named(lease: Lease) -> Launcher:
        opened.name = lease.name
        return opened

    return Engine(lambda count: named, max(1, opened.slots()))


def default_engine_workers(workers: int | None, how: Execution, engine: Engine) -> int:
    """Workers side by side: as asked, as many as the engine can hold, else one a core or accelerator."""
    if engine.slots is not None:
        return workers or engine.slots
    return default_workers(workers, how)


def submit(
    folder: SweepFolder,
    planned: Plan,
    elements: int | None,
    settings: str,
    dry_run: bool,
    as_json: bool,
    options: Sequence[str],
) -> None:
    """Write the batch script of a Slurm array, and hand it to sbatch unless it is only asked for."""
    from scaling.execute import slurm
    from scaling.execute.session import origin

    chosen = slurm.parse_settings(settings) if settings else {}
    hosts = [] if slurm.nodes(chosen) == 1 else ["--hosts", str(slurm.nodes(chosen))]
    job = slurm.Job(
        planned.sweep.name, folder.path, elements or 1, chosen, (*options, *hosts), Path.cwd()
    )
    text = slurm.script(job)
    if dry_run:
        return print_json({"script": text, "job_id": None}) if as_json else typer.echo(text)
    slurm.find_sbatch()  # before anything is written
    folder.check_same_sweep(planned.sweep)
    folder.write_plan(planned, origin(planned))
    job_id = slurm.submit(folder.path, text)
    document: dict[str, Any] = {
        "job_id": job_id,
        "elements": job.elements,
        "script": str(folder.path / slurm.SCRIPT),
    }
    if as_json:
        return print_json(document)
    return typer.echo(
        f"{folder.path}: job {job_id} with {job.elements} elements; watch it with: scaling status {folder.path} --watch"
    )
