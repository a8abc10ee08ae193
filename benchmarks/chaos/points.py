"""Every crash point: SIGKILL at the k-th call of each system call that can leave something behind,
k = 1, 2, 3 ...

A child takes over this process's imports by fork, waits, is watched by strace (the thread that
plans and trains), and goes on until the k-th call. Then the folder is read, the sweep is completed,
and judged.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from benchmarks.chaos.verdict import Verdict, Witness, judge, numbers
from scaling.cli.app import app

CALLS = (
    "rename",
    "renameat",
    "renameat2",
    "fsync",
    "fdatasync",
    "unlink",
    "unlinkat",
    "openat",
    "write",
    "pwrite64",
    "close",
    "link",
    "linkat",
    "mkdir",
    "utimensat",
    "ftruncate",
)
LAW = "published:hoffmann2022"
Prepare = Callable[[], None]


@dataclass(frozen=True)
class Point:
    """The k-th call of a system call in the main thread of the coordinator."""

    call: str
    k: int

    def __str__(self) -> str:
        """As it is named in the notes."""
        return f"{self.call} {self.k}"


def command(sweep: Path, folder: Path, *more: str) -> int:
    """`scaling run` with the simulated trainer, in this process; returns its exit code."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return scaling("run", str(sweep), "--out", str(folder), "--simulate", LAW, *more)


def scaling(*arguments: str) -> int:
    """The command line, in this process."""
    try:
        app(list(arguments), standalone_mode=True)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def attempt(
    sweep: Path,
    folder: Path,
    point: Point,
    log: Path | None = None,
    prepare: Prepare = lambda: None,
    more: tuple[str, ...] = (),
) -> int:
    """Run the sweep up to a point; returns the wait status. With `log`, nothing is injected and all
    calls are written down.
    """
    child = os.fork()
    if child == 0:
        _be_watched(sweep, folder, prepare, more)
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise RuntimeError(f"the child ended before it could be watched: {status}")
    what = (
        ["-o", str(log), "-e", f"trace={','.join(CALLS)}"]
        if log
        else [
            "-o",
            "/dev/null",
            "-e",
            f"trace={point.call}",
            "-e",
            f"inject={point.call}:signal=SIGKILL:when={point.k}",
        ]
    )
    tracer = subprocess.Popen(["strace", "-y", "-p", str(child), *what], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    if b"attached" not in (said := tracer.stderr.readline()):  # from here on no call is missed
        raise RuntimeError(f"strace cannot watch the child: {said.decode()}")
    os.kill(child, signal.SIGCONT)
    status = os.waitpid(child, 0)[1]
    tracer.communicate()
    return status


def _be_watched(sweep: Path, folder: Path, prepare: Prepare, more: tuple[str, ...]) -> None:
    """The child: stop where the tracer is to attach, then run."""
    try:
        prepare()
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(command(sweep, folder, *more))
    except BaseException:  # noqa: BLE001 - a child must never return into the harness
        os._exit(99)


def enumerate_points(sweep: Path, scratch: Path, more: tuple[str, ...] = ()) -> list[Point]:
    """All points of an undisturbed run that lie between its first and its last
    touch of the folder.
    """
    folder, log = scratch / "counted", scratch / "counted.log"
    shutil.rmtree(folder, ignore_errors=True)
    attempt(sweep, folder, Point("", 0), log, more=more)
    return [Point(call, k) for call, k in _touching(log, folder)]


def _touching(log: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """(call, k) of each logged call that names the folder or a file of it."""
    counts: Counter[str] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        called = re.match(r"(\w+)\(", line)
        if called and called[1] in CALLS:
            counts[called[1]] += 1
            if str(folder) in line:
                yield called[1], counts[called[1]]


def reference(sweep: Path, scratch: Path) -> pd.DataFrame:
    """The numbers of an undisturbed sweep."""
    if command(sweep, scratch / "undisturbed") != 0:
        raise RuntimeError("the undisturbed sweep failed")
    return numbers(scratch / "undisturbed")


def try_point(
    sweep: Path, scratch: Path, point: Point, want: pd.DataFrame, prepare: Prepare = lambda: None
) -> Verdict:
    """Kill at a point (of an earlier call where a run has fewer), read, complete, judge."""
    verdict, folder = Verdict(), scratch / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    status = attempt(sweep, folder, point, prepare=prepare)
    while not os.WIFSIGNALED(status) and point.k > 1:  # it made fewer calls than when counted
        point = replace(point, k=point.k // 2)
        shutil.rmtree(folder)
        status = attempt(sweep, folder, point, prepare=prepare)
    verdict.kills += os.WIFSIGNALED(status)
    witness = Witness(folder)
    witness.look(verdict, str(point))
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        read = scaling("status", str(folder), "--json") if folder.exists() else 0
    if read not in (0, 2):
        verdict.fault("stuck", f"{point}: status ended with {read}: {said.getvalue()[-200:]}")
    child = os.fork()  # the completion may hang or be patched: not in this process
    if child == 0:
        prepare()
        os._exit(command(sweep, folder))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0:
        verdict.fault("stuck", f"{point}: the next run ended with {code}")
        return verdict
    witness.look(verdict, str(point))
    judge(folder, want, verdict, str(point))
    for path in folder.rglob("*.tmp"):
        verdict.fault("stuck", f"{point}: {path.name} was left behind")
    return verdict
