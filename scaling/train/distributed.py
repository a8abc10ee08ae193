"""Several processes as one machine: they join before jax looks for devices, and agree on what only one of them knows.

After `joined` has begun, `jax.devices()` lists the devices of all processes, and every process must run the same programs
in the same order. Process 0 decides and writes.
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


@dataclass(frozen=True)
class DistributedConfig:
    """One process among `n_processes`: its `index`, and the `coordinator` (host:port, which process 0 opens).

    All three, or none of them: then jax asks Slurm, MPI, Kubernetes or the TPU's metadata.
    """

    coordinator: str | None = None
    n_processes: int | None = None
    index: int | None = None

    def __post_init__(self) -> None:
        given = {
            "coordinator": self.coordinator,
            "number of processes": self.n_processes,
            "index of this process": self.index,
        }
        missing = [name for name, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            remedy = "give all three, or none inside Slurm, MPI, Kubernetes or a TPU pod"
            raise ScalingError(
                f"several hosts: the {' and the '.join(missing)} is missing", remedy=remedy
            )
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
def initialize_distributed(hosts: DistributedConfig) -> Iterator[None]:
    """Be one of the processes of a job, from before jax's first use to the end. Raises ScalingError where they do not meet."""
    _own_all_devices(hosts)
    jax.config.update(
        "jax_enable_preemption_service", False
    )  # it would take our handler of SIGTERM, and save nothing itself
    try:
        jax.distributed.initialize(
            hosts.coordinator, hosts.n_processes, hosts.index, initialization_timeout=START_SECONDS
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        where = f"coordinator {hosts.coordinator}" if hosts.coordinator else "several hosts"
        remedy = "start every process within 5 minutes with the same coordinator and number of processes, each with its own index"
        raise ScalingError(
            f"the processes did not meet: {reason}", where=where, remedy=remedy
        ) from error
    try:
        yield
    finally:
        jax.distributed.shutdown()


def _own_all_devices(hosts: DistributedConfig) -> None:
    """Inside Slurm jax gives each process one device, by its number on the node; with one process a node it has all of them."""
    count = os.environ.get("SLURM_GPUS_ON_NODE", "")
    if (
        hosts.coordinator is None
        and os.environ.get("SLURM_NTASKS_PER_NODE") == "1"
        and count.isdigit()
    ):
        os.environ.setdefault("JAX_LOCAL_DEVICE_IDS", ",".join(map(str, range(int(count)))))


def broadcast_from_host0(wishes: np.ndarray) -> np.ndarray:
    """The numbers of process 0 on every process, as int32; every process must ask at the same point. The same array where there is one."""
    if jax.process_count() == 1:
        return wishes
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(wishes, np.int32)))


def is_first() -> bool:
    """Whether this is process 0: the one that decides, writes and tells."""
    return jax.process_index() == 0
