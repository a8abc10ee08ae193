"""The seam to a machine: a worker is a process that trains, wherever it runs; a launcher starts one.

Orders go in as lines and events come out as lines (`scaling.execute.worker` is the other end). Everything else (which run
is next, retries, leases, budgets) is the coordinator's, and the same for every engine.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from scaling.execute.environment import worker_environment


class Worker(Protocol):
    """A process that trains: orders go in as lines, events come out as lines, until it dies."""

    def send(self, line: str) -> None:
        """Hand it a line; one that has died already takes nothing, and `events` says so by its end."""

    def events(self) -> Iterator[str]:
        """Lines as they come; ends when the process has ended."""

    def alive(self) -> bool:
        """Whether it can still take an order."""

    def signal(self, number: int) -> None:
        """SIGTERM: save and leave; SIGKILL: die now."""

    def close(self) -> None:
        """No more orders: it ends, and is waited for."""

    def death(self) -> tuple[str, str]:
        """After `events` has ended: what killed it, and its last words."""


class Launcher(Protocol):
    """Starts workers on some kind of machine; where places are `scarce`, a worker without work must not keep one."""

    scarce: bool

    def start(self, index: int) -> Worker:
        """A new worker; `index` names its log."""

    def close(self) -> None:
        """Give back what was held for the workers."""


class LocalWorker:
    """A child process on this machine, in a session of its own: the terminal's Ctrl-C reaches the coordinator alone."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: dict[str, str],
        inherited: Sequence[int] = (),
        save: int = signal.SIGTERM,
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log, self._save = log, save
        with open(log, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,
                pass_fds=tuple(inherited),
            )

    def send(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def events(self) -> Iterator[str]:
        """The lines of its stdout."""
        assert self.process.stdout is not None
        yield from self.process.stdout

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal (for SIGTERM, the one that lets it save); nothing to do where it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(self._save if number == signal.SIGTERM else number)

    def close(self) -> None:
        """Close its stdin and wait; a log without a word is removed."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        if self._log.exists() and self._log.stat().st_size == 0:
            self._log.unlink()

    def death(self) -> tuple[str, str]:
        """The signal or exit code, and the end of its log."""
        code = self.process.wait()
        words = (
            self._log.read_text(encoding="utf-8", errors="replace")[-4000:]
            if self._log.exists()
            else ""
        )
        return signal.Signals(-code).name if code < 0 else f"exit code {code}", words


class LocalLauncher:
    """Workers as children of this process, each with its share of the cores. `prefix` is put before the command (`srun ...`)."""

    scarce = False

    def __init__(
        self,
        folder: Path,
        name: str,
        workers: int,
        *,
        inherited: Sequence[int] = (),
        prefix: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        self.folder, self.name, self.workers = folder, name, workers
        self.inherited, self.prefix, self.arguments = inherited, tuple(prefix), tuple(arguments)
        self._starting, self._count = threading.Lock(), itertools.count()

    def start(self, index: int) -> LocalWorker:
        """A new child."""
        command = [
            *self.prefix,
            sys.executable,
            "-m",
            "scaling",
            "train",
            "--serve",
            str(self.folder),
            *self.arguments,
        ]
        log = self.folder / "logs" / f"{self.name}-{index}-{next(self._count)}.log"
        with self._starting:
            save = (
                signal.SIGUSR1 if self.prefix else signal.SIGTERM
            )  # srun kills its tasks at a SIGTERM
            return LocalWorker(command, log, worker_environment(self.workers), self.inherited, save)

    def close(self) -> None:
        """Nothing is held."""
