"""Errors of the file system at every kind of call on a sweep's own files: no traceback, no good
file set aside, none retrained.

The commands run in this process. Calls of `os` and `open` on paths below the sweep's folder are
counted, and from the k-th on they fail (once, or for good), as a full disk, a lost mount or too
many open files would have it.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import io
import os
import random
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from scaling import files
from scaling.errors import DISK, RUNS_FAILED, STOPPED
from scaling.execute.ledger import summarize
from scaling.store import run_files

LAW = "published:hoffmann2022"
READS = ("open", "read", "scandir", "listdir", "stat", "lstat", "fstat", "statvfs", "flock")
WRITES = (
    "open",
    "write",
    "fsync",
    "replace",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "utime",
)
CODES = ("EIO", "ESTALE", "EMFILE", "ENFILE", "ETIMEDOUT", "ENOSPC", "EDQUOT", "EACCES", "EROFS")
CODES += ("EINTR", "EAGAIN", "EBUSY", "ENOLCK", "EREMOTEIO", "ENOTCONN", "EHOSTDOWN", "ENOMEM")
ALLOWED = (0, RUNS_FAILED, DISK, STOPPED)


@dataclass
class Faults:
    """The k-th call of one name below a folder fails with an error, once or from then on."""

    folder: Path
    call: str = ""
    code: int = 0
    first: int = 0
    lasting: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    raised: int = 0

    def check(self, call: str, path: Any) -> None:
        """Count a call, and raise where it is the one that fails."""
        if isinstance(path, int):
            with contextlib.suppress(OSError):
                path = READLINK(f"/proc/self/fd/{path}")
        if not self.is_below(path):
            return
        self.counts[call] = count = self.counts.get(call, 0) + 1
        if call == self.call and (count == self.first or (self.lasting and count > self.first)):
            self.raised += 1
            raise OSError(self.code, os.strerror(self.code), os.fsdecode(path))

    def is_below(self, path: Any) -> bool:
        """Whether a path is below the folder."""
        try:
            return os.path.abspath(os.fsdecode(path)).startswith(f"{self.folder}/")
        except TypeError:
            return False


READLINK = os.readlink


class _Opened:
    """An open file whose reads and writes may fail."""

    def __init__(self, handle: Any, faults: Faults, path: Any) -> None:
        self._handle, self._faults, self._path = handle, faults, path

    def __getattr__(self, name: str) -> Any:
        call = "write" if name.startswith("write") else "read" if name.startswith("read") else ""
        if call and name not in ("writable", "readable"):
            self._faults.check(call, self._path)
        return getattr(self._handle, name)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._handle)


@contextlib.contextmanager
def injected(faults: Faults) -> Iterator[Faults]:
    """Route the calls of this process through `faults`."""
    names = {*READS, *WRITES} - {"read", "write"}
    modules = {name: fcntl if name == "flock" else os for name in names}
    real = {name: getattr(module, name) for name, module in modules.items()}
    real_open = io.open

    def patched(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            faults.check(name, arguments[0] if arguments else ".")
            return real[name](*arguments, **keywords)

        return call

    def opened(file: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        if isinstance(file, int):
            file_name = READLINK(f"/proc/self/fd/{file}")
        else:
            file_name = file
            faults.check("open", file)
        handle = real_open(file, mode, *arguments, **keywords)
        return _Opened(handle, faults, file_name) if faults.is_below(file_name) else handle

    pauses = files._PAUSES
    try:
        for name, module in modules.items():
            setattr(module, name, patched(name))
        builtins.open = io.open = opened  # type: ignore[assignment]
        files._PAUSES = (0.0, 0.0, 0.0)
        yield faults
    finally:
        for name, module in modules.items():
            setattr(module, name, real[name])
        builtins.open = io.open = real_open
        files._PAUSES = pauses


def template(sweep: Path, folder: Path) -> None:
    """A folder with compacted and single run files, ledger and plan, and a run that is still to be
    trained.
    """
    for arguments in (
        ["run", sweep, "--out", folder, "--simulate", LAW, "--max-runs", "5"],
        ["results", "compact", folder],
        ["run", sweep, "--out", folder, "--simulate", LAW, "--max-runs", "2"],
    ):
        result = invoke(*arguments)
        if result:
            raise RuntimeError(result)


def invoke(*arguments: Any, allowed: tuple[int, ...] = (0,)) -> str:
    """Run a command in this process; returns what is wrong with its end, empty for nothing."""
    from scaling.cli.app import app

    uncaught: list[str] = []
    hook = threading.excepthook
    threading.excepthook = lambda error: uncaught.append(repr(error.exc_value))
    try:
        result = CliRunner().invoke(app, [str(item) for item in arguments])
    finally:
        threading.excepthook = hook
    shown = " ".join(str(item) for item in arguments[:2])
    if uncaught:
        return f"{shown}: a thread ended in {uncaught[0]}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        lines = traceback.format_exception(result.exception)
        return f"{shown}: traceback {result.exception!r}\n{''.join(lines[-6:])}"
    if result.exit_code not in allowed:
        return f"{shown}: exit {result.exit_code}: {result.output[-300:]}"
    return ""


def scenarios(sweep: Path, folder: Path) -> dict[str, Callable[[], str]]:
    """What is done to a folder while calls fail; each returns what went wrong."""

    def command(*arguments: Any) -> Callable[[], str]:
        return lambda: invoke(*arguments, allowed=ALLOWED)

    out = folder.parent / "fit.json"
    return {
        "run": command("run", sweep, "--out", folder, "--simulate", LAW),
        "status": command("status", folder),
        "compact": command("results", "compact", folder),
        "check": command("results", "check", folder),
        "fit": command("fit", folder, "--law", "power", "--bootstrap", "0", "--out", out),
        "checkpoint": lambda: _checkpoint(folder / "checkpoints" / "state.npz"),
    }


def _checkpoint(path: Path) -> str:
    """Save and restore a state twice, as a run that is interrupted does."""
    from scaling.train import local_checkpoint

    state = [np.arange(4.0), np.ones((2, 3))]
    try:
        for step in (1, 2):
            local_checkpoint.save(path, state, {"step": step})
            local_checkpoint.restore(path, lambda progress: state)
    except files.DiskError:
        return ""
    except OSError:
        return ""  # the worker turns it into a DiskError
    except local_checkpoint.Unreadable as error:
        return f"checkpoint taken for corrupt: {error}"
    return ""


def inject(
    sweep: Path, scratch: Path, count: int, seed: int = 0, only: tuple[str, ...] = ()
) -> tuple[int, list[str]]:
    """(injected errors, what was wrong), with errors at random calls until there are `count`."""
    chance, whole, folder = random.Random(seed), scratch / "whole", scratch / "torn"
    template(sweep, whole)
    finished = run_files.finished_run_ids(whole)
    names = only or tuple(scenarios(sweep, folder))
    calls: dict[tuple[str, str], int] = {}
    for name in names:
        _copy(whole, folder)
        with injected(Faults(folder)) as faults:
            scenarios(sweep, folder)[name]()
        calls |= {(name, call): times for call, times in faults.counts.items()}
    wrong: list[str] = []
    total = 0
    while total < count:
        name, call = chance.choice(sorted(calls))
        code = chance.choice(CODES)
        _copy(whole, folder)
        faults = Faults(
            folder,
            call,
            getattr(errno, code),
            chance.randint(1, calls[name, call]),
            chance.random() < 0.5,
        )
        with injected(faults):
            problem = scenarios(sweep, folder)[name]()
        total += bool(faults.raised)
        where = f"{name}, {call} {faults.first} {code}{' lasting' if faults.lasting else ''}"
        wrong += [f"{where}: {text}" for text in (problem, _judge(folder, finished)) if text]
    return total, wrong


def _copy(whole: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)


def _judge(folder: Path, finished: set[str]) -> str:
    """What the errors have cost: a good file set aside, a finished run lost or trained again."""
    aside = [*folder.glob("damaged/*"), *folder.rglob("*.damaged")]
    if aside:
        return f"set aside: {aside[0].name}"
    lost = finished - run_files.finished_run_ids(folder)
    if lost:
        return f"lost: {sorted(lost)[0]}"
    attempts = summarize(folder).attempts
    again = [run_id for run_id in finished if attempts[run_id] > 1]
    return f"trained again: {again[0]}" if again else ""
