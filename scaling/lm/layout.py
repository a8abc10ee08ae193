"""What is left open of an `Execution` is settled for a run and the devices that are here, before anything is compiled."""

from __future__ import annotations

import jax

from scaling.config import Execution, RunConfig
from scaling.lm.mesh import mesh_of
from scaling.meshes import check
from scaling.settle import Kind, settled


def settle(run: RunConfig, how: Execution, pack: int = 1) -> Execution:
    """`how` with its open choices made for the devices that are here.

    Raises ScalingError where `pack` such runs cannot be trained so on them.
    """
    check(run, how, jax.device_count(), pack=pack, kind=jax.devices()[0].device_kind)
    if jax.process_count() > 1:
        mesh_of(how.mesh)  # every process must have a share
    return settled(run, how, kind_here())


def kind_here() -> Kind:
    """The kind of the devices that are here; what is no GPU and no CPU is taken for a TPU."""
    backend = jax.default_backend()
    return "cpu" if backend == "cpu" else "gpu" if backend in ("gpu", "cuda", "rocm") else "tpu"
