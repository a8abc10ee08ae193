"""The option `--device` of `scaling plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scaling.errors import ScalingError, unknown_choice

if TYPE_CHECKING:
    from scaling.accounting import DeviceTime
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


def device_time(
    device: str | None, count: int | None, mfu: float | None, hours: float | None
) -> DeviceTime | None:
    """Training on devices, where --hours or --count asks for it; `hours` is checked by its user.

    Raises ScalingError for hours without a device.
    """
    from scaling.accounting import DeviceTime

    if hours is None and count is None:
        return None
    if device is None:
        raise ScalingError(
            f"--{'count' if hours is None else 'hours'} is of a device",
            where="--device",
            remedy="name it: --device h100 --count 8 --hours 72",
        )
    return DeviceTime(device, 1 if count is None else count, 0.4 if mfu is None else mfu)


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
