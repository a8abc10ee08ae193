"""What this machine has for training, and what is missing: the document of `scaling doctor`."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from scaling import __version__
from scaling.execute import devices
from scaling.execute.environment import ALLOCATOR, cores, has_accelerator, memory_bytes, quota_cores
from scaling.formatting import format_bytes
from scaling.store.cache import cache_root

_ISA = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
_VARIABLES = [
    "XLA_FLAGS",
    "JAX_PLATFORMS",
    "NPROC",
    "CUDA_VISIBLE_DEVICES",
    "LD_PRELOAD",
    "SCALING_CACHE",
    "JAX_COMPILATION_CACHE_DIR",
]
_TOOLS = {  # programs, and what they are for
    ("chromium", "chromium-browser", "google-chrome"): "looks at reports in the browser tests",
    ("sbatch",): "scaling run --executor slurm",
    ("ray",): "scaling run --executor ray",
    ("git",): "writes the commit into the rows",
}
# A buffer that the C library keeps costs page faults once; one that it returns, each time.
_ASK_ALLOCATOR = """
import resource
def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * size
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first, second = faults(2**26), faults(2**26)
print(int(second * 4 < first))
"""


def examine() -> dict[str, Any]:
    """Everything `scaling doctor` says, as JSON-ready data; `problems` lists what is wrong, each
    with its remedy.
    """
    facts: dict[str, Any] = {
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "platform": platform.platform(),
        },
        "packages": _packages(),
        "cpu": _cpu(),
        "memory": memory_bytes(),
        "disk": {"folder": str(Path.cwd()), "free_bytes": shutil.disk_usage(Path.cwd()).free},
        "cache": _cache(cache_root()),
        "allocator": _allocator(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "accelerator_driver": has_accelerator(),
        "jax": devices.ask_devices(),
        "tools": {
            programs[0]: {"path": next(filter(None, map(shutil.which, programs)), None), "for": use}
            for programs, use in _TOOLS.items()
        },
    }
    return facts | {
        "problems": [{"what": what, "remedy": remedy} for what, remedy in problems(facts)]
    }


def _packages() -> list[dict[str, Any]]:
    """Each package that scaling needs: `installed` version (None: missing), what is `wanted`, and
    whether that fits.
    """
    from packaging.requirements import Requirement

    needed = [Requirement(f"scaling-sweeps=={__version__}")]
    with contextlib.suppress(metadata.PackageNotFoundError):
        needed += map(Requirement, metadata.requires("scaling-sweeps") or [])
    rows = []
    for item in needed:
        if item.marker is not None and not item.marker.evaluate({"extra": ""}):
            continue
        installed: str | None = None
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed = metadata.version(item.name)
        rows.append(
            {
                "name": item.name.removesuffix("-sweeps"),
                "installed": installed,
                "wanted": str(item.specifier),
                "fits": installed is not None and item.specifier.contains(installed, True),
            }
        )
    return rows


def _cpu() -> dict[str, Any]:
    path = Path("/proc/cpuinfo")  # absent where the system is not Linux
    lines = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    pairs = [line.partition(":") for line in lines.splitlines()]
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": cores(),
        "quota_cores": quota_cores(),
        "isa": [name for name in _ISA if name in flags] if flags else None,
    }


def _cache(folder: Path) -> dict[str, Any]:
    """The state of the cache folder, or of the folder above that it would be made in."""
    parents = (folder.absolute(), *folder.absolute().parents)
    standing = next(parent for parent in parents if parent.exists())
    status, exists = standing.stat(), folder.exists()
    own = status.st_uid == os.getuid()
    return {
        "folder": str(folder),
        "exists": exists,
        "writable": standing.is_dir() and os.access(standing, os.W_OK | os.X_OK),
        "private": (own and not status.st_mode & 0o077) if exists else None,
        "own": own if exists else None,
    }


def _allocator() -> dict[str, Any]:
    """`variables` as they are set for training processes, and whether such a process does keep its
    memory (None: unknown).
    """
    environment, keeps = ALLOCATOR | dict(os.environ), None
    if sys.platform == "linux":
        with contextlib.suppress(subprocess.SubprocessError):
            command = [sys.executable, "-c", _ASK_ALLOCATOR]
            keeps = subprocess.check_output(command, timeout=30, env=environment).strip() == b"1"
    return {
        "libc": " ".join(platform.libc_ver()).strip(),
        "here": {name: os.environ.get(name) for name in ALLOCATOR},
        "workers": {name: environment[name] for name in ALLOCATOR},
        "workers_keep_memory": keeps,
    }


def problems(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, remedy) for everything in an examination that hinders or slows the work."""
    cpu, memory, cache, jax = (facts[name] for name in ("cpu", "memory", "cache", "jax"))
    usable, quota = cpu["usable_cores"], cpu["quota_cores"]
    threads = facts["environment"].get("NPROC")
    free_bytes = facts["disk"]["free_bytes"]
    available = min(filter(None, (memory["available_bytes"], memory["limit_bytes"])), default=2**62)
    is_x86 = cpu["architecture"] in ("x86_64", "AMD64")
    checks = [
        (
            not package["fits"],
            f"{package['name']} {package['installed'] or 'is missing'}; wanted: "
            f"{package['wanted']}",
            "in a checkout, `make test` installs what is pinned",
        )
        for package in facts["packages"]
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
            is_x86 and cpu["isa"] is not None and "avx2" not in cpu["isa"],
            "the processor has no AVX2",
            "training works, several times slower; use another machine for long sweeps",
        ),
        (
            quota is not None and quota < usable,
            f"{usable} cores are visible, but the container may use {quota or 0:g}",
            f"run with --workers {max(1, int(quota or 0))} and NPROC=1",
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
            not cache["writable"] or cache["own"] is False,
            f"the cache {cache['folder']} is not yours to write",
            "set SCALING_CACHE to a folder of your own",
        ),
        (
            facts["allocator"]["workers_keep_memory"] is False,
            "training processes return their memory at every step: about half the speed",
            "use glibc, or preload tcmalloc (LD_PRELOAD)",
        ),
    ]
    return [(what, remedy) for applies, what, remedy in checks if applies]
