"""The Ray executor: each worker is a Ray actor that starts the training process on its node.

Ray decides which node a worker goes to, notices dead nodes, and ends everything when the
coordinator dies. The results folder must be on a file system that all nodes share: requests carry
no data, and a run whose node died is resumed from its checkpoint by a worker on another node. Every
node needs this program in the same version. Nothing here imports ray before it is used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError
from scaling.execute.lease import Lease
from scaling.execute.local import LOG_CHARACTERS, ExitReason, Launcher, Worker
from scaling.execute.ray_actor import ActorSpec, TrainingActor
from scaling.execute.ray_cluster import (
    Resources,
    connect,
    describe_capacity,
    import_ray,
    parse_resources,
)

__all__ = ["RayLauncher", "RayWorker", "Resources", "parse_resources"]

NOTICE_SECONDS = 10.0  # that a worker waits for its node before the user is told
PATIENCE_SECONDS = 60.0  # how long a worker waits for a node that the cluster has lost
CLOSE_SECONDS = 300.0  # how long a worker that was asked to stop may take to save
KILL_SECONDS = 5.0  # how long a SIGKILL may take to reach a process
FORWARDED = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")  # of the coordinator: they change a run's numbers
STOPPED_EARLY = "it was stopped before Ray had found a node for it"
METHODS_AT_ONCE = 8
# Without this Ray kills the children of an actor that ends, and a run whose coordinator has died
# could not save itself.
RUNTIME = {"env_vars": {"RAY_kill_child_processes_on_worker_exit": "0"}}


class RayWorker(Worker):
    """A worker on one node, or on several `hosts`: when a part of it dies, all of it does. Made by
    `RayLauncher.start`.
    """

    def __init__(self, launcher: RayLauncher, index: int) -> None:
        logs = launcher.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        names = [f"{launcher.name}-{index}"]
        names += [f"{names[0]}-host-{host}" for host in range(1, launcher.hosts)]
        self._logs = [logs / f"{name}.log" for name in names]
        self._launcher, self._ray = launcher, launcher.ray
        self._cause, self._log = "", ""
        self._actors, self._release = launcher.make_actors()
        coordinator = self._actors[0].address.remote() if launcher.hosts > 1 else None
        self._started = [
            actor.start.remote(launcher.spec, str(log), host, coordinator)
            for host, (actor, log) in enumerate(zip(self._actors, self._logs, strict=True))
        ]
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()  # "" at the end
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def send(self, line: str) -> None:
        self._call("send", line)

    def _call(self, method: str, *arguments: Any) -> None:
        """Call a method of every actor once its process is started."""
        if self._watcher.is_alive():
            for actor, started in zip(self._actors, self._started, strict=True):
                getattr(actor, method).remote(started, *arguments)

    def events(self) -> Iterator[str]:
        """What the first process prints, a line at a time, until the worker has ended."""
        while line := self._lines.get():
            yield line
        self._lines.put("")
        self._watcher.join()

    def alive(self) -> bool:
        return self._watcher.is_alive()

    def signal(self, number: int) -> None:
        """Signal every process; a worker that has no node yet is given up. SIGKILL has arrived at
        the return.
        """
        if not self._watcher.is_alive():
            return
        if self._is_started():
            self._signal(number, KILL_SECONDS if number == signal.SIGKILL else 0.0)
        else:
            self._cause = self._cause or STOPPED_EARLY
            self._kill()

    def _is_started(self) -> bool:
        started, count = self._started, len(self._started)
        return len(self._ray.wait(started, num_returns=count, timeout=0)[0]) == count

    def _signal(self, number: int, seconds: float) -> None:
        calls = [actor.signal.remote(number) for actor in self._actors]
        if seconds:
            self._ray.wait(calls, num_returns=len(calls), timeout=seconds)

    def _kill(self) -> None:
        """The processes first: at the end of their input alone they would save, or wait for each
        other to save.
        """
        if self._is_started():
            self._signal(signal.SIGKILL, KILL_SECONDS)
        for actor in self._actors:
            self._ray.kill(actor)

    def close(self) -> None:
        """Let it end; after `CLOSE_SECONDS` it is killed. Empty logs are removed."""
        if self._is_started():
            self._call("close")
        else:
            self.signal(signal.SIGTERM)
        self._watcher.join(CLOSE_SECONDS)
        if self._watcher.is_alive():
            self._cause = f"killed: it had not ended after {CLOSE_SECONDS:.0f} s"
            self._kill()
            self._watcher.join()
        for log in self._logs:
            if log.exists() and log.stat().st_size == 0:
                log.unlink()

    def exit_reason(self) -> ExitReason:
        """What ended the worker, and the end of the log of the process that died first."""
        return ExitReason(self._cause, self._log)

    def _watch(self) -> None:
        """A thread: wait until every process has started, then for their lines; when one dies,
        kill the others.
        """
        host, node, cause = 0, "", ""
        try:
            self._wait_for_nodes()
            nodes = [self._ray.get(started) for started in self._started]
            calls = {self._take(host): host for host in range(len(nodes))}
            while calls and cause in ("", "exit code 0"):
                (call,), _ = self._ray.wait(list(calls))
                host = calls.pop(call)
                node = nodes[host]
                line, cause = self._ray.get(call)
                if not cause:
                    calls[self._take(host)] = host
                    if host == 0:  # the others only tell of their end
                        self._lines.put(line)
        except self._ray.exceptions.RayError as error:
            cause = _describe(self._ray, error, node)
        if len(self._actors) > 1 and not self._cause:
            place = f" on {node}" if node else ""
            cause = f"process {host} of {len(self._actors)}{place}: {cause}"
        self._cause = self._cause or cause
        with contextlib.suppress(OSError):
            text = self._logs[host].read_text(encoding="utf-8", errors="replace")
            self._log = text[-LOG_CHARACTERS:]
        self._kill()
        self._release()
        self._lines.put("")

    def _take(self, host: int) -> Any:
        return self._actors[host].take.remote(self._started[host])

    def _wait_for_nodes(self) -> None:
        """Say once that the worker waits for its nodes; give up when the cluster has lost the last
        node that could hold it.
        """
        launcher, waiting, lost_since = self._launcher, list(self._started), 0.0
        is_noticed = False
        while waiting:
            _, waiting = self._ray.wait(waiting, num_returns=len(waiting), timeout=NOTICE_SECONDS)
            if waiting and not is_noticed:
                is_noticed = True
                launcher.notice(
                    f"waiting for {launcher.request} on {launcher.where} (busy, or starting)"
                )
            now = time.monotonic()
            has_nodes = launcher.wait_for_nodes or launcher.slots()
            lost_since = 0.0 if has_nodes else lost_since or now
            if waiting and lost_since and now - lost_since > PATIENCE_SECONDS:
                lost = f"{launcher.where} has lost the nodes that could hold {launcher.request}"
                self._cause = self._cause or lost
                self._kill()


def _describe(ray: Any, error: Any, node: str) -> str:
    """What a failed call to an actor says of its worker, in one line."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"it could not be started: {error.cause}"
    text = str(error)
    for mark in ("the actor's node was terminated", "Worker exit detail: "):
        text = text.partition(mark)[2] or text
    detail = text.strip(" :\n").partition("\n")[0].partition(". Some common causes")[0][:300]
    subject = "node" if "node has died" in str(error) else "actor"
    return f"the Ray {subject}{f' {node}' if node else ''} died: {detail}"


class RayLauncher(Launcher):
    """Starts workers on a Ray cluster: the one at `address` or RAY_ADDRESS, else the one running
    here, else one of its own.

    Args:
        folder: the sweep's folder, under the same path on all nodes.
        resources: what each process of a worker needs; Ray keeps it for the worker and shows it the
            devices.
        hosts: processes of a worker, on different nodes as far as there are enough.
        address: as `ray.init` takes it; "local" starts a Ray on this machine.
        name: what the workers' logs begin with.
        command: what stands before `train --serve DIR`; default: this program as the node has it.
        arguments: what stands after it.
        wait_for_nodes: accept that no node can hold a worker now, because an autoscaler will add
            one.
        notice: called with a line that a person should know.

    Raises ScalingError without ray, without the cluster, or where the cluster can never hold a
    worker.
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
        self.ray, self.folder, self.hosts, self.name = import_ray(), folder.resolve(), hosts, name
        self.resources = resources or Resources()
        self.wait_for_nodes = wait_for_nodes
        self.notice = notice or logging.getLogger(__name__).warning
        self.request = f"{hosts} x {self.resources}" if hosts > 1 else str(self.resources)
        self.spec = ActorSpec(
            folder=str(self.folder),
            hosts=hosts,
            cpus=self.resources.cpu,
            only_cores=not self.resources.gpu and not self.resources.custom,
            command=tuple(command),
            arguments=tuple(arguments),
            variables={name: os.environ[name] for name in FORWARDED if name in os.environ},
        )
        self._workers: list[RayWorker] = []
        self.where, self._is_own_connection = connect(self.ray, address)
        if not wait_for_nodes and self.slots() < 1:
            capacity = describe_capacity(self.ray)
            self.close()
            raise ScalingError(
                f"no place for a worker that needs {self.request}",
                where=self.where,
                remedy=f"{capacity}; ask for less, or with an autoscaler add --wait-for-nodes",
            )

    def slots(self) -> int:
        """Workers that the cluster's nodes can hold at once when nothing else runs there."""
        return sum(self._processes_per_node()) // self.hosts

    def _processes_per_node(self) -> list[int]:
        demand = self.resources.demand()
        return [
            min(int(node["Resources"].get(name, 0) / need + 1e-9) for name, need in demand.items())
            for node in self.ray.nodes()
            if node["Alive"]
        ]

    def attach(self, lease: Lease, workers: int) -> None:
        """Name the logs of the workers after the lease."""
        self.name = lease.name

    def start(self, index: int) -> RayWorker:
        """A new worker; returns at once, before the worker has its node."""
        self._workers.append(RayWorker(self, index))
        return self._workers[-1]

    def close(self) -> None:
        """End every worker, and the connection to Ray if it was made here."""
        for worker in self._workers:
            worker.close()
        if self._is_own_connection:
            self.ray.shutdown()

    def make_actors(self) -> tuple[list[Any], Callable[[], None]]:
        """The actors of a worker, and what gives their places back."""
        actor = self.ray.remote(
            num_cpus=self.resources.cpu,
            num_gpus=self.resources.gpu,
            resources=dict(self.resources.custom),
            max_restarts=0,
            max_concurrency=METHODS_AT_ONCE,
            runtime_env=RUNTIME,
            scheduling_strategy="SPREAD",
        )(TrainingActor)
        if self.hosts == 1:
            return [actor.remote()], lambda: None
        from ray.util.placement_group import placement_group, remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        has_enough = sum(count > 0 for count in self._processes_per_node()) >= self.hosts
        group = placement_group(
            [self.resources.demand()] * self.hosts,
            strategy="STRICT_SPREAD" if has_enough else "SPREAD",
        )
        actors = [
            actor.options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=host
                )
            ).remote()
            for host in range(self.hosts)
        ]
        return actors, lambda: remove_placement_group(group)
