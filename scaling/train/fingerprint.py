"""Fingerprint of the machine and of the execution: everything that decides the bits of a run."""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from scaling import accounting
from scaling.config import Execution, RunConfig
from scaling.config.mesh import check
from scaling.config.resolve_execution import Kind, resolve
from scaling.store.provenance import code_digest, compiler_flags, versions
from scaling.train.sharding import make_mesh

PINNED = {
    "default_prng_impl": "threefry2x32",
    "threefry_partitionable": True,
    "random_seed_offset": 0,
    "enable_x64": False,
    "default_matmul_precision": None,
    "numpy_dtype_promotion": "standard",
    "numpy_rank_promotion": "allow",
    "disable_jit": False,
}
_listeners: list[Callable[[str], None]] = []
_ISA = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


def fingerprint(execution: Execution | None = None, pack: int = 1) -> dict[str, Any]:
    """The machine, the execution, and how many runs share the program.

    XLA's CPU results change with the number of threads (NPROC pins it) and with the instruction
    set.
    """
    execution = execution or Execution()  # its kind of device is known by the device
    changed = execution.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
    more = {"execution": changed, "pack": pack if pack > 1 else None}
    return _machine() | {name: value for name, value in more.items() if value}


@functools.lru_cache(maxsize=1)
def _machine() -> dict[str, Any]:
    """Versions, device kind and count, threads, instruction set and flags."""
    devices, n_processes = jax.devices(), jax.process_count()
    facts: dict[str, Any] = versions() | {
        "code": code_digest(),
        "device": devices[0].device_kind,
        "devices": len(devices),
        "xla_flags": compiler_flags(),
    }
    if n_processes > 1:
        facts["processes"] = n_processes
    if devices[0].platform == "cpu":
        here = (
            os.sched_getaffinity(0)
            if hasattr(os, "sched_getaffinity")
            else range(os.cpu_count() or 1)
        )
        facts["threads"] = int(os.environ.get("NPROC") or len(here))
        text = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
        flags = re.search(r"^(?:flags|Features)\b.*", text, re.MULTILINE)
        isa = [name for name in _ISA if flags and name in flags[0].split()]  # what XLA would use
        facts |= {"isa": " ".join(isa), "arch": platform.machine()}
    return facts


def pin_numerics() -> None:
    """Settings of jax that change a run's numbers, also where jax was imported before this package
    and has them from the environment.
    """
    for name, value in PINNED.items():
        jax.config.update(f"jax_{name}", value)


def describe() -> str:
    """The device column of the rows: count and kind, and on a CPU the threads."""
    facts = _machine()
    suffix = f", {facts['threads']} threads" if "threads" in facts else ""
    return f"{facts['devices']} x {facts['device']}{suffix}"


def peak_flops(n_devices: int) -> float:
    """FLOP/s in bf16 of `n_devices` devices of this process' kind; 0 where that is unknown."""
    device = accounting.device_of_kind(jax.devices()[0].device_kind)
    return n_devices * device.flops_per_second if device else 0.0


def on_warning(listener: Callable[[str], None]) -> None:
    """Pass every later warning to `listener`, as well as to stderr."""
    _listeners[:] = [listener]


def warn(message: str) -> None:
    """One line on stderr (stdout belongs to the protocol), and to the listener."""
    print(f"warning: {message}", file=sys.stderr, flush=True)  # noqa: T201
    for listener in _listeners:
        listener(message)


def resolve_for_local_devices(run: RunConfig, execution: Execution, pack: int = 1) -> Execution:
    """The execution with its "auto" fields chosen for the devices of this process.

    Raises ScalingError if `pack` such runs cannot be trained like that on them.
    """
    check(run, execution, jax.device_count(), pack=pack, kind=jax.devices()[0].device_kind)
    if jax.process_count() > 1:
        make_mesh(execution.mesh)  # every process must have a device in it
    return resolve(run, execution, local_platform())


def local_platform() -> Kind:
    """Anything but a CPU or a GPU is taken for a TPU."""
    backend = jax.default_backend()
    return "cpu" if backend == "cpu" else "gpu" if backend in ("gpu", "cuda", "rocm") else "tpu"
