"""Who trains which runs of a folder: every process that trains holds a lease, so that any number share one sweep.

leases/<name>.json names the runs that a process has in hand; leases/<name>.lock is locked in the kernel as long as that
process or one of its workers lives. A lease ends when the lock is free (same machine: at once), or when nobody has seen
its heartbeat for `EXPIRES` seconds of the observer's own clock (another host, or a stopped process); wall clocks are
never compared. Whoever ends a lease removes its file, and a worker publishes only while the file of its lease is there.
Decisions are made one at a time under one lock file. Where a file system honours no locks, two processes may train one
run: the results are the same to the bit, and the first one published stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from scaling import files
from scaling.errors import STOPPED, ScalingError
from scaling.execute.events import RunProgress
from scaling.execute.locks import FolderLock, is_locked, try_lock

BEAT, EXPIRES = 4.0, 24.0  # seconds: whoever takes over has waited less than 30


@dataclass(frozen=True)
class OtherProcess:
    """Another process's lease: where it runs, the runs it has in hand, and what they said last."""

    name: str
    host: str
    runs: frozenset[str]
    progress: tuple[RunProgress, ...] = ()
    eta_seconds: float | None = None
    readable: bool = True


@dataclass
class HeartbeatMonitor:
    """What this process has seen of the others' heartbeats, by its own clock."""

    seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def is_alive(self, folder: Path, name: str, boot: str | None) -> bool:
        """Whether a lease stands. Raises FileNotFoundError when it ended meanwhile."""
        if boot == boot_id() and not is_locked(folder / f"{name}.lock"):
            return False
        path = folder / f"{name}.json"

        def modified() -> int:
            with open(path, "rb") as handle:  # opening asks a network file system for the truth
                return os.fstat(handle.fileno()).st_mtime_ns

        stamp = files.retry(path, modified)
        known, since = self.seen.get(name, (None, 0.0))
        if known != stamp:
            self.seen[name] = (stamp, time.monotonic())
            return True
        return time.monotonic() - since < EXPIRES


@dataclass
class Lease:
    """The runs that this process has in hand; a context manager. `lost` is called once if another process ended it.

    Where its workers are not `here`, they do not hold the lock: then the heartbeat alone says that the lease stands.
    """

    sweep_folder: Path
    lost: Callable[[], None] = lambda: None
    here: bool = True
    name: str = field(default_factory=lambda: owner_name())
    runs: set[str] = field(default_factory=set)
    watch: HeartbeatMonitor = field(default_factory=HeartbeatMonitor)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.folder = self.sweep_folder / "leases"
        self.path = self.folder / f"{self.name}.json"
        self._decision = FolderLock(self.folder / ".lock")

    def __enter__(self) -> Lease:
        files.check_local(self.folder)
        with files.guarded(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
        with self.locked():  # no other process may remove the lock file before it is locked
            lock = self.folder / f"{self.name}.lock"
            with files.guarded(lock, "lock"):
                self.lock_fd = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
                # without locks of the kernel the heartbeat alone says that this lease stands
                self.here = try_lock(self.lock_fd) is not None and self.here
            self._write()
        self._heart = threading.Thread(target=self._heartbeat, daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._heart.join()
        # where the disk fails, the end of the lock says it all
        with contextlib.suppress(OSError, ScalingError):
            _end(self.folder, self.name)
        os.close(self.lock_fd)

    def _write(self) -> None:
        document = {
            "name": self.name,
            "host": socket.gethostname(),
            "boot": boot_id() if self.here else None,
            "pid": os.getpid(),
            "runs": sorted(self.runs),
        }
        files.write_json(self.path, document, indent=None, durable=False)

    def _heartbeat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                os.utime(self.path)
                if not _read(self.path)[1]:
                    self._write()  # damaged on the disk: the others wait for this
            except FileNotFoundError:
                self.lost()
                return
            except (
                OSError,
                ScalingError,
            ):  # a disk that answers again before the lease expires is no matter
                continue

    @contextlib.contextmanager
    def locked(self) -> Iterator[set[str]]:
        """Alone in the folder: yields the runs that others have in hand, after ending the leases of the dead.

        Raises ScalingError (75) when the decision of another takes longer than a minute.
        """
        with self._decision.hold():
            others = [peer for peer in self._readable_peers() if peer.name != self.name]
            yield {run_id for peer in others for run_id in peer.runs}

    def _readable_peers(self) -> list[OtherProcess]:
        """All living peers; a lease that is damaged is mended by its owner's next heartbeat, or else it expires."""
        deadline = time.monotonic() + EXPIRES
        while True:
            found = peers(self.sweep_folder, self.watch, remove_expired=True)
            damaged = [peer for peer in found if not peer.readable]
            if not damaged:
                return found
            if time.monotonic() > deadline:
                for peer in damaged:
                    _end(self.folder, peer.name)
            time.sleep(0.2)

    def is_alone(self) -> bool:
        """Whether no other process trains here."""
        with self.locked():
            return all(peer.name == self.name for peer in peers(self.sweep_folder, self.watch))

    def claim(self, run_ids: Iterable[str]) -> None:
        """Take runs in hand; inside `locked`. Raises ScalingError (75) when this lease was ended by another process."""
        self.runs |= set(run_ids)
        self._rewrite()

    def release(self, run_ids: Iterable[str]) -> None:
        """Leave runs to whoever wants them (or because they have ended)."""
        with self.locked():
            self.runs -= set(run_ids)
            self._rewrite()

    def _rewrite(self) -> None:
        if not files.exists(self.path):
            raise ScalingError(
                "this process was silent for so long (stopped? suspended?) that its runs were given to others",
                where=str(self.path),
                remedy="run again: finished runs are kept",
                exit_code=STOPPED,
            )
        self._write()

    def publish_progress(self, groups: Iterable[RunProgress], eta_seconds: float | None) -> None:
        """Tell `scaling status` how the runs in hand stand; that it cannot be written is no reason
        to stop.
        """
        runs = [group.model_dump(mode="json") for group in groups]
        document = {"runs": runs, "eta_seconds": eta_seconds}
        with contextlib.suppress(ScalingError):
            files.write_json(
                self.folder / f"{self.name}.live.json", document, indent=None, durable=False
            )


def peers(
    sweep_folder: Path, watch: HeartbeatMonitor, *, remove_expired: bool = False
) -> list[OtherProcess]:
    """The processes that train in a folder now. With `remove_expired` (inside `locked`) the leases of dead ones are removed."""
    folder, found = sweep_folder / "leases", []
    for path in files.list_files(folder, ".json"):
        if path.name.endswith(".live.json"):
            continue
        with contextlib.suppress(FileNotFoundError):  # ended while we looked
            document, readable = _read(path)
            if watch.is_alive(folder, path.stem, document.get("boot")):
                found.append(_peer(path, document, readable))
            elif remove_expired:
                _end(folder, path.stem)
    if remove_expired:
        _remove_stale_files(folder)
    return found


def _end(folder: Path, name: str) -> None:
    """Remove the files of a lease; without the first of them its workers publish nothing more."""
    for kind in ("json", "live.json", "lock"):
        with files.guarded(folder / f"{name}.{kind}", "remove"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)


def _remove_stale_files(folder: Path) -> None:
    """Remove what a kill left of leases that were being made or ended."""
    for kind in ("live.json", "lock"):
        for path in files.list_files(folder, f".{kind}"):
            lease = folder / f"{path.name.removesuffix(f'.{kind}')}.json"
            if not files.exists(lease) and not (kind == "lock" and is_locked(path)):
                with files.guarded(path, "remove"):
                    path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], bool]:
    try:
        document = files.read_json(path)
        runs = document.get("runs")
        return document, isinstance(runs, list) and all(isinstance(run_id, str) for run_id in runs)
    except (
        files.ChecksumError
    ):  # its owner writes it anew with its next claim; until then it holds what we cannot know
        return {}, False


def _peer(path: Path, document: dict[str, Any], readable: bool) -> OtherProcess:
    runs = frozenset(document["runs"]) if readable else frozenset()
    peer = OtherProcess(path.stem, str(document.get("host", "?")), runs, readable=readable)
    try:
        live = files.read_json(path.with_name(f"{path.stem}.live.json"))
        progress = tuple(RunProgress.model_validate_json(json.dumps(run)) for run in live["runs"])
        eta = None if live["eta_seconds"] is None else float(live["eta_seconds"])
    except (OSError, ScalingError, files.ChecksumError, LookupError, TypeError, ValueError):
        return peer  # not written yet, or corrupt: the next second brings another
    return replace(peer, progress=progress, eta_seconds=eta)


@cache
def boot_id() -> str:
    """What tells this machine's start from every other; locks of the kernel can be asked for within it."""
    path = Path("/proc/sys/kernel/random/boot_id")
    try:
        return files.retry(path, path.read_text).strip()
    except FileNotFoundError:
        return socket.gethostname()


def owner_name() -> str:
    """A name for a process that no other process on any host has had."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
