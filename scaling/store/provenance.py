"""What made a result: the program's own code, its commit, and the libraries that decide the bits."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parent
DECIDES = (
    "lm",
    "tasks",
    "config/base.py",
    "config/model.py",
    "config/task.py",
    "config/optim.py",
    "config/run.py",
    "settle.py",
    "family.py",
)  # the code that decides a run's numbers
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


@cache
def code_digest() -> str:
    """Twelve hex digits of the source that decides a run's numbers."""
    files = sorted(
        path
        for name in DECIDES
        for path in [PACKAGE / name, *(PACKAGE / name).rglob("*.py")]
        if path.suffix == ".py"
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(
            path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0"
        )
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """The versions of the libraries that decide the bits."""
    return {name: metadata.version(name) for name in LIBRARIES}


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
