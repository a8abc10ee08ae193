"""The launcher of worker processes that each executor makes."""

from __future__ import annotations

from collections.abc import Callable

from scaling.execute.local import Launcher, LocalLauncher
from scaling.execute.options import Executor, RunOptions
from scaling.execute.sweep_folder import SweepFolder


def _local(folder: SweepFolder, options: RunOptions) -> Launcher:
    if options.hosts == 1:
        return LocalLauncher(folder.path)
    from scaling.execute.slurm import launch_prefix

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
