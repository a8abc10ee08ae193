"""Single bits flipped in every kind of file of a sweep: is each noticed, and does none change a
result?
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pandas as pd

from benchmarks.chaos.verdict import numbers
from scaling.errors import ScalingError
from scaling.execute.lease import Lease
from scaling.execute.verify import inspect
from scaling.store import run_files

LAW = "published:hoffmann2022"
STOPPED = """
import itertools, sys
from pathlib import Path
from scaling.config.run_groups import RunGroup
from scaling.config.sweep_file import load_sweep
from scaling.plan import plan
from scaling.tasks import open_task
from scaling.train.trainer import train
sweep = load_sweep(Path(sys.argv[1]))
task, count = open_task(sweep.base.task), itertools.count()
run = plan(sweep, sweep.base.task, task.vocab_size).runs[0].run
path = Path(sys.argv[2]) / f"{run.run_id}.npz"
train(RunGroup((run,)), task, lambda _: path, should_stop=lambda: next(count) > 3)
"""


def whole_sweep(sweep: Path, folder: Path) -> Lease:
    """A folder with every kind of file: merged and single runs, a failure, fits, a
    checkpoint, a lease in force.
    """
    scaling("run", sweep, "--out", folder, "--simulate", LAW, "--max-runs", "6")
    scaling("results", "compact", folder)
    scaling("run", sweep, "--out", folder, "--simulate", LAW)
    scaling("fit", folder, "--bootstrap", "20")
    subprocess.run(
        [sys.executable, "-c", STOPPED, str(sweep), str(folder / "checkpoints")], check=True
    )
    (folder / "damaged").mkdir(exist_ok=True)
    return Lease(folder)


def scaling(*arguments: object) -> None:
    """The command, which may say that runs have diverged."""
    done = subprocess.run(
        [sys.executable, "-m", "scaling", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{arguments}: {done.stderr}")


def flip(folder: Path, chance: random.Random, want: pd.DataFrame) -> str:
    """Flip one bit of one file, look, and flip it back; returns what was wrong with that, empty for
    nothing.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = chance.choice(files)
    before = path.read_bytes()
    place, bit = chance.randrange(len(before)), chance.randrange(8)
    path.write_bytes(before[:place] + bytes([before[place] ^ 1 << bit]) + before[place + 1 :])
    try:
        return _look(folder, path, want, f"{path.relative_to(folder)}, byte {place}, bit {bit}")
    finally:
        path.write_bytes(before)


def _look(folder: Path, path: Path, want: pd.DataFrame, where: str) -> str:
    name = str(path.relative_to(folder))
    corrupt = {item.path for item in inspect(folder) if item.state == "corrupt"}
    if name not in corrupt:
        return f"unnoticed: {where}"
    if path.suffix != ".parquet":
        return _fits(path, where)
    try:
        found = numbers(folder)
        told = run_files.load(folder).attrs["corrupt"]
    except ScalingError as error:
        return "" if path.name in str(error) else f"not named: {where}: {error}"
    kept = want[want["run_id"].isin(set(found["run_id"]))].reset_index(drop=True)
    if not kept.equals(found):
        return f"changed a result: {where}"
    return "" if any(path.name in text for text in told) else f"not told by readers: {where}"


def _fits(path: Path, where: str) -> str:
    """Reading a corrupt fit must raise."""
    if path.parent.name != "fits":
        return ""
    from scaling.fit.result import FitResult

    try:
        FitResult.load(path)
    except ScalingError:
        return ""
    return f"a corrupt fit was read: {where}"
