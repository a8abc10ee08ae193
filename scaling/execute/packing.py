"""How many runs of a shape share one program.

An accelerator is idle most of the time on a small model, so runs in one program cost little more
than one. A CPU core is busy with one: there single-threaded processes are the better pack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from scaling import accounting
from scaling.config import Execution, RunConfig
from scaling.errors import ScalingError
from scaling.plan.device_fit import DeviceMemory

MAX_AUTO_PACK = 8
MEMORY_SHARE = 0.5  # of a device, that a pack may need
BUSY_FLOPS = 1e12  # of a step that keeps an accelerator busy: 2.5 ms of an H100 at 40 %
PackLimit = Callable[[RunConfig], int]  # the most runs of a run's shape in one program


def pack_limit(
    pack: int | Literal["auto"], execution: Execution, device: DeviceMemory | None
) -> PackLimit:
    """Packs of a given size, or with "auto" as many small runs as fit half of an accelerator.

    Raises ScalingError for a pack on a mesh.
    """
    if pack != "auto":
        if pack > 1 and execution.mesh.n_devices > 1:
            raise ScalingError(
                f"a pack of {pack} runs and a mesh exclude each other",
                where="--pack",
                remedy="leave out one of the two",
            )
        return lambda run: pack
    if device is None or device.kind == "cpu" or execution.mesh.n_devices > 1:
        return lambda run: 1

    def limit(run: RunConfig) -> int:
        step = accounting.train_flops(run.model, run.task.seq_len, run.batch_tokens, "exact")
        capacity = MEMORY_SHARE * device.capacity_bytes
        fitting = int(capacity / device.required_bytes(run, execution))
        return max(1, min(MAX_AUTO_PACK, fitting, int(BUSY_FLOPS / step)))

    return limit
