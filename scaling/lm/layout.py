"""What is left open of an `Execution` is settled for a run and the devices that are here, before anything is compiled."""

from __future__ import annotations

import jax

from scaling.config import Execution, RunConfig
from scaling.lm.attention import has_kernel
from scaling.lm.mesh import mesh_of
from scaling.meshes import check

CPU_LOGIT_BYTES = 4 * 2**20  # logits that stay in a core's cache
DEVICE_LOGIT_BYTES = 256 * 2**20
DEEP = 16  # layers from which unrolled programs compile too long


def settle(run: RunConfig, how: Execution, pack: int = 1) -> Execution:
    """`how` with its open choices made: layers unrolled on a CPU up to a depth, scanned elsewhere; logits in chunks that fit.

    Raises ScalingError where `pack` such runs cannot be trained so on the devices that are here.
    """
    check(run, how, jax.device_count(), pack=pack, kind=jax.devices()[0].device_kind)
    if jax.process_count() > 1:
        mesh_of(how.mesh)  # every process must have a share
    on_cpu = jax.default_backend() == "cpu"
    changes: dict[str, object] = {}
    if how.layers == "auto":
        changes["layers"] = "unrolled" if on_cpu and run.model.n_layers < DEEP else "scan"
    if how.loss_chunk is None:
        room = (CPU_LOGIT_BYTES if on_cpu else DEVICE_LOGIT_BYTES) * how.mesh.n_devices
        chunk = max(1, room // (4 * run.model.vocab_size))
        at_once = (how.micro_batch or run.batch_size) * run.task.seq_len
        changes["loss_chunk"] = chunk if chunk < at_once else None
    if how.attention == "auto":
        fused = jax.default_backend() == "gpu" and has_kernel(run.model, run.precision)
        changes["attention"] = "fused" if fused else "own"
    return how.model_copy(update=changes)
