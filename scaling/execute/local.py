"""Worker processes: requests go in as lines and events come out as lines (`scaling.execute.worker`
is the other end).
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import re
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from scaling.execute.environment import python_module, worker_environment
from scaling.execute.events import EVENTS, RunEvent
from scaling.execute.lease import Lease
from scaling.execute.worker import REQUESTS, TrainRequest

LOG_CHARACTERS = 4000  # of the end of a log, kept with a failure
GLOG_FATAL = re.compile(r"F[0-9]{4} [^\]]*\] (.*)")  # how XLA reports what it dies of
EXCEPTION = re.compile(r"[A-Za-z_.]+(Error|Exception|Interrupt)\b")


class ExitReason(NamedTuple):
    """How a worker process ended (an exit code, or minus a signal), and the end of its log."""

    code: int
    log: str

    @property
    def message(self) -> str:
        """The line of the log that says why: a fatal check, or else an exception; may be empty."""
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        fatal = [match[1] for line in lines if (match := GLOG_FATAL.match(line))]
        if not fatal and lines and EXCEPTION.match(lines[-1]):
            fatal = lines[-1:]
        return fatal[0][:300] if fatal else ""

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
    """What trains groups, one after another, and puts what happens to them into a queue of events:
    a process, or this one where nothing needs one.
    """

    @abstractmethod
    def train(self, request: TrainRequest) -> None:
        """Begin to train a group; a process that has died takes nothing."""

    @abstractmethod
    def signal(self, number: int) -> None:
        """SIGTERM: save and exit; SIGKILL: die now."""

    def alive(self) -> bool:
        """Whether it can still take a request."""
        return True

    def close(self) -> None:  # noqa: B027 - a simulated one has nothing to close
        """Close its input and wait until it has ended."""

    def exit_reason(self) -> ExitReason:
        """Why it ended."""
        return ExitReason(0, "")


# a worker and what it says: None when it has ended, an error where it cannot be understood
WorkerEvents = queue.SimpleQueue[tuple[Worker, RunEvent | BaseException | None]]


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
        """Send a line; a process that has died takes nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has died, or was closed
            self.process.stdin.write(line.rstrip("\n") + "\n")
            self.process.stdin.flush()

    def train(self, request: TrainRequest) -> None:
        self.send(REQUESTS.dump_json(request).decode())

    def read(self, sink: WorkerEvents) -> None:
        """Pass its lines on as events, to its end."""
        assert self.process.stdout is not None
        try:
            with self.process.stdout as lines:
                for line in lines:
                    sink.put((self, EVENTS.validate_json(line)))
            sink.put((self, None))
        except BaseException as error:  # noqa: BLE001 - raised again by the coordinator
            sink.put((self, error))

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
) -> Callable[[WorkerEvents], LocalWorker]:
    """What starts workers as children of this process, each with its share of the cores; they hold
    its lease.

    With several `hosts` a worker is one process on each node of the Slurm job.
    """
    count = itertools.count()
    command = [*launch_prefix(hosts), *python_module("scaling"), "train", "--serve", str(folder)]
    command += ["--coordinator", "auto"] if hosts > 1 else []
    save = signal.SIGUSR1 if hosts > 1 else signal.SIGTERM  # srun kills its tasks at SIGTERM

    def start(sink: WorkerEvents) -> LocalWorker:
        log = folder / "logs" / f"{lease.name}-{next(count)}.log"
        worker = LocalWorker(command, log, worker_environment(workers), [lease.lock_fd], save)
        threading.Thread(target=worker.read, args=(sink,), daemon=True).start()
        return worker

    return start
