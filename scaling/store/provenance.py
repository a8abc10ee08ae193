"""Provenance of a result: digest of the code that decides it, the commit, and library versions."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
DECISIVE = (
    "train/**/*.py",
    "tasks/**/*.py",
    "config/base.py",
    "config/model.py",
    "config/task.py",
    "config/optim.py",
    "config/run.py",
    "config/resolve_execution.py",
    "config/run_groups.py",
)  # the code that decides a run's numbers
# by which compilers and drivers compute other numbers
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


@cache
def code_digest() -> str:
    """Twelve hex digits of the source that decides a run's numbers."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in DECISIVE for path in PACKAGE.glob(pattern)):
        name = path.relative_to(PACKAGE).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """The versions of the libraries that decide the bits."""
    return {name: metadata.version(name) for name in LIBRARIES}


def compiler_flags() -> str:
    """XLA_FLAGS as they are, and the other `FLAGS` by name."""
    others = [f"{name}={os.environ[name]}" for name in FLAGS[1:] if name in os.environ]
    return " ".join([*filter(None, [os.environ.get("XLA_FLAGS")]), *others])


@cache
def commit() -> str | None:
    """The commit of this program's checkout, or None where it is installed without one."""
    done = subprocess.run(
        ["git", "-C", str(PACKAGE), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else None
