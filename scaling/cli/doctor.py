"""The command `doctor`: what this machine has, and what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling import __version__
from scaling.execute.environment import ALLOCATOR, cores, has_accelerator, memory_bytes, quota_cores
from scaling.formatting import format_bytes
from scaling.store.cache import cache_root

if TYPE_CHECKING:
    from rich.console import Group

from scaling.cli.output import Csv, Json, emit


def doctor(as_json: Json = False, as_csv: Csv = False) -> None:
    """Show devices, versions, allocator, cache and optional tools of this machine, and problems.

    Example: scaling doctor --json
    """
    document = examine()
    emit(
        document,
        lambda: render(document),
        as_json=as_json,
        as_csv=as_csv,
        columns=("field", "value"),
    )


_ISA = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


_VARIABLES = (
    "XLA_FLAGS",
    "JAX_PLATFORMS",
    "NPROC",
    "CUDA_VISIBLE_DEVICES",
    "LD_PRELOAD",
    "SCALING_CACHE",
    "JAX_COMPILATION_CACHE_DIR",
)


_TOOLS = {
    "chromium": (
        ("chromium", "chromium-browser", "google-chrome"),
        "looks at reports in the browser tests",
    ),
    "sbatch": (("sbatch",), "scaling run --executor slurm"),
    "ray": ((), "scaling run --executor ray"),
    "git": (("git",), "writes the commit into the rows"),
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
    from scaling.execute import devices  # imports pydantic, which --help does without

    facts: dict[str, Any] = {
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "platform": platform.platform(),
        },
        "packages": packages(),
        "cpu": _cpu(),
        "memory": memory_bytes(),
        "disk": {"folder": str(Path.cwd()), "free_bytes": shutil.disk_usage(Path.cwd()).free},
        "cache": _cache(cache_root()),
        "allocator": _allocator(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "accelerator_driver": has_accelerator(),
        "jax": devices.ask_devices(),
        "tools": {
            name: {"path": _tool(name, programs), "for": purpose}
            for name, (programs, purpose) in _TOOLS.items()
        },
    }
    return facts | {
        "problems": [{"what": what, "remedy": remedy} for what, remedy in problems(facts)]
    }


def packages() -> list[dict[str, Any]]:
    """Each package that scaling needs: `installed` version (None: missing), what is `wanted`, and
    whether that fits.
    """
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires("scaling-sweeps") or []]
    except metadata.PackageNotFoundError:
        return [{"name": "scaling", "installed": None, "wanted": __version__, "fits": False}]
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    rows: list[dict[str, Any]] = [
        {"name": "scaling", "installed": __version__, "wanted": "", "fits": True}
    ]
    for one in needed:
        try:
            installed: str | None = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            installed = None
        fits = installed is not None and one.specifier.contains(installed, prereleases=True)
        rows.append(
            {"name": one.name, "installed": installed, "wanted": str(one.specifier), "fits": fits}
        )
    return rows


def _read(path: str) -> str:
    """A file of the kernel, or nothing where the system has none."""
    return Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).is_file() else ""


def _cpu() -> dict[str, Any]:
    fields = dict(line.split(":", 1) for line in _read("/proc/cpuinfo").splitlines() if ":" in line)
    stripped = {name.strip(): value.strip() for name, value in fields.items()}
    flags = (stripped.get("flags") or stripped.get("Features") or "").split()
    return {
        "model": stripped.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": cores(),
        "quota_cores": quota_cores(),
        "isa": [name for name in _ISA if name in flags] if flags else None,
    }


def _cache(folder: Path) -> dict[str, Any]:
    """Asks only: the folder is made when it is first needed."""
    standing = next(
        parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists()
    )
    status = standing.stat()
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    exists = folder.exists()
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
    environment = ALLOCATOR | dict(os.environ)
    keeps = None
    if sys.platform == "linux":
        done = _child(_ASK_ALLOCATOR, 30, environment)
        keeps = (
            done.stdout.strip() == "1"
            if isinstance(done, subprocess.CompletedProcess) and done.returncode == 0
            else None
        )
    here = {name: os.environ.get(name) for name in ALLOCATOR}
    return {
        "libc": " ".join(platform.libc_ver()).strip(),
        "here": here,
        "workers": {name: environment[name] for name in ALLOCATOR},
        "workers_keep_memory": keeps,
    }


def _child(
    code: str, seconds: int, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str] | str:
    """A finished child process, or the reason why there is none."""
    command = [sys.executable, "-c", code]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds} s"


def _tool(name: str, programs: tuple[str, ...]) -> str | None:
    """Where an optional tool is, or None."""
    if programs:
        return next(filter(None, map(shutil.which, programs)), None)
    spec = importlib.util.find_spec(name)
    return spec.origin if spec else None


def problems(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, remedy) for everything in an examination that hinders or slows the work."""
    for package in facts["packages"]:
        if not package["fits"]:
            what = f"{package['name']} {package['installed'] or 'is missing'}"
            yield (
                f"{what}; wanted: {package['wanted']}",
                "pip install --upgrade scaling; in a checkout, `make test` installs what is pinned",
            )
    if "error" in facts["jax"]:
        yield (
            f"jax does not start: {facts['jax']['error']}",
            "fix JAX_PLATFORMS, XLA_FLAGS or the driver; JAX_PLATFORMS=cpu always works",
        )
    elif facts["accelerator_driver"] and facts["jax"]["backend"] == "cpu":
        yield (
            "an accelerator is here, but jax uses the CPU",
            "install jax for it, for example: pip install 'jax[cuda12]'",
        )
    yield from _processor_problems(facts["cpu"], facts["environment"])
    free_bytes = facts["disk"]["free_bytes"]
    memory = min(
        (
            facts["memory"][key]
            for key in ("available_bytes", "limit_bytes")
            if facts["memory"][key]
        ),
        default=None,
    )
    if free_bytes < 2**30:
        yield (
            f"{format_bytes(free_bytes)} free in {facts['disk']['folder']}",
            "free a GiB: results, checkpoints and the corpus need space",
        )
    if memory is not None and memory < 2**31:
        yield (
            f"{format_bytes(memory)} of memory available",
            "end other programs, or run with --workers 1",
        )
    cache = facts["cache"]
    if not cache["writable"] or cache["own"] is False:
        yield (
            f"the cache {cache['folder']} is not yours to write",
            "set SCALING_CACHE to a folder of your own",
        )
    if facts["allocator"]["workers_keep_memory"] is False:
        yield (
            "training processes return their memory at every step: about half the speed",
            "use glibc, or preload tcmalloc (LD_PRELOAD)",
        )


def _processor_problems(
    cpu: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    if (
        cpu["architecture"] in ("x86_64", "AMD64")
        and cpu["isa"] is not None
        and "avx2" not in cpu["isa"]
    ):
        yield (
            "the processor has no AVX2",
            "training works, several times slower; use another machine for long sweeps",
        )
    if cpu["quota_cores"] is not None and cpu["quota_cores"] < cpu["usable_cores"]:
        workers = max(1, int(cpu["quota_cores"]))
        what = (
            f"{cpu['usable_cores']} cores are visible, but the container may use "
            f"{cpu['quota_cores']:g}"
        )
        yield what, f"run with --workers {workers} and NPROC=1"
    threads = environment.get("NPROC")
    if threads is not None and not (threads.isdigit() and 0 < int(threads) <= cpu["usable_cores"]):
        yield (
            f"NPROC = {threads!r} on {cpu['usable_cores']} usable cores",
            "unset it, or set a number of cores you have",
        )


def render(facts: Mapping[str, Any]) -> Group:
    """The examination for people: a table of facts, the packages in one line, and the problems with
    their remedies.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _facts(facts):
        table.add_row(Text(name, style="bold"), Text(_printable(value)))
    listed = [
        Text(f"! {_printable(problem['what'])}\n    {problem['remedy']}", style="yellow")
        for problem in facts["problems"]
    ]
    return Group(table, Text(), *(listed or [Text("nothing is wrong", style="green")]))


def _printable(text: str) -> str:
    """Text without control characters, with which it could draw on the screen."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    cpu, memory, jax = facts["cpu"], facts["memory"], facts["jax"]
    yield "python", f"{facts['python']['version']} on {facts['python']['platform']}"
    yield (
        "packages",
        ", ".join(f"{one['name']} {one['installed'] or 'missing'}" for one in facts["packages"]),
    )
    yield (
        "cpu",
        f"{cpu['model']}, {cpu['usable_cores']} of {cpu['cores']} cores, "
        f"{' '.join(cpu['isa'] or ['instruction set unknown'])}",
    )
    yield (
        "memory",
        " of ".join(
            format_bytes(memory[key]) for key in ("available_bytes", "total_bytes") if memory[key]
        )
        or "unknown",
    )
    yield "disk", f"{format_bytes(facts['disk']['free_bytes'])} free in {facts['disk']['folder']}"
    yield "cache", f"{facts['cache']['folder']} ({_cache_state(facts['cache'])})"
    devices = [f"{one['kind']} ({one['platform']})" for one in jax.get("devices", [])]
    yield (
        "devices",
        jax.get("error")
        or ", ".join(f"{devices.count(kind)} x {kind}" for kind in dict.fromkeys(devices)),
    )
    keeps = {
        True: "kept between steps",
        False: "returned at every step",
        None: "not known on this system",
    }
    yield (
        "allocator",
        f"{facts['allocator']['libc']}; memory of training processes is "
        f"{keeps[facts['allocator']['workers_keep_memory']]}",
    )
    yield (
        "environment",
        ", ".join(f"{name}={value}" for name, value in facts["environment"].items())
        or "nothing set",
    )
    for name, tool in facts["tools"].items():
        yield name, f"{tool['path'] or 'missing'} ({tool['for']})"


def _cache_state(cache: Mapping[str, Any]) -> str:
    if not cache["exists"]:
        return "made when needed"
    return (
        f"{'writable' if cache['writable'] else 'not writable'}, "
        f"{'private' if cache['private'] else 'open to others'}"
    )
