"""Settings of a process that trains, and what this machine has. `scaling doctor` shows them."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from scaling.plan.device_fit import USABLE
from scaling.store.cache import cache_folder

# glibc returns every large buffer to the kernel and faults it in again at each step: keeping memory
# doubles CPU speed.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**62),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    # no caches of small pieces: they would keep freed large buffers from being used again
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
}


MEMORY_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # of a GPU, that jax takes at its start
CGROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """CPU cores that this process may use: its affinity, and the quota of its control groups."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = quota_cores()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def quota_cores() -> float | None:
    """Cores by the quota of a container or a job (control groups v1 and v2); None without one."""
    quotas = []
    for folder in _control_groups("cpu"):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")  # v2
        if not quota:  # v1; -1 is no quota
            quota = _read(folder / "cpu.cfs_quota_us").strip()
            period = _read(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_bytes() -> dict[str, int | None]:
    """Bytes; None where the system does not say. `limit_bytes` is that of the control groups."""
    lines = (line.split() for line in _read(Path("/proc/meminfo")).splitlines())
    kib = {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}
    total = kib["MemTotal"] * 1024 if "MemTotal" in kib else None
    limits = [
        int(text)
        for folder in _control_groups("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _read(folder / name).strip()).isdigit()
    ]
    limit = min(limits, default=None)
    return {
        "total_bytes": total,
        "available_bytes": kib["MemAvailable"] * 1024 if "MemAvailable" in kib else None,
        "limit_bytes": limit if limit is not None and limit < (total or 2**62) else None,
    }


def _control_groups(controller: str) -> list[Path]:
    """The folders of this process's control groups for a controller, up to the root of each tree.

    Inside a container the path in /proc/self/cgroup may lie outside of what is mounted; then the
    root is the container's own group.
    """
    folders = []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and controller not in controllers.split(","):
            continue
        roots = [CGROUPS] if not controllers else [CGROUPS / controller, CGROUPS / controllers]
        for root in roots:
            group = root / path.lstrip("/")
            folders += [group, *(parent for parent in group.parents if parent.is_relative_to(root))]
    return list(dict.fromkeys([*folders, CGROUPS, CGROUPS / controller]))


def _read(path: Path) -> str:
    """A file of the kernel, or nothing where the system has none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def python_module(module: str) -> list[str]:
    """The start of a command that runs a module, never one of the working folder."""
    return [sys.executable, "-P", "-m", module]


def has_accelerator() -> bool:
    """Whether a GPU or TPU driver is present and not switched off; asked without starting jax."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return False
    return any(
        Path(path).exists() for path in ("/dev/nvidia0", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")
    )


def default_workers() -> int:
    """One worker a core on a CPU: single-threaded runs train more tokens together than one run on
    all cores.
    """
    return 1 if has_accelerator() else cores()


def worker_environment(workers: int) -> dict[str, str]:
    """The environment of one of `workers` training processes: threads, allocator, compilation
    cache, and of a GPU's memory as much as the planner counts on. What is set stays.
    """
    root = str(Path(__file__).parents[2])
    chosen = {
        **({"PYTHONPATH": root} if sys.path[0] in ("", root) else {}),  # run without installation
        "NPROC": str(max(1, cores() // workers)),
        "JAX_COMPILATION_CACHE_DIR": str(cache_folder("xla")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONUNBUFFERED": "1",
        MEMORY_FRACTION: f"{USABLE / workers:.3g}",
        **ALLOCATOR,
    }
    return chosen | dict(os.environ)


def restart_once() -> None:
    """Replace this process by itself under `worker_environment`, unless it has it already: the
    allocator reads its settings at start.
    """
    if any(name not in os.environ for name in ALLOCATOR):
        os.execve(
            sys.executable,
            [*python_module("scaling"), *sys.argv[1:]],
            worker_environment(default_workers()),
        )
