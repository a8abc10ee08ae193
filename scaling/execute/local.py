"""Worker processes: the interface of every executor (`Worker`, `Launcher`), and local child
processes.

Requests go in as lines and events come out as lines (`scaling.execute.worker` is the other end).
Everything else (which run is next, retries, leases, budgets) belongs to the coordinator and is the
same for every executor.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from scaling.execute.environment import python_module, worker_environment
from scaling.execute.lease import Lease

LOG_CHARACTERS = 4000  # of the end of a log, kept with a failure
GLOG_FATAL = re.compile(r"F[0-9]{4} [^\]]*\] (.*)")  # how XLA reports what it dies of


class ExitReason(NamedTuple):
    """What ended a worker process (a signal or an exit code), and the end of its log."""

    cause: str
    log: str

    @property
    def message(self) -> str:
        """The line of the log that says why: a fatal check, or else an exception; may be empty."""
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        fatal = [match[1] for line in lines if (match := GLOG_FATAL.match(line))]
        if fatal:
            return fatal[0][:300]
        is_error = bool(lines) and re.match(r"[A-Za-z_.]+(Error|Exception|Interrupt)\b", lines[-1])
        return lines[-1][:300] if is_error else ""


class Worker:
    """A process that trains: requests go in as lines, events come out as lines, until it dies."""

    def send(self, line: str) -> None:
        """Send a line; a process that has died takes nothing, and its `events` end."""
        raise NotImplementedError

    def events(self) -> Iterator[str]:
        """Lines as they come; ends when the process has ended."""
        raise NotImplementedError

    def signal(self, number: int) -> None:
        """SIGTERM: save and exit; SIGKILL: die now."""
        raise NotImplementedError

    def alive(self) -> bool:
        """Whether it can still take a request."""
        return True

    def close(self) -> None:
        """Close its input and wait until it has ended."""

    def exit_reason(self) -> ExitReason:
        """Why it ended; call after `events` has ended."""
        return ExitReason("", "")


class Launcher:
    """Starts workers; where they are `limited`, an idle one is closed."""

    limited = False

    def start(self, index: int) -> Worker:
        """A new worker; `index` names its log."""
        raise NotImplementedError

    def slots(self) -> int | None:
        """Workers that fit at once; None for one per core or accelerator of this machine."""
        return None

    def attach(self, lease: Lease, workers: int) -> None:
        """Start up to `workers` workers under a lease from now on."""

    def close(self) -> None:
        """Release what the workers used."""


class LocalWorker(Worker):
    """A child process in a session of its own: Ctrl-C in the terminal reaches the coordinator
    alone.
    """

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
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has died, or was closed
            self.process.stdin.write(line.rstrip("\n") + "\n")
            self.process.stdin.flush()

    def events(self) -> Iterator[str]:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            yield from lines

    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(self._save if number == signal.SIGTERM else number)

    def end_input(self) -> None:
        """Close its stdin."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def close(self) -> None:
        """Close its stdin and wait; an empty log is removed."""
        self.end_input()
        self.process.wait()
        if self._log.exists() and self._log.stat().st_size == 0:
            self._log.unlink()

    def exit_reason(self) -> ExitReason:
        code, log = self.process.wait(), ""
        if self._log.exists():
            log = self._log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
        return ExitReason(signal.Signals(-code).name if code < 0 else f"exit code {code}", log)


class LocalLauncher(Launcher):
    """Workers as children of this process, each with its share of the cores.

    `prefix` stands before the command (`srun ...`), `arguments` after it; children inherit the
    file descriptors `inherited`.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "worker",
        workers: int = 1,
        *,
        inherited: Sequence[int] = (),
        prefix: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        self.folder, self.name, self.workers = folder, name, workers
        self.inherited, self.prefix, self.arguments = inherited, tuple(prefix), tuple(arguments)
        self._starting, self._count = threading.Lock(), itertools.count()

    def attach(self, lease: Lease, workers: int) -> None:
        self.name, self.workers, self.inherited = lease.name, workers, [lease.lock_fd]

    def start(self, index: int) -> LocalWorker:
        command = [
            *self.prefix,
            *python_module("scaling"),
            "train",
            "--serve",
            str(self.folder),
            *self.arguments,
        ]
        log = self.folder / "logs" / f"{self.name}-{index}-{next(self._count)}.log"
        save = signal.SIGUSR1 if self.prefix else signal.SIGTERM  # srun kills its tasks at SIGTERM
        with self._starting:
            return LocalWorker(command, log, worker_environment(self.workers), self.inherited, save)
