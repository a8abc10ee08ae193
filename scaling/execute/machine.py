"""What this machine has for training, and what is missing: the document of `scaling doctor`."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from scaling import __version__
from scaling.execute import devices
from scaling.execute.environment import cores, has_accelerator, memory_bytes, quota_cores
from scaling.formatting import format_bytes
from scaling.store.cache import cache_root

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
    jax = devices.ask_devices()
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
            "usable_cores": cores(),
            "quota_cores": quota_cores(),
        },
        "memory": memory_bytes(),
        "disk": {"folder": str(Path.cwd()), "free_bytes": shutil.disk_usage(Path.cwd()).free},
        "cache": {"folder": str(cache), "writable": os.access(standing, os.W_OK | os.X_OK)},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "accelerator_driver": has_accelerator(),
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
