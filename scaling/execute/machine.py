"""What this machine has for training, asked before anything is trained: its devices, its memory,
and what is missing (the document of `scaling doctor`).
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from scaling import __version__
from scaling.accounting import DEVICES
from scaling.config import Execution, mesh
from scaling.config.resolve_execution import Kind
from scaling.errors import ScalingError, unknown_choice
from scaling.execute import environment
from scaling.formatting import format_bytes
from scaling.plan import PlannedRun
from scaling.plan.device_fit import USABLE, DeviceMemory, check_fits
from scaling.store.cache import cache_root

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


_VARIABLES = [
    "XLA_FLAGS",
    "JAX_PLATFORMS",
    "NPROC",
    "CUDA_VISIBLE_DEVICES",
    "LD_PRELOAD",
    "SCALING_CACHE",
    "JAX_COMPILATION_CACHE_DIR",
]


def examine() -> dict[str, Any]:
    """Everything `scaling doctor` says, as JSON-ready data; `problems` lists what is wrong, each
    with its remedy.
    """
    jax = ask_devices()
    cache = cache_root().absolute()
    standing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    facts: dict[str, Any] = {
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "platform": platform.platform(),
        },
        "packages": _packages(),
        "cpu": {
            "cores": os.cpu_count(),
            "usable_cores": environment.cores(),
            "quota_cores": environment.quota_cores(),
        },
        "memory": environment.memory_bytes(),
        "disk": {"folder": str(Path.cwd()), "free_bytes": shutil.disk_usage(Path.cwd()).free},
        "cache": {"folder": str(cache), "writable": os.access(standing, os.W_OK | os.X_OK)},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "accelerator_driver": environment.has_accelerator(),
        "jax": jax | {"devices": dict(Counter(d["kind"] for d in jax.get("devices", ())))},
    }
    return facts | {
        "problems": [{"what": what, "remedy": remedy} for what, remedy in problems(facts)]
    }


def _packages() -> dict[str, dict[str, Any]]:
    """Of each package that scaling needs: `installed` version (None: missing), what is `wanted`,
    and whether that fits.
    """
    from packaging.requirements import Requirement

    needed = [Requirement(f"scaling-sweeps=={__version__}")]
    with contextlib.suppress(metadata.PackageNotFoundError):
        needed += map(Requirement, metadata.requires("scaling-sweeps") or [])
    packages = {}
    for item in needed:
        if item.marker is not None and not item.marker.evaluate({"extra": ""}):
            continue
        installed: str | None = None
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed = metadata.version(item.name)
        packages[item.name.removesuffix("-sweeps")] = {
            "installed": installed,
            "wanted": str(item.specifier),
            "fits": installed is not None and item.specifier.contains(installed, True),
        }
    return packages


def problems(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, remedy) for everything in an examination that hinders or slows the work."""
    cpu, memory, jax = (facts[name] for name in ("cpu", "memory", "jax"))
    usable, threads = cpu["usable_cores"], facts["environment"].get("NPROC")
    free_bytes = facts["disk"]["free_bytes"]
    available = min(filter(None, (memory["available_bytes"], memory["limit_bytes"])), default=2**62)
    checks = [
        (
            not package["fits"],
            f"{name} {package['installed'] or 'is missing'}; wanted: {package['wanted']}",
            "in a checkout, `make test` installs what is pinned",
        )
        for name, package in facts["packages"].items()
    ] + [
        (
            "error" in jax,
            f"jax does not start: {jax.get('error')}",
            "fix JAX_PLATFORMS, XLA_FLAGS or the driver; JAX_PLATFORMS=cpu always works",
        ),
        (
            facts["accelerator_driver"] and jax.get("backend") == "cpu",
            "an accelerator is here, but jax uses the CPU",
            "install jax for it, for example: pip install 'jax[cuda12]'",
        ),
        (
            threads is not None and not (threads.isdigit() and 0 < int(threads) <= usable),
            f"NPROC = {threads!r} on {usable} usable cores",
            "unset it, or set a number of cores you have",
        ),
        (
            free_bytes < 2**30,
            f"{format_bytes(free_bytes)} free in {facts['disk']['folder']}",
            "free a GiB: results, checkpoints and the corpus need space",
        ),
        (
            available < 2**31,
            f"{format_bytes(available)} of memory available",
            "end other programs, or run with --workers 1",
        ),
        (
            not facts["cache"]["writable"],
            f"the cache {facts['cache']['folder']} is not yours to write",
            "set SCALING_CACHE to a folder of your own",
        ),
    ]
    return [(what, remedy) for applies, what, remedy in checks if applies]
