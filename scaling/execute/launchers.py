"""The executors: what `--executor` names, and the launcher of worker processes that each one makes."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from scaling.errors import ScalingError
from scaling.execute.local import Launcher, LocalLauncher
from scaling.execute.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from scaling.execute.run_sweep import RunOptions


class Executor(StrEnum):
    """Where runs are trained."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"


def _local(folder: SweepFolder, options: RunOptions) -> Launcher:
    if options.hosts == 1:
        return LocalLauncher(folder.path)
    from scaling.execute.slurm import launch_prefix

    if "SLURM_JOB_ID" not in os.environ:
        raise ScalingError(
            f"--hosts {options.hosts} is for Ray, or for the inside of a Slurm job",
            remedy="add --executor ray, or use --slurm nodes=2",
        )
    return LocalLauncher(
        folder.path, prefix=launch_prefix(options.hosts), arguments=("--coordinator", "auto")
    )


def _ray(folder: SweepFolder, options: RunOptions) -> Launcher:
    from scaling.execute.ray import RayLauncher, Resources, parse_resources

    return RayLauncher(
        folder.path,
        parse_resources(options.resources) if options.resources else Resources(),
        hosts=options.hosts,
        address=options.ray_address,
        wait_for_nodes=options.wait_for_nodes,
        notice=options.on_message,
    )


def _simulated(folder: SweepFolder, options: RunOptions) -> Launcher:
    from scaling.execute.simulated import SimulatedLauncher

    return SimulatedLauncher(folder)


LAUNCHERS: dict[Executor, Callable[[SweepFolder, RunOptions], Launcher]] = {
    Executor.LOCAL: _local,
    Executor.RAY: _ray,
}


def make_launcher(folder: SweepFolder, options: RunOptions) -> Launcher:
    """The launcher of an executor. Raises ScalingError for a cluster that does not answer."""
    if options.simulate is not None:
        return _simulated(folder, options)
    return LAUNCHERS[options.executor](folder, options)
