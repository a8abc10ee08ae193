"""Sweeps as a user runs them, and how a test looks at them from outside."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling.store import run_files

CLOCK = ["seconds"]


def optimised():
    """The environment for sweeps that take thousands of steps: the tests' own compiles quickly and
    computes slowly.
    """
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


def command(*args):
    return [sys.executable, "-m", "scaling", *map(str, args)]


def scaling(*args, **options):
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=240, **options)


def numbers(folder):
    """All rows but the clock's, in a fixed order."""
    table = run_files.load(Path(folder)).drop(columns=CLOCK)
    table = table[table["metric"] != "tokens_per_second"]
    return table.sort_values(["run_id", "step", "split", "metric"]).reset_index(drop=True)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def training(folder):
    """Whether a run of the sweep has taken steps."""
    return any(json.loads(path.read_text())["runs"] for path in folder.glob("leases/*.live.json"))


def workers_of(process):
    """The worker processes of a running `scaling run`."""
    children = Path(f"/proc/{process.pid}/task")
    if not children.exists():
        process.kill()
        pytest.skip("needs /proc to find the workers")
    return {
        int(pid) for task in children.iterdir() for pid in (task / "children").read_text().split()
    }


def status(folder):
    """The status document."""
    return json.loads(scaling("status", folder, "--json").stdout)
