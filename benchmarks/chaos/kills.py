"""Random kills: a real sweep is killed again and again (the coordinator, a worker, everything at
once) until it is done.

Between kills the folder is read as `scaling status` and `scaling fit` read it. Every completed
sweep is judged against an
undisturbed one, and another is begun until there were enough kills.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from benchmarks.chaos.verdict import Verdict, Witness, judge, numbers
from scaling.errors import ScalingError
from scaling.execute.status import read_status
from scaling.execute.sweep_folder import SweepFolder
from scaling.store import run_files

WORKERS = 2
TARGETS = ("coordinator", "worker", "everything")
PATIENCE = 900.0  # seconds an undisturbed completion may take before it counts as stuck
FIRST, LAST = (
    0.05,
    7.0,
    # seconds between two kills, log-uniform: some before a worker is up, some after several
    # checkpoints
)


def command(sweep: Path, folder: Path) -> list[str]:
    """The sweep as a user runs it; a run may be killed more often than retries are usual."""
    return [
        sys.executable,
        "-m",
        "scaling",
        "run",
        str(sweep),
        "--out",
        str(folder),
        "--workers",
        str(WORKERS),
        "--retries",
        "1000",
    ]


def start(sweep: Path, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Begin or go on."""
    log = open(folder.parent / f"{folder.name}.log", "ab")  # noqa: SIM115 - the child keeps it
    with log:
        return subprocess.Popen(
            command(sweep, folder), stdout=log, stderr=log, env=dict(environment)
        )


def children(pid: int) -> list[int]:
    """Child processes, none once it has ended."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def kill(process: subprocess.Popen[bytes], target: str, chance: random.Random) -> bool:
    """SIGKILL to what is named; False where it has ended already."""
    workers = children(process.pid)
    victims = {
        "coordinator": [process.pid],
        "worker": chance.sample(workers, min(1, len(workers))),
        "everything": [process.pid, *workers],
    }
    hit = False
    for victim in victims[target]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            hit = True
    if target != "worker":
        process.wait()
    return hit


def read(folder: Path, verdict: Verdict, where: str) -> None:
    """Read as users do; a folder that holds nothing yet may say so."""
    try:
        status = read_status(SweepFolder(folder))
        if run_files.has_runs(folder):
            damaged = run_files.load(folder).attrs["corrupt"]
            verdict.notes += [f"{where}: {text}" for text in [*damaged, *status.warnings]]
    except ScalingError as error:
        if "holds no sweep" not in error.what and "no finished runs" not in error.what:
            verdict.fault("stuck", f"{where}: {error}")


def torment(
    sweep: Path,
    folder: Path,
    want: pd.DataFrame,
    chance: random.Random,
    most: int,
    environment: Mapping[str, str] = os.environ,
) -> Verdict:
    """Kill a sweep at random moments, at most `most` times, until it is done; judge it."""
    verdict, witness = Verdict(), Witness(folder)
    process = start(sweep, folder, environment)
    while verdict.kills < most:
        try:
            process.wait(FIRST * (LAST / FIRST) ** chance.random())
            break
        except subprocess.TimeoutExpired:
            target = chance.choice(TARGETS)
        where = f"{folder.name}, kill {verdict.kills + 1} ({target})"
        verdict.kills += kill(process, target, chance)
        read(folder, verdict, where)
        witness.look(verdict, where)
        if process.poll() is not None:
            process = start(sweep, folder, environment)
    _complete(process, sweep, folder, environment, verdict)
    witness.look(verdict, folder.name)
    judge(folder, want, verdict, folder.name)
    return verdict


def _complete(
    process: subprocess.Popen[bytes],
    sweep: Path,
    folder: Path,
    environment: Mapping[str, str],
    verdict: Verdict,
) -> None:
    """Leave it alone until it is done."""
    deadline = time.monotonic() + PATIENCE
    while (code := _end(process, deadline)) != 0:
        if code is None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            verdict.fault(
                "stuck",
                f"{folder.name}: not done after {PATIENCE:g} s without a kill (exit code {code})",
            )
            return
        process = start(sweep, folder, environment)


def _end(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    try:
        return process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


def undisturbed(
    sweep: Path, folder: Path, environment: Mapping[str, str] = os.environ
) -> pd.DataFrame:
    """The numbers of the sweep when nothing happens."""
    subprocess.run(
        command(sweep, folder),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
    )
    return numbers(folder)


def torments(
    sweep: Path,
    scratch: Path,
    want: pd.DataFrame,
    seed: int,
    kills: int,
    environment: Mapping[str, str] = os.environ,
) -> Verdict:
    """Sweeps after sweeps until there were `kills` kills."""
    chance, verdict = random.Random(seed), Verdict()
    while verdict.kills < kills:
        folder = scratch / f"seed{seed}-{verdict.sweeps}"
        found = torment(sweep, folder, want, chance, kills - verdict.kills, environment)
        verdict.add(found)
        if not found.faults:
            shutil.rmtree(folder)
    return verdict
