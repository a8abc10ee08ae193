"""Worker processes: requests go in as lines and events come out as lines (`scaling.execute.worker`
is the other end).
"""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from scaling.execute.environment import python_module, worker_environment
from scaling.execute.lease import Lease

LOG_CHARACTERS = 4000  # of the end of a log, kept with a failure
GLOG_FATAL = re.compile(r"F[0-9]{4} [^\]]*\] (.*)")  # how XLA reports what it dies of


class ExitReason(NamedTuple):
    """How a worker process ended (an exit code, or minus a signal), and the end of its log."""

    code: int
    log: str

    @property
    def is_asked_for(self) -> bool:
        """Whether another process has ended it."""
        return self.code in (-signal.SIGKILL, -signal.SIGTERM)

    @property
    def message(self) -> str:
        """The line of the log that says why: a fatal check, or else an exception; may be empty."""
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        fatal = [match[1] for line in lines if (match := GLOG_FATAL.match(line))]
        if fatal:
            return fatal[0][:300]
        is_error = bool(lines) and re.match(r"[A-Za-z_.]+(Error|Exception|Interrupt)\b", lines[-1])
        return lines[-1][:300] if is_error else ""

    def __str__(self) -> str:
        cause = signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"
        if self.message:
            return f"{cause}: {self.message}"
        is_killed = self.code in (-signal.SIGKILL, -signal.SIGABRT)
        return f"{cause} (out of memory?)" if is_killed else cause


def end_of_log(path: Path) -> str:
    """The last characters of a log; none where it is absent."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
    return ""


class Worker(ABC):
    """A process that trains: requests go in as lines, events come out as lines, until it dies."""

    @abstractmethod
    def send(self, line: str) -> None:
        """Send a line; a process that has died takes nothing, and its `events` end."""

    @abstractmethod
    def events(self) -> Iterator[str]:
        """Lines as they come; ends when the process has ended."""

    @abstractmethod
    def signal(self, number: int) -> None:
        """SIGTERM: save and exit; SIGKILL: die now."""

    def alive(self) -> bool:
        """Whether it can still take a request."""
        return True

    def close(self) -> None:  # noqa: B027 - a simulated one has nothing to close
        """Close its input and wait until it has ended."""

    def exit_reason(self) -> ExitReason:
        """Why it ended; call after `events` has ended."""
        return ExitReason(0, "")


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
        return ExitReason(self.process.wait(), end_of_log(self._log))


def launch_prefix(count: int) -> list[str]:
    """What is put before a worker's command so that it starts once on each of the job's `count`
    nodes; nothing for one.

    srun gives every line of its stdin to all tasks and passes their lines on at once. Never send
    srun a SIGTERM: it kills its tasks. SIGUSR1 and SIGUSR2 reach every task, and so does the end of
    stdin.
    """
    options = f"--nodes={count} --ntasks={count} --ntasks-per-node=1 --kill-on-bad-exit=1"
    return ["srun", *options.split()] if count > 1 else []


def local_launcher(
    folder: Path, lease: Lease, workers: int, hosts: int = 1
) -> Callable[[], LocalWorker]:
    """What starts workers as children of this process, each with its share of the cores; they hold
    its lease.

    With several `hosts` a worker is one process on each node of the Slurm job.
    """
    count = itertools.count()
    command = [*launch_prefix(hosts), *python_module("scaling"), "train", "--serve", str(folder)]
    command += ["--coordinator", "auto"] if hosts > 1 else []
    save = signal.SIGUSR1 if hosts > 1 else signal.SIGTERM  # srun kills its tasks at SIGTERM

    def start() -> LocalWorker:
        log = folder / "logs" / f"{lease.name}-{next(count)}.log"
        return LocalWorker(command, log, worker_environment(workers), [lease.lock_fd], save)

    return start
