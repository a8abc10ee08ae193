"""The part of the Ray engine that lives on a node: an actor that starts the training process there and relays its lines."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scaling import __version__
from scaling.execute.environment import cores, worker_environment

ORDERS, EVENTS, CONTROL = (
    "orders",
    "events",
    "control",
)  # a thread of the actor each: signals are heard while events are awaited


@dataclass(frozen=True)
class ActorSpec:
    """What each of the `hosts` relays of a worker is to start on its node, with `cpus` cores and, if `only_cores`, no devices."""

    folder: str
    hosts: int
    cpus: float
    only_cores: bool
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    settings: Mapping[str, str]
    version: str = __version__


class TrainingActor:
    """The actor: starts the training process on its node, hands orders to it and keeps its lines until they are fetched.

    Ray repeats a call when the network failed, so every method may be called twice with the same effect.
    """

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._lines: list[str] = []
        self._dropped, self._orders = 0, 0
        self._code: int | None = None
        self._process: subprocess.Popen[str] | None = None

    def address(self) -> str:
        """A host and free port of this node, where the processes of the worker are to meet."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def begin(self, duty: ActorSpec, journal: str, process: int, coordinator: str | None) -> str:
        """Start the process, with stderr in the file `journal`; returns the node's address. Raises what keeps it from starting."""
        import ray

        if duty.version != __version__:
            raise RuntimeError(
                f"this node has scaling {__version__}, the coordinator {duty.version}"
            )
        if not Path(duty.folder).is_dir():
            raise RuntimeError(
                f"this node has no folder {duty.folder}: results must be on a file system that all nodes share"
            )
        if self._process is None:
            command = [
                *(duty.command or (sys.executable, "-m", "scaling")),
                "train",
                "--serve",
                duty.folder,
                *duty.arguments,
            ]
            if coordinator is not None:
                command += [
                    "--coordinator",
                    coordinator,
                    "--processes",
                    str(duty.hosts),
                    "--process",
                    str(process),
                ]
            with open(journal, "w", encoding="utf-8") as errors:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=_environment(duty),
                    start_new_session=True,
                )
            threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        return str(ray.util.get_node_ip_address())

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        code = process.wait()
        with self._news:
            self._code = code
            self._news.notify_all()

    def take(self, seen: int) -> tuple[list[str], int | None]:
        """Lines after the first `seen`, as soon as there are some; at the end none and the exit code."""
        with self._news:
            del self._lines[: max(0, seen - self._dropped)]
            self._dropped = max(seen, self._dropped)
            self._news.wait_for(lambda: self._lines or self._code is not None)
            return list(self._lines), None if self._lines else self._code

    def send(self, number: int, line: str) -> None:
        """Hand on order `number`, counted from 0."""
        if number >= self._orders and self._process is not None and self._process.stdin is not None:
            self._orders = number + 1
            with contextlib.suppress(
                BrokenPipeError, ValueError
            ):  # that it has died is told by `take`
                self._process.stdin.write(line.rstrip("\n") + "\n")
                self._process.stdin.flush()

    def close(self) -> None:
        """No more orders."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        if self._process is not None:
            self._process.send_signal(number)


def _environment(duty: ActorSpec) -> dict[str, str]:
    """The variables of the process: the node's, with as many threads as it has cores of the node to itself.

    Ray hides the devices of others; from a worker that asked for none it hides nothing (2.60), and jax would take them all.
    """
    chosen = worker_environment(max(1, round(cores() / duty.cpus)) if duty.cpus else 1) | dict(
        duty.settings
    )
    return ({"JAX_PLATFORMS": "cpu"} if duty.only_cores else {}) | chosen
