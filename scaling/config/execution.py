"""How a run is carried out, not what it computes."""

from __future__ import annotations

from typing import Literal

from scaling.config.base import Frozen, Positive


class MeshShape(Frozen):
    """How many devices share a run, and what each axis divides: the batch (`data`), the batch and
    the parameters (`fsdp`), or the widths of every layer (`tensor`).
    """

    data: Positive = 1
    fsdp: Positive = 1
    tensor: Positive = 1

    @property
    def n_devices(self) -> int:
        """Devices in the mesh."""
        return self.data * self.fsdp * self.tensor


class Execution(Frozen):
    """How a run is carried out, not what it computes: results agree to rounding, and a run's
    identity does not depend on it.

    `micro_batch` sequences are processed at a time and their gradients summed; `remat` computes the
    activations of each block again in the backward pass, from its input; `layers` are unrolled, or
    scanned as one (compilation does not grow with depth); `loss_chunk` is the most tokens whose
    logits exist at once; `attention` is this program's own or the device's fused one. `kind` is the
    kind of device that programs are compiled for, set when the other choices are made.
    """

    mesh: MeshShape = MeshShape()
    micro_batch: Positive | None = None
    remat: Literal["none", "block"] = "none"
    layers: Literal["auto", "unrolled", "scan"] = "auto"
    loss_chunk: Positive | None = None
    attention: Literal["auto", "own", "fused"] = "auto"
    kind: Literal["auto", "cpu", "gpu", "tpu"] = "auto"

    @property
    def on_accelerator(self) -> bool:
        """Whether programs are compiled for a GPU or a TPU."""
        return self.kind in ("gpu", "tpu")
