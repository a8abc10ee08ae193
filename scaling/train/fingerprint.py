"""What decides the bits of a run, and the compilation cache: the machine as jax sees it."""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from scaling.config import Execution, RunConfig
from scaling.config.mesh import check
from scaling.config.resolve_execution import Kind, resolve
from scaling.store.provenance import code_digest, versions
from scaling.train.sharding import make_mesh

_listeners: list[Callable[[str], None]] = []
_ISA = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


def fingerprint(how: Execution | None = None, pack: int = 1) -> dict[str, Any]:
    """What decides the bits: the machine, how the run is carried out, and how many runs share the program.

    XLA's CPU results change with the number of threads (NPROC pins it) and with the instruction set.
    """
    chosen = how.model_dump(mode="json", exclude_defaults=True) if how else {}
    return (
        _machine()
        | ({"execution": chosen} if chosen else {})
        | ({"pack": pack} if pack > 1 else {})
    )


@functools.lru_cache(maxsize=1)
def _machine() -> dict[str, Any]:
    """Versions, device kind and count, threads, instruction set and flags."""
    devices = jax.devices()
    facts: dict[str, Any] = {**versions(), "code": code_digest()}
    facts |= {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    if jax.process_count() > 1:
        facts["processes"] = jax.process_count()
    if devices[0].platform == "cpu":
        facts |= {"threads": threads(), "isa": _instruction_set(), "arch": platform.machine()}
    return facts


def threads() -> int:
    """Threads that XLA uses on a CPU: NPROC, or the cores this process may run on."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return int(os.environ.get("NPROC") or allowed)


def _instruction_set() -> str:
    """The vector extensions that XLA would use, in a fixed order; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return " ".join(name for name in _ISA if name in line.split())


def describe() -> str:
    """The device as it stands in the rows: kind and count, and on a CPU the threads."""
    facts = _machine()
    suffix = f", {facts['threads']} threads" if "threads" in facts else ""
    return f"{facts['devices']} x {facts['device']}{suffix}"


def on_warning(listener: Callable[[str], None]) -> None:
    """Let `listener` have every warning from now on, beside stderr."""
    _listeners[:] = [listener]


def warn(message: str) -> None:
    """One line on stderr (stdout belongs to the protocol), and to whoever listens."""
    print(f"warning: {message}", file=sys.stderr, flush=True)  # noqa: T201
    for listener in _listeners:
        listener(message)


def resolve_for_local_devices(run: RunConfig, how: Execution, pack: int = 1) -> Execution:
    """`how` with its open choices made for the devices that are here.

    Raises ScalingError where `pack` such runs cannot be trained so on them.
    """
    check(run, how, jax.device_count(), pack=pack, kind=jax.devices()[0].device_kind)
    if jax.process_count() > 1:
        make_mesh(how.mesh)  # every process must have a share
    return resolve(run, how, local_platform())


def local_platform() -> Kind:
    """The kind of the devices that are here; what is no GPU and no CPU is taken for a TPU."""
    backend = jax.default_backend()
    return "cpu" if backend == "cpu" else "gpu" if backend in ("gpu", "cuda", "rocm") else "tpu"
