"""Several processes as one machine (`jax.distributed`).

Inside `initialize_distributed`, `jax.devices()` lists the devices of all processes, and every
process must run the same programs in the same order. Process 0 decides and writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from scaling.errors import ScalingError

START_SECONDS = 300
_ALL_THREE = (
    "give --coordinator, --processes and --process; inside Slurm, MPI, Kubernetes or a TPU pod "
    "--coordinator auto alone"
)


@dataclass(frozen=True)
class DistributedConfig:
    """One process among `n_processes`: its `index`, and the `coordinator` (host:port of process 0).

    All three, or none: then jax asks Slurm, MPI, Kubernetes or the TPU's metadata.
    """

    coordinator: str | None = None
    n_processes: int | None = None
    index: int | None = None

    def __post_init__(self) -> None:
        fields = {
            "--coordinator": self.coordinator,
            "--processes": self.n_processes,
            "--process": self.index,
        }
        missing = [name for name, value in fields.items() if value is None]
        if 0 < len(missing) < len(fields):
            what = f"several hosts: missing {' and '.join(missing)}"
            raise ScalingError(what, remedy=_ALL_THREE)
        if self.coordinator is not None and not self.coordinator.rpartition(":")[2].isdigit():
            raise ScalingError(
                f"coordinator {self.coordinator[:80]!r} names no port",
                remedy="write it as host:port, such as 10.0.0.1:8476",
            )
        if (
            self.n_processes is not None
            and self.index is not None
            and not 0 <= self.index < self.n_processes
        ):
            what = f"process {self.index} of {self.n_processes} processes"
            raise ScalingError(
                what, remedy="processes are counted from 0, and each has its own index"
            )


@contextlib.contextmanager
def initialize_distributed(config: DistributedConfig) -> Iterator[None]:
    """Join the processes of a job, before jax's first use; leave them at the end.

    Raises ScalingError if they do not meet.
    """
    count = os.environ.get("SLURM_GPUS_ON_NODE", "")
    is_alone = os.environ.get("SLURM_NTASKS_PER_NODE") == "1"
    if config.coordinator is None and is_alone and count.isdigit():
        # inside Slurm jax gives each process one device; with one process per node it needs all
        os.environ.setdefault("JAX_LOCAL_DEVICE_IDS", ",".join(map(str, range(int(count)))))
    # the service would replace our handler of SIGTERM, and save nothing itself
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.n_processes,
            config.index,
            initialization_timeout=START_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        if config.coordinator is None and isinstance(error, ValueError):
            what = f"several hosts: jax finds no such job here: {str(error).partition(chr(10))[0]}"
            raise ScalingError(what, remedy=_ALL_THREE) from error
        raise ScalingError(
            "the processes did not meet: " + str(error).partition("\n")[0][:200],
            where=f"coordinator {config.coordinator}" if config.coordinator else "several hosts",
            remedy="start every process within 5 minutes with the same coordinator and number of "
            "processes, each with its own index",
        ) from error
    try:
        yield
    finally:
        jax.distributed.shutdown()


def broadcast_from_host0(*numbers: int) -> list[int]:
    """The numbers of process 0 on every process, as int32.

    Every process must call it at the same point.
    """
    flags = np.array(numbers, np.int32)
    if jax.process_count() > 1:
        flags = np.asarray(multihost_utils.broadcast_one_to_all(flags))
    return [int(flag) for flag in flags]


def on_any_process(flag: bool) -> bool:
    """Whether `flag` is true on any process; every process must call it at the same point."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array([flag]))))


def is_first() -> bool:
    """Whether this is process 0: the one that decides, writes and reports."""
    return jax.process_index() == 0
