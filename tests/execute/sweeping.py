"""Sweeps as a user runs them, and how a test looks at them from outside."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling.store import run_files
from tests import command_line

CLOCK = ["seconds"]
# Put into every process by Python itself, at its start: what one worker does, once, at a save.
AT_A_SAVE = """
import os
if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    import signal, time
    from scaling.execute.signals import Signals
    from scaling.train import local_checkpoint, trainer
    trainer.MIN_SAVE_SECONDS, trainer.MAX_SAVE_SHARE = 0.0, 1e9  # after every dispatch
    save, note, asked = local_checkpoint.save, Signals._note, []
    def noted(self, number, frame):
        asked.append(number)
        note(self, number, frame)
    def saved(*arguments):
        save(*arguments)
        try:
            os.mkdir(__file__ + ".reached")
        except FileExistsError:
            return
        {action}
    Signals._note, local_checkpoint.save = noted, saved
"""
DIE = "os.kill(os.getpid(), signal.SIGKILL)"
WAIT = "while not asked: time.sleep(0.05)"  # for a signal


def optimised():
    """The environment for sweeps that take thousands of steps: the tests' own compiles quickly and
    computes slowly.
    """
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


def command(*args):
    return [sys.executable, "-m", "scaling", *map(str, args)]


def scaling(*args, **options):
    """In a process of its own where it may train, or has an environment."""
    may_train = args[0] in ("run", "train", "tune") and "--simulate" not in args
    if may_train or options:
        return subprocess.run(command(*args), capture_output=True, text=True, **options)
    return command_line.scaling(*args)


def numbers(folder):
    """All rows but the clock's, in a fixed order."""
    table = run_files.load(Path(folder)).drop(columns=CLOCK)
    table = table[table["metric"] != "tokens_per_second"]
    return table.sort_values(["run_id", "step", "split", "metric"]).reset_index(drop=True)


def wait_for(condition, process=None):
    """Return when something has happened; fails if `process` ends without it."""
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert process is None or process.poll() is None or condition(), "ended without it"
        time.sleep(0.05)


class AtASave:
    """What a worker is to do at a save: `environment` brings it to the processes of a sweep."""

    def __init__(self, folder, action):
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(AT_A_SAVE.replace("{action}", action))
        self.environment = {"PYTHONPATH": str(folder)}
        self.is_reached = (folder / "sitecustomize.py.reached").exists


def training(folder):
    """Whether a run of the sweep has taken steps."""
    with contextlib.suppress(FileNotFoundError):  # its process has just ended
        return any(
            json.loads(path.read_text())["runs"] for path in folder.glob("leases/*.live.json")
        )
    return False


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
