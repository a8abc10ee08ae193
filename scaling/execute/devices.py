"""Whether runs fit the devices and the memory of this machine, asked before anything is trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scaling.accounting import DEVICES
from scaling.config import Execution, mesh
from scaling.config.resolve_execution import Kind
from scaling.errors import ScalingError, unknown_choice
from scaling.execute import environment
from scaling.plan import PlannedRun
from scaling.plan.device_fit import USABLE, DeviceMemory, check_fits

DEVICE_SECONDS = 90
_ASK_DEVICES = """
import json, jax
devices = [
    {
        "platform": device.platform,
        "kind": device.device_kind,
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
    }
    for device in jax.devices()
]
print(json.dumps({"backend": jax.default_backend(), "devices": devices}))
"""


def ask_devices(changes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """`backend` and `devices` as jax sees them in a child process with a changed environment,
    or `error`.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _ASK_DEVICES],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEVICE_SECONDS,
            env={environment.MEMORY_FRACTION: str(USABLE)} | dict(os.environ) | dict(changes or {}),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {DEVICE_SECONDS} s"}
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"error": last[:300]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def device_memory(name: str, workers: int) -> DeviceMemory:
    """The memory of a named device, or of this machine ("here"). Raises ScalingError for another
    name.
    """
    if name == "here":
        return local_memory(workers)
    if name not in DEVICES:
        raise unknown_choice("device", name, [*DEVICES, "here"], where="--device")
    kind: Kind = "tpu" if name.startswith("tpu") else "gpu"
    return DeviceMemory(name, kind, int(USABLE * DEVICES[name].memory_bytes))


def local_memory(workers: int) -> DeviceMemory:
    """The memory of each of `workers` processes here: its share of an accelerator or of the
    machine.

    Raises ScalingError when JAX_PLATFORMS names devices that this machine lacks. Imports no jax:
    a child process asks.
    """
    is_cpu = os.environ.get("JAX_PLATFORMS", "").split(",")[0] in ("", "cpu")
    device = None if is_cpu and not environment.has_accelerator() else local_devices()[0]
    if device is None or device["platform"] == "cpu":
        memory = environment.memory_bytes()
        limits = filter(None, (memory["available_bytes"], memory["limit_bytes"]))
        available = min(limits, default=2**63 - 1)  # unknown: no limit
        name = "this machine" if workers == 1 else f"each of {workers} workers here"
        return DeviceMemory(name, "cpu", available // workers)
    if not device["memory_bytes"]:
        raise ScalingError(
            f"{device['kind']} does not report its memory",
            where="devices",
            remedy="name it: scaling plan SWEEP --device NAME",
        )
    kind: Kind = "tpu" if device["platform"] == "tpu" else "gpu"
    usable = device["memory_bytes"] * (USABLE if kind == "tpu" else 1)  # a GPU's limit is usable
    return DeviceMemory(f"{device['kind']} here", kind, int(usable) // workers)


def local_devices() -> list[dict[str, Any]]:
    """The devices of this machine. Raises ScalingError where jax finds none."""
    answer = ask_devices()
    if "error" not in answer:
        return list(answer["devices"])
    present = Counter(d["kind"] for d in ask_devices({"JAX_PLATFORMS": ""}).get("devices", []))
    listed = ", ".join(f"{count} x {kind}" for kind, count in present.items()) or "none"
    raise ScalingError(
        f"jax finds no such device: {answer['error'][:160]}",
        where=f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}",
        remedy=f"devices here: {listed}; unset JAX_PLATFORMS, or set it to what is here (cpu "
        "always works)",
    )


def resolve_workers(workers: int | None, execution: Execution) -> int:
    """Parallel processes: as given, one for a mesh, else one per core or accelerator."""
    if execution.mesh.n_devices == 1:
        return workers or environment.default_workers()
    if workers and workers > 1:
        raise ScalingError(
            f"{workers} workers and a mesh exclude each other",
            where="--workers",
            remedy="leave out --workers: one process drives all devices",
        )
    return 1


def check_devices(
    runs: Sequence[PlannedRun], execution: Execution, workers: int, hosts: int = 1
) -> None:
    """Raise ScalingError where a run does not fit this machine: devices, divisions, memory. The
    devices of several hosts are counted as those of this one.
    """
    if not runs:
        return
    n_devices, kind = 1, "device"
    if execution.mesh.n_devices > 1:
        devices = local_devices()
        n_devices, kind = hosts * len(devices), devices[0]["kind"]
    for planned in runs:
        mesh.check(planned.run, execution, n_devices, kind=kind)
    check_fits([planned.run for planned in runs], execution, local_memory(workers))
