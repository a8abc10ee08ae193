"""Which process trains which runs of a folder: every process that trains holds a lease, so that any
number share one sweep.

leases/<name>.json names the runs that a process has claimed; leases/<name>.lock is locked in the
kernel as long as that process or one of its workers lives. A lease ends when the lock is free (same
machine: at once), or when its heartbeat has not changed for `EXPIRES` seconds of the observer's own
clock (another host, or a stopped process); wall clocks are never compared. The process that ends a
lease removes its file, and a worker publishes only while the file of its lease is there. Claims are
made one at a time under one lock file. Where a file system honours no locks, two processes may
train one run: the results are the same to the bit, and the first one published stays.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from scaling import files
from scaling.errors import STOPPED, ScalingError
from scaling.execute.events import RunProgress
from scaling.execute.locks import hold, is_locked, try_lock

BEAT, EXPIRES = 4.0, 24.0  # seconds: a takeover takes less than 30
# of each lease its last heartbeat, and when this process saw it first, by its own clock
Heartbeats = dict[str, tuple[int, float]]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LeaseFile(_Document):
    """leases/<name>.json. `boot`: of the machine whose kernel holds the lock, if one does."""

    boot: str | None
    runs: tuple[str, ...]


class ProgressFile(_Document):
    """leases/<name>.live.json: the groups in training, and the time left."""

    runs: tuple[RunProgress, ...] = ()
    eta_seconds: float | None = None


Document = TypeVar("Document", bound=_Document)


@dataclass(frozen=True)
class OtherProcess:
    """Another process's lease: its claims and its progress."""

    name: str
    claims: frozenset[str]
    progress: ProgressFile


def _is_alive(path: Path, boot: str | None, seen: Heartbeats) -> bool:
    """Whether a lease stands. Raises FileNotFoundError when it ended meanwhile."""
    if boot == boot_id() and not is_locked(path.with_suffix(".lock")):
        return False

    def modified() -> int:
        with open(path, "rb") as handle:  # opening asks a network file system for the truth
            return os.fstat(handle.fileno()).st_mtime_ns

    stamp = files.retry(path, modified)
    known, since = seen.get(path.stem, (None, 0.0))
    if known != stamp:
        seen[path.stem] = (stamp, time.monotonic())
        return True
    return time.monotonic() - since < EXPIRES


class Lease:
    """The `runs` that this process has claimed; a context manager. `is_lost` says that
    another process has ended it.

    Where the file system has no kernel locks, `has_kernel_lock` is false: then the heartbeat alone
    says that the lease stands.
    """

    def __init__(self, sweep_folder: Path) -> None:
        host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
        self.name = f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.sweep_folder, self.folder = sweep_folder, sweep_folder / "leases"
        self.path = self.folder / f"{self.name}.json"
        self.runs: set[str] = set()
        self.has_kernel_lock = True
        self.is_lost = False
        self.seen: Heartbeats = {}
        self._over = threading.Event()

    def __enter__(self) -> Lease:
        files.check_local(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.disk_error(error, self.folder) from error
        with self.locked():  # no other process may remove the lock file before it is locked
            lock = self.path.with_suffix(".lock")
            with files.as_disk_error(lock, "lock"):
                self.lock_fd = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
                self.has_kernel_lock = try_lock(self.lock_fd) is not None
            self._write()
        self._heart = threading.Thread(target=self._heartbeat, daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._heart.join()
        # where the disk fails, the end of the lock says it all
        with contextlib.suppress(OSError, ScalingError):
            _end(self.path)
        os.close(self.lock_fd)

    def _write(self) -> None:
        boot = boot_id() if self.has_kernel_lock else None
        lease = LeaseFile(boot=boot, runs=tuple(sorted(self.runs)))
        self._write_json(self.path, lease)

    def _write_json(self, path: Path, document: _Document) -> None:
        """A sweep's folder that was moved away is not made again."""
        content = document.model_dump(mode="json")
        files.write_json(path, content, indent=None, durable=False, parents=False)

    def _heartbeat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                self.is_lost = True
                return
            except (OSError, ScalingError):
                continue  # the disk may answer again before the lease expires

    @contextlib.contextmanager
    def locked(self) -> Iterator[set[str]]:
        """Alone in the folder: yields the runs that others have claimed, after ending the leases of
        dead processes.

        Raises ScalingError (75) when another process holds the folder for over a minute, and when
        the folder is gone.
        """
        if not self.folder.exists():
            raise lost_error(self.path)
        with hold(self.folder / ".lock"):
            others = peers(self.sweep_folder, self.seen, remove_expired=True)
            yield {run for peer in others if peer.name != self.name for run in peer.claims}

    def is_alone(self) -> bool:
        """Whether no other process trains here."""
        with self.locked():
            return all(p.name == self.name for p in peers(self.sweep_folder, self.seen))

    def claim(self, run_ids: Iterable[str]) -> None:
        """Claim runs; inside `locked`. Raises ScalingError (75) when this lease was ended by
        another process.
        """
        self._update(self.runs | set(run_ids))

    def release(self, run_ids: Iterable[str]) -> None:
        """Leave runs to any process (or because they have ended)."""
        with self.locked():
            self._update(self.runs - set(run_ids))

    def _update(self, runs: set[str]) -> None:
        self.runs = runs
        if not files.exists(self.path):
            raise lost_error(self.path)
        self._write()

    def publish_progress(self, groups: Iterable[RunProgress], eta_seconds: float | None) -> None:
        """Tell `scaling status` how the claimed runs stand; that it cannot be written is no reason
        to stop.
        """
        finite = tuple(group for group in groups if math.isfinite(group.loss))
        progress = ProgressFile(runs=finite, eta_seconds=eta_seconds)
        with contextlib.suppress(ScalingError):
            self._write_json(self.path.with_suffix(".live.json"), progress)


def lost_error(path: Path) -> ScalingError:
    """The error of a process whose lease was ended by another, or has gone with its folder."""
    what = "its lease has ended (was this process stopped for long?): others took over its runs"
    remedy = "run again: finished runs are kept"
    if not path.parent.exists():
        what = "the folder was moved or removed while its runs were trained"
        remedy = "where it is now, `scaling run FOLDER/sweep.toml` goes on"
    return ScalingError(what, where=path.parent.parent, remedy=remedy, exit_code=STOPPED)


def peers(
    sweep_folder: Path, seen: Heartbeats, *, remove_expired: bool = False
) -> list[OtherProcess]:
    """The processes that train in a folder now. With `remove_expired` (inside `locked`) the files
    of dead ones are removed, and a corrupt lease is ended: its process stops and can be started
    again.
    """
    folder, alive = sweep_folder / "leases", []
    for path in files.list_files(folder, ".json"):
        if path.name.endswith(".live.json"):
            continue
        with contextlib.suppress(FileNotFoundError):  # ended meanwhile
            lease = _read(path, LeaseFile)
            if lease and _is_alive(path, lease.boot, seen):
                progress = None
                with contextlib.suppress(OSError, ScalingError):  # the next second brings another
                    progress = _read(path.with_suffix(".live.json"), ProgressFile)
                claims = frozenset(lease.runs)
                alive.append(OtherProcess(path.stem, claims, progress or ProgressFile()))
            elif remove_expired:
                _end(path)
    for kind in (".live.json", ".lock") if remove_expired else ():
        for path in files.list_files(folder, kind):  # what a kill left of a lease
            lease_path = folder / f"{path.name.removesuffix(kind)}.json"
            if not files.exists(lease_path) and not (kind == ".lock" and is_locked(path)):
                with files.as_disk_error(path, "remove"):
                    path.unlink(missing_ok=True)
    return alive


def _end(path: Path) -> None:
    """Remove the files of a lease; without the first of them its workers publish nothing more."""
    for suffix in (".json", ".live.json", ".lock"):
        with files.as_disk_error(path.with_suffix(suffix), "remove"):
            path.with_suffix(suffix).unlink(missing_ok=True)


def _read(path: Path, model: type[Document]) -> Document | None:
    """A document; None where it is corrupt. Raises FileNotFoundError, DiskError."""
    try:
        return model.model_validate(files.read_json(path))
    except (files.ChecksumError, ValidationError):
        return None


@cache
def boot_id() -> str:
    """What tells this machine's start from every other: within it locks of the kernel hold."""
    path = Path("/proc/sys/kernel/random/boot_id")
    try:
        return files.retry(path, path.read_text).strip()
    except FileNotFoundError:
        return socket.gethostname()
