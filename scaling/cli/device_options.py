"""Whether runs fit: the device that `--device` names, or the memory that is here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.errors import ScalingError, unknown_choice

if TYPE_CHECKING:
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


def room_of(device: str, workers: int) -> DeviceMemory:
    """What a named device offers, or the memory that is here. Raises ScalingError listing the known names."""
    from scaling.accounting import DEVICES
    from scaling.plan.device_fit import USABLE, DeviceMemory

    if device == HERE:
        return room_here(workers)
    if device not in DEVICES:
        raise unknown_choice("device", device, [*DEVICES, HERE], where="--device")
    return DeviceMemory(
        device,
        "tpu" if device.startswith("tpu") else "gpu",
        int(USABLE * DEVICES[device].memory_bytes),
    )


def room_here(workers: int) -> DeviceMemory:
    """What each of `workers` processes has here: its share of an accelerator, or of the machine's memory.

    Raises ScalingError when JAX_PLATFORMS asks for devices that are not here. Imports no jax: a child process asks.
    """
    from scaling.cli import doctor
    from scaling.execute.environment import has_accelerator
    from scaling.plan.device_fit import USABLE, DeviceMemory

    asked = os.environ.get("JAX_PLATFORMS", "")
    if not has_accelerator() and asked.split(",")[0] in ("", "cpu"):
        return _cpu(workers)
    found = doctor.ask_devices()
    if "error" in found:
        raise _absent(asked, found["error"])
    device = found["devices"][0]
    if device["platform"] == "cpu":
        return _cpu(workers)
    if not device["memory_bytes"]:
        raise ScalingError(
            f"{device['kind']} does not tell its memory",
            where="devices",
            remedy="name it: scaling plan SWEEP --device NAME",
        )
    capacity = int(USABLE * device["memory_bytes"]) // workers
    return DeviceMemory(
        f"{device['kind']} here", "tpu" if device["platform"] == "tpu" else "gpu", capacity
    )


def _absent(asked: str, reason: str) -> ScalingError:
    """The refusal for a platform that jax does not find, naming what is here."""
    from scaling.cli import doctor

    there = doctor.ask_devices({"JAX_PLATFORMS": ""})
    names = [device["kind"] for device in there.get("devices", [])]
    listed = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "none"
    remedy = (
        f"devices here: {listed}; unset JAX_PLATFORMS, or set it to what is here (cpu always works)"
    )
    return ScalingError(
        f"jax finds no such device: {reason[:160]}", where=f"JAX_PLATFORMS={asked}", remedy=remedy
    )


def _cpu(workers: int) -> DeviceMemory:
    from scaling.execute.environment import memory_bytes
    from scaling.plan.device_fit import DeviceMemory

    memory = memory_bytes()
    known = [memory[key] for key in ("available_bytes", "limit_bytes")]
    here = min(
        (value for value in known if value), default=2**63 - 1
    )  # where the system does not tell, nothing is refused
    return DeviceMemory(
        "this machine" if workers == 1 else f"each of {workers} workers here",
        "cpu",
        here // workers,
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


def check_shapes(
    runs: Sequence[PlannedRun], how: Execution, n_devices: int | None = None, kind: str = "device"
) -> None:
    """Raise ScalingError where a mesh or a micro-batch does not divide a run; with a number of devices, also where there are too few."""
    from scaling.config import mesh

    for planned in runs:
        mesh.check(planned.run, how, n_devices or how.mesh.n_devices, kind=kind)


def check(runs: Sequence[PlannedRun], how: Execution, workers: int, hosts: int = 1) -> None:
    """Raise ScalingError, before anything is trained, where a run cannot be carried out so here: devices, divisions, memory.

    The devices of several hosts are counted as those of this one.
    """
    from scaling.cli import doctor
    from scaling.plan.device_fit import check_fits

    if not runs:
        return
    if how.mesh.n_devices == 1:
        check_shapes(runs, how)
    else:
        found = doctor.ask_devices()
        if "error" in found:
            raise _absent(os.environ.get("JAX_PLATFORMS", ""), found["error"])
        check_shapes(runs, how, hosts * len(found["devices"]), found["devices"][0]["kind"])
    check_fits([planned.run for planned in runs], how, room_here(workers))
