"""Budgets as time on devices: the options --hours, --count and --mfu with --device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from scaling.cli.output import option
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.accounting import DeviceTime

TIME = "Devices and time"
Hours = Annotated[
    float | None, option("Instead of FLOPs: hours on --count of --device at --mfu.", TIME, "H")
]
Count = Annotated[
    int | None, option("Devices to train on: gives the hours of training.", TIME, "K")
]
Mfu = Annotated[
    float | None,
    option(
        "Model FLOPs utilisation of training; default 0.4.", TIME, "X", names="--mfu --mfu-training"
    ),
]


def device_time(
    device: str | None, count: int | None, mfu: float | None, hours: float | None
) -> DeviceTime | None:
    """Training on devices, where --hours or --count asks for it. Raises ScalingError without a
    device.
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
