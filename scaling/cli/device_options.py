"""Whether runs fit: the device that `--device` names, or the memory that is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.errors import ScalingError, unknown_choice

if TYPE_CHECKING:
    from scaling.accounting import DeviceTime
    from scaling.config import Execution
    from scaling.plan import PlannedRun
    from scaling.plan.device_fit import DeviceMemory

DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Say whether each run fits this device: h100, tpu-v5e, ... or here.",
    ),
]
HERE = "here"


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


def room_of(device: str, workers: int) -> DeviceMemory:
    """What a named device offers, or the memory that is here. Raises ScalingError listing the known names."""
    from scaling.accounting import DEVICES
    from scaling.plan.device_fit import USABLE, DeviceMemory

    if device == HERE:
        from scaling.execute.devices import local_memory

        return local_memory(workers)
    if device not in DEVICES:
        raise unknown_choice("device", device, [*DEVICES, HERE], where="--device")
    return DeviceMemory(
        device,
        "tpu" if device.startswith("tpu") else "gpu",
        int(USABLE * DEVICES[device].memory_bytes),
    )


def annotate(
    document: dict[str, Any], runs: Sequence[PlannedRun], how: Execution, room: DeviceMemory | None
) -> dict[str, Any]:
    """A plan's document with every run's memory under `how`; with a room also `fits` and the `remedy` (null: none, or none needed)."""
    from scaling.plan import memory
    from scaling.plan.device_fit import suggest_execution, to_cli_flags

    for entry, planned in zip(document["runs"], runs, strict=True):
        if room is None:
            entry["memory_bytes"] = memory.estimate(planned.run, how).total
            continue
        entry["memory_bytes"] = room.needs(planned.run, how)
        fits = entry["memory_bytes"] <= room.capacity_bytes
        chosen = None if fits else suggest_execution([planned.run], how, room)
        entry |= {
            "fits": fits,
            "remedy": to_cli_flags(chosen, how) if chosen else None,
            "device_memory_bytes": room.capacity_bytes,
        }
    return document | ({"device": room.name} if room else {})
