"""What runs on a node of a Ray cluster: an actor that starts a training process and relays its
lines.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scaling import __version__
from scaling.execute.environment import cores, python_module, worker_environment
from scaling.execute.local import LocalWorker


@dataclass(frozen=True)
class ActorSpec:
    """What each of the `hosts` actors of a worker starts on its node, with `cpus` cores and, if
    `only_cores`, no devices.
    """

    folder: str
    hosts: int
    cpus: float
    only_cores: bool
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    variables: Mapping[str, str]
    version: str = __version__


class TrainingActor:
    """Starts a training process on its node. Its methods run in threads of their own, so that
    signals arrive while lines are awaited.
    """

    def address(self) -> str:
        """A host and free port of this node, where the processes of the worker are to meet."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def start(self, spec: ActorSpec, log: str, process: int, coordinator: str | None) -> str:
        """Start the process, with stderr in the file `log`; returns the node's address."""
        import ray

        if spec.version != __version__:
            raise RuntimeError(
                f"this node has scaling {__version__}, the coordinator {spec.version}"
            )
        if not Path(spec.folder).is_dir():
            raise RuntimeError(
                f"this node has no folder {spec.folder}: results must be on a file system that all "
                "nodes share"
            )
        command = [*(spec.command or python_module("scaling")), "train", "--serve", spec.folder]
        command += spec.arguments
        if coordinator is not None:
            command += ["--coordinator", coordinator]
            command += ["--processes", str(spec.hosts), "--process", str(process)]
        # as many threads as it has cores of the node to itself
        variables = worker_environment(max(1, round(cores() / spec.cpus)) if spec.cpus else 1)
        if spec.only_cores:  # Ray hides no device from those who asked for none (2.60)
            variables = {"JAX_PLATFORMS": "cpu"} | variables
        self.worker = LocalWorker(command, Path(log), variables | dict(spec.variables))
        self._lines = self.worker.events()
        return str(ray.util.get_node_ip_address())

    def take(self, started: str) -> tuple[str, str]:
        """The next line that the process prints, when it comes; or else "" and what ended it.

        `started` and the parameters of that name below make Ray wait for `start`.
        """
        line = next(self._lines, "")
        return line, "" if line else self.worker.exit_reason().cause

    def send(self, started: str, line: str) -> None:
        """Hand on a request."""
        self.worker.send(line)

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self.worker.signal(number)

    def close(self, started: str) -> None:
        """No more requests."""
        self.worker.end_input()
