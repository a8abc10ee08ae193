"""The Ray engine: each worker is a Ray actor that starts the training process on its node and relays its lines.

Ray decides which node a worker goes to, tells of dead nodes, and ends everything when the coordinator dies. The results
folder must be on a file system that all nodes share: orders carry no data, and a run whose node died is taken up from its
checkpoint by a worker on another node. Every node needs this program in the same version. Nothing here imports ray before
it is used.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError
from scaling.execute.lease import Lease
from scaling.execute.local import ExitReason
from scaling.execute.ray_actor import CONTROL, EVENTS, ORDERS, ActorSpec, TrainingActor
from scaling.execute.ray_cluster import (
    Resources,
    connect,
    describe_capacity,
    import_ray,
    parse_resources,
)

__all__ = ["RayLauncher", "RayWorker", "Resources", "parse_resources"]

NOTICE_SECONDS = (
    10.0  # between looks at a worker that waits for its node; after the first the user is told
)
PATIENCE_SECONDS = 60.0  # how long a worker waits for a node that the cluster has lost
CLOSE_SECONDS = 300.0  # how long a worker that was told to leave may take to save
KILL_SECONDS = 5.0  # how long a SIGKILL may take to reach a process
FORWARDED = (
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
)  # settings of the coordinator's shell that change the numbers of a run
STOPPED_EARLY = "it was stopped before Ray had found a place for it"
# Without this Ray kills the children of an actor that ends, and a run whose coordinator has died could not save itself.
RUNTIME = {"env_vars": {"RAY_kill_child_processes_on_worker_exit": "0"}}


class RayWorker:
    """A worker on one node, or on several `hosts`: when a part of it dies, all of it does. Made by `RayLauncher.start`."""

    def __init__(self, launcher: RayLauncher, index: int) -> None:
        logs = launcher.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        rest = [f"{launcher.name}-{index}-host-{host}.log" for host in range(1, launcher.hosts)]
        self._journals = [logs / name for name in (f"{launcher.name}-{index}.log", *rest)]
        self._launcher, self._ray = launcher, launcher.ray
        self._lines: deque[str] = deque()
        self._seen, self._nodes, self._orders = [0] * launcher.hosts, [""] * launcher.hosts, 0
        self._gone: set[int] = set()  # processes that have ended
        self._cause, self._last_words = "", ""
        self._pumping = threading.Lock()
        self._asked, self._noticed, self._lacking = time.monotonic(), False, 0.0
        self._relays, self._release = launcher.place()
        self._calls: dict[
            Any, tuple[int, Callable[[Any], None]]
        ] = {}  # what was asked of whom, and who hears the answer
        meeting = self._call(0, ORDERS, "address") if launcher.hosts > 1 else None
        for host in range(launcher.hosts):
            call = self._call(
                host, ORDERS, "begin", launcher.duty, str(self._journals[host]), host, meeting
            )
            self._calls[call] = (host, functools.partial(self._on_begin, host))

    def send(self, line: str) -> None:
        """Hand an order to every process of the worker; one that has died takes nothing, and `events` says so by its end."""
        if self._calls:
            for host in range(len(self._relays)):
                self._call(host, ORDERS, "send", self._orders, line)
            self._orders += 1

    def events(self) -> Iterator[str]:
        """What the first process prints, a line at a time, until the worker has ended."""
        while self._lines or self._calls:
            while self._lines:
                yield self._lines.popleft()
            with self._pumping:
                if self._calls:
                    self._pump(NOTICE_SECONDS)

    def alive(self) -> bool:
        """Whether it can still be given orders; asked without waiting, from any thread."""
        if self._pumping.acquire(blocking=False):
            try:
                while self._calls and self._pump(0):
                    pass
            finally:
                self._pumping.release()
        return bool(self._calls)

    def signal(self, number: int) -> None:
        """Send a signal to every process; a worker that has no place yet is given up. SIGKILL has arrived at the return."""
        if not self._calls:
            return
        if all(self._nodes):
            self._signal(number, KILL_SECONDS if number == signal.SIGKILL else 0)
        elif not self._cause:
            self._cause = STOPPED_EARLY
            self._kill()

    def close(self) -> None:
        """Let it end, for want of orders, and wait for that; what does not leave is killed. Logs without a word are removed."""
        if not all(self._nodes):
            self.signal(signal.SIGTERM)
        if self._calls:
            for host in range(len(self._relays)):
                self._call(host, ORDERS, "close")
        deadline = time.monotonic() + CLOSE_SECONDS
        with self._pumping:
            while self._calls and (left := deadline - time.monotonic()) > 0:
                self._pump(left)
            if self._calls:
                self._end(0, f"killed: it had not left after {CLOSE_SECONDS:.0f} s")
        for journal in self._journals:
            if journal.exists() and journal.stat().st_size == 0:
                journal.unlink()

    def exit_reason(self) -> ExitReason:
        """After the end of `events`: what ended the worker, and the end of the log of the process that died first."""
        return ExitReason(self._cause, self._last_words)

    def _call(self, host: int, group: str, method: str, *arguments: Any) -> Any:
        return (
            getattr(self._relays[host], method).options(concurrency_group=group).remote(*arguments)
        )

    def _pump(self, seconds: float) -> bool:
        """Wait for an answer of a relay and act on it; says whether one came."""
        ready, _ = self._ray.wait(list(self._calls), timeout=seconds)
        for call in ready:
            host, answered = self._calls.pop(call)
            try:
                answered(self._ray.get(call))
            except self._ray.exceptions.RayError as error:
                self._gone.add(host)
                self._end(host, _reason(self._ray, error, self._nodes[host]))
        if not ready and not all(self._nodes):
            self._wait_on()
        return bool(ready)

    def _on_begin(self, host: int, node: str) -> None:
        self._nodes[host] = node
        self._take(host)

    def _take(self, host: int) -> None:
        self._calls[self._call(host, EVENTS, "take", self._seen[host])] = (
            host,
            functools.partial(self._on_lines, host),
        )

    def _on_lines(self, host: int, said: tuple[list[str], int | None]) -> None:
        """Lines of a process, or its exit code; a process that left of its own accord ends the worker when the others have."""
        lines, code = said
        self._seen[host] += len(lines)
        if host == 0:  # the others have nothing to say, but their end is told the same way
            self._lines.extend(lines)
        if code is None:
            return self._take(host)
        self._gone.add(host)
        if code != 0 or not self._calls:
            self._end(host, signal.Signals(-code).name if code < 0 else f"exit code {code}")
        return None

    def _wait_on(self) -> None:
        """The worker has no node yet: say so once; give up when the cluster has lost the last node that could hold it."""
        launcher, now = self._launcher, time.monotonic()
        if not self._noticed and now - self._asked >= NOTICE_SECONDS:
            self._noticed = True
            launcher.notice(
                f"waiting for {launcher.request} on {launcher.where} (busy, or starting)"
            )
        self._lacking = 0.0 if launcher.wait_for_nodes or launcher.slots() else self._lacking or now
        if self._lacking and now - self._lacking > PATIENCE_SECONDS:
            self._end(0, f"{launcher.where} has lost the nodes that could hold {launcher.request}")

    def _end(self, host: int, cause: str) -> None:
        """Note what ended the worker, and end what is left of it."""
        several = len(self._relays) > 1
        if not self._cause:
            place = f" on {self._nodes[host]}" if self._nodes[host] else ""
            self._cause = (
                f"process {host} of {len(self._relays)}{place}: {cause}" if several else cause
            )
        with contextlib.suppress(OSError):
            self._last_words = self._journals[host].read_text(encoding="utf-8", errors="replace")[
                -4000:
            ]
        self._calls.clear()
        self._kill()
        self._release()

    def _kill(self) -> None:
        """The processes first: the end of their orders alone would let them save, or wait for each other to save."""
        self._signal(signal.SIGKILL, KILL_SECONDS)
        for relay in self._relays:
            self._ray.kill(relay)

    def _signal(self, number: int, seconds: float) -> None:
        reached = [host for host, node in enumerate(self._nodes) if node and host not in self._gone]
        calls = [self._call(host, CONTROL, "signal", number) for host in reached]
        if calls and seconds:
            self._ray.wait(calls, num_returns=len(calls), timeout=seconds)


def _reason(ray: Any, error: Any, node: str) -> str:
    """What a failed call to an actor says of its worker, in one line."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"it could not be started: {error.cause}"
    text = str(error)
    detail = (
        text.partition("the actor's node was terminated")[2]
        or text.partition("Worker exit detail: ")[2]
        or text
    )
    detail = detail.strip(" :\n").partition("\n")[0].partition(". Some common causes")[0][:300]
    subject = "node" if "node has died" in text else "actor"
    return f"the Ray {subject}{f' {node}' if node else ''} died: {detail}"


class RayLauncher:
    """Starts workers on a Ray cluster: the one at `address` or RAY_ADDRESS, else the one running here, else one of its own.

    Args:
        folder: the sweep's folder, under the same path on all nodes.
        resources: what each process of a worker needs; Ray keeps it for the worker and shows it the devices.
        hosts: processes of a worker, on different nodes as far as there are enough.
        address: as `ray.init` takes it; "local" starts a Ray on this machine.
        name: what the workers' logs begin with.
        command: what stands before `train --serve DIR`; this program as the node has it, unless a test gives another.
        arguments: what stands after it.
        wait_for_nodes: accept that no node can hold a worker now, because an autoscaler will add one.
        notice: told in a line what a person should know.

    Raises ScalingError without ray, without the cluster, or where the cluster can never hold a worker.
    """

    limited = True

    def __init__(
        self,
        folder: Path,
        resources: Resources | None = None,
        *,
        hosts: int = 1,
        address: str | None = None,
        name: str = "worker",
        command: Sequence[str] = (),
        arguments: Sequence[str] = (),
        wait_for_nodes: bool = False,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.ray = import_ray()
        self.folder, self.resources, self.hosts, self.name = (
            folder.resolve(),
            resources or Resources(),
            hosts,
            name,
        )
        self.wait_for_nodes, self.notice = (
            wait_for_nodes,
            notice or logging.getLogger(__name__).warning,
        )
        self.request = f"{hosts} x {self.resources}" if hosts > 1 else str(self.resources)
        settings = {
            variable: os.environ[variable] for variable in FORWARDED if variable in os.environ
        }
        only_cores = not self.resources.gpu and not self.resources.custom
        self.duty = ActorSpec(
            str(self.folder),
            hosts,
            self.resources.cpu,
            only_cores,
            tuple(command),
            tuple(arguments),
            settings,
        )
        self._workers: list[RayWorker] = []
        self.where, self._ours = connect(self.ray, address)
        if not wait_for_nodes and self.slots() < 1:
            remedy = f"{describe_capacity(self.ray)}; ask for less, or with an autoscaler let the run wait for new nodes"
            self.close()
            raise ScalingError(
                f"no place for a worker that needs {self.request}", where=self.where, remedy=remedy
            )

    def slots(self) -> int:
        """Workers that the cluster's nodes can hold side by side when nothing else runs there."""
        return sum(self._places()) // self.hosts

    def attach(self, lease: Lease, workers: int) -> None:
        """Name the logs of the workers after the lease."""
        self.name = lease.name

    def start(self, index: int) -> RayWorker:
        """A new worker; returns at once, and the worker waits for its place while its events are awaited."""
        self._workers.append(RayWorker(self, index))
        return self._workers[-1]

    def close(self) -> None:
        """End every worker, and the connection to Ray if it was made here."""
        for worker in self._workers:
            worker.close()
        if self._ours:
            self.ray.shutdown()

    def place(self) -> tuple[list[Any], Callable[[], None]]:
        """Ask Ray for the actors of a worker; also returns what gives their places back."""
        groups = {ORDERS: 1, EVENTS: 1, CONTROL: 1}
        actor = self.ray.remote(
            num_cpus=self.resources.cpu, num_gpus=self.resources.gpu, resources=dict(self.resources.custom), max_restarts=0,
            max_task_retries=-1, concurrency_groups=groups, runtime_env=RUNTIME, scheduling_strategy="SPREAD",
        )(TrainingActor)  # fmt: skip  # calls are repeated while a node cannot be reached; the actor itself never is
        if self.hosts == 1:
            return [actor.remote()], lambda: None
        from ray.util.placement_group import placement_group, remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        enough = sum(places > 0 for places in self._places()) >= self.hosts
        group = placement_group(
            [self.resources.demand()] * self.hosts, strategy="STRICT_SPREAD" if enough else "SPREAD"
        )
        seats = [
            PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=host)
            for host in range(self.hosts)
        ]
        return [
            actor.options(scheduling_strategy=seat).remote() for seat in seats
        ], lambda: remove_placement_group(group)

    def _places(self) -> list[int]:
        """Processes that each living node can hold."""
        demand = self.resources.demand()
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return [
            min(int(total.get(name, 0) / amount + 1e-9) for name, amount in demand.items())
            for total in nodes
        ]
