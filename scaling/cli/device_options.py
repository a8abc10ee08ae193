"""The option `--device` of `scaling plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scaling.errors import unknown_choice

if TYPE_CHECKING:
    from scaling.plan.device_fit import DeviceMemory

HERE = "here"
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        rich_help_panel="Device",
        help="Say whether each run fits this device: h100, tpu-v5e, ... or here.",
    ),
]


def device_memory(device: str, workers: int) -> DeviceMemory:
    """The memory of a named device, or of this machine. Raises ScalingError for unknown names."""
    from scaling.accounting import DEVICES
    from scaling.plan.device_fit import USABLE, DeviceMemory

    if device == HERE:
        from scaling.execute.devices import local_memory

        return local_memory(workers)
    if device not in DEVICES:
        raise unknown_choice("device", device, [*DEVICES, HERE], where="--device")
    kind = "tpu" if device.startswith("tpu") else "gpu"
    return DeviceMemory(device, kind, int(USABLE * DEVICES[device].memory_bytes))  # type: ignore[arg-type]
