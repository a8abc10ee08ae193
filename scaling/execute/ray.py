"""The Ray executor: retrying tasks that run `scaling run` on the nodes of a cluster.

As under Slurm, every worker is `scaling run` on the same folder, which must be on a file system
that all nodes share: the workers share the runs through leases, and Ray starts one again whose node
has died. Several hosts that train one run together are tasks of `scaling train`. Every node needs
this program in the same version. Nothing here imports ray before it is used.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scaling import __version__
from scaling.config import Execution
from scaling.errors import DISK, RUNS_FAILED, STOPPED, ScalingError
from scaling.execute.environment import cores, python_module, worker_environment
from scaling.execute.events import OnEvent, RunEndedByOtherProcess
from scaling.execute.lease import HeartbeatMonitor, peers
from scaling.execute.local import end_of_log
from scaling.execute.options import RunOptions
from scaling.execute.signals import Signals, exit_code
from scaling.plan.device_fit import to_cli_flags
from scaling.store import run_files
from scaling.store.provenance import FLAGS

NOTICE_SECONDS = 10.0  # that tasks wait for their nodes before the user is warned
POLL_SECONDS = 1.0
PROBE_SECONDS = 5.0
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
OBJECT_STORE_BYTES = 100 * 2**20  # of a Ray of our own: nothing large goes through it
SHORT_NAMES = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}
INTERNAL = ("memory", "object_store_memory")

logger = logging.getLogger(__name__)


def listed(amounts: Mapping[str, float]) -> str:
    """Resources as they are written on the command line."""
    return ",".join(f"{name}={amount:g}" for name, amount in amounts.items())


def parse_resources(text: str) -> dict[str, float]:
    """What a process asks of its node, by Ray's names, from `cpu=1,gpu=1,TPU=4,tpu-v4=1`; cpu is 1
    unless it is given, and what is 0 is left out.

    Raises ScalingError for what Ray would not take: an amount is whole, or a fraction below 1.
    """
    amounts: dict[str, float] = {}
    problem = ""
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        name = SHORT_NAMES.get(name.lower(), name)
        try:
            amount = float(number)
        except ValueError:
            amount = -1.0
        if not name or not number:
            problem = f"{part[:40]!r} is not NAME=AMOUNT"
        elif name in amounts:
            problem = f"{name} is given twice"
        elif name in INTERNAL:
            problem = f"{name} cannot be asked for"
        elif not 0 <= amount < 2**31 or (amount > 1 and not amount.is_integer()):
            problem = f"{part.strip()[:40]!r} is not an amount"
        if problem:
            break
        amounts[name] = amount
    resources = {name: amount for name, amount in ({"CPU": 1.0} | amounts).items() if amount}
    if problem or not resources:
        raise ScalingError(
            problem or f"{text[:40]!r} asks for nothing",
            where="--resources",
            remedy="write it as cpu=1,gpu=0.5 or cpu=8,TPU=4; other names are resources of the "
            "cluster",
        )
    return resources


def run_on_node(
    arguments: Sequence[str],
    resources: Mapping[str, float],
    log: Path,
    variables: Mapping[str, str],
    folder: str,
    version: str,
) -> int:
    """A Ray task: run this program in a folder to its end, with what it prints in a log on the
    shared disk; returns its exit code. `ray.cancel` lets it save.

    Raises RuntimeError on a node that lacks the disk, or has this program in another version.
    """
    if version != __version__:
        raise RuntimeError(f"this node has scaling {__version__}, the coordinator {version}")
    if not log.parent.is_dir():
        raise RuntimeError(
            f"this node has no folder {log.parent}: results must be on a file system that all "
            "nodes share"
        )
    # as many threads as it has cores of the node to itself
    cpus = resources.get("CPU", cores())
    own = worker_environment(max(1, round(cores() / cpus)))
    if resources.keys() <= {"CPU"}:  # Ray hides no device from those who asked for none (2.60)
        own = {"JAX_PLATFORMS": "cpu"} | own
    with open(log, "a") as output:
        process = subprocess.Popen(
            [*python_module("scaling"), *arguments],
            stdout=output,
            stderr=output,
            env=own | dict(variables),
            cwd=folder if Path(folder).is_dir() else None,
            start_new_session=True,
        )
    # a node that a script started in the background ignores SIGINT, and with it `ray.cancel`
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while process.poll() is None:
            time.sleep(0.2)  # Ray's KeyboardInterrupt ends no system call
    except KeyboardInterrupt:
        process.terminate()
    return process.wait()


def free_address() -> str:
    """A Ray task: a host and free port of its node, where the processes of a run are to meet."""
    import ray

    with socket.create_server(("", 0)) as free:
        return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


class RayCluster:
    """The cluster at `--ray-address` or RAY_ADDRESS, else the one running here, else one of its
    own; `slots` workers fit its nodes at once when nothing else runs there.

    Raises ScalingError without ray, without the cluster, or where no worker ever fits it.
    """

    def __init__(self, options: RunOptions) -> None:
        try:
            import ray
        except ImportError:
            raise ScalingError(
                "the Ray executor needs the package ray",
                where="--executor ray",
                remedy='pip install -e ".[ray]"',
            ) from None
        self.ray, self.options, self.hosts = ray, options, options.hosts
        self.resources = parse_resources(options.resources or "cpu=1")
        self._active: set[Any] = set()
        self._stopping = threading.Event()
        self.where, self._is_own = connect(ray, options.ray_address)
        processes = [
            min(
                int(node["Resources"].get(name, 0) / amount + 1e-9)
                for name, amount in self.resources.items()
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
        self.slots = sum(processes) // self.hosts
        hosts = f"{self.hosts} x " if self.hosts > 1 else ""
        self.request = f"{hosts}{listed(self.resources)}"
        if not options.wait_for_nodes and self.slots < 1:
            amounts = {
                name: amount
                for name, amount in sorted(ray.cluster_resources().items())
                if ":" not in name and name not in INTERNAL
            }
            has = f"all its nodes together have {listed(amounts)}" if amounts else "it has no nodes"
            self.close()
            raise ScalingError(
                f"no place for a worker that needs {self.request}",
                where=self.where,
                remedy=f"{has}; ask for less, or with an autoscaler add --wait-for-nodes",
            )

    def close(self) -> None:
        """End the connection to Ray if it was made here."""
        if self._is_own:
            self.ray.shutdown()

    def train(
        self,
        folder: Path,
        run_ids: Sequence[str],
        signals: Signals,
        on_event: OnEvent,
    ) -> int:
        """Train runs of a folder that holds their sweep.toml; returns the highest exit code of a
        worker.

        Workers share the runs through the folder; with several hosts each trains one run.
        """
        folder, count = folder.resolve(), self.options.workers or max(1, self.slots)
        sweep = [str(folder / "sweep.toml"), "--out", str(folder)]
        if self.hosts == 1:
            flags = self.options.to_cli_flags()
            jobs = [["run", *sweep, "--workers", "1", *flags]] * min(count, len(run_ids))
        else:
            flags = to_cli_flags(self.options.execution, Execution()).split()
            flags += ["--accept-changes"] if self.options.allow_changes else []
            jobs = [["train", *sweep, *flags, "--run", run_id] for run_id in run_ids]
        (folder / "logs").mkdir(exist_ok=True)
        stem, began = f"ray-{time.time_ns()}", time.monotonic()
        logs = [folder / "logs" / f"{stem}-{index}.log" for index in range(len(jobs))]
        ended, monitor = run_files.finished_run_ids(folder), HeartbeatMonitor()
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(self._work, *job) for job in zip(jobs, logs, strict=True)]
            next_look = 0.0
            while not all(future.done() for future in futures):
                time.sleep(POLL_SECONDS / 10)
                if signals.force_quit:
                    os._exit(exit_code(signals.received))
                if signals.count and not self._stopping.is_set():
                    self._stopping.set()
                    for task in tuple(self._active):
                        self.ray.cancel(task)
                if time.monotonic() < next_look:
                    continue
                next_look = time.monotonic() + POLL_SECONDS
                if began and time.monotonic() - began > NOTICE_SECONDS:
                    began = 0.0
                    if not any(path.exists() for path in logs):
                        waiting = f"waiting for {self.request} on {self.where}"
                        self.options.on_message(f"{waiting} (busy, or starting)")
                for peer in peers(folder, monitor):
                    for progress in peer.progress.runs:
                        on_event(progress)
                finished = run_files.finished_run_ids(folder) & set(run_ids)
                for run_id in finished - ended:
                    on_event(RunEndedByOtherProcess(run_id=run_id))
                ended |= finished
        return max(future.result() for future in futures)

    def _work(self, arguments: Sequence[str], log: Path) -> int:
        """One worker, started again when it dies with its node; returns its exit code. Raises
        ScalingError.
        """
        for retries_left in reversed(range(self.options.retries + 1)):
            if self._stopping.is_set():
                break
            try:
                code = self._run(arguments, log)
                if code in (0, RUNS_FAILED, DISK, STOPPED) or self._stopping.is_set():
                    return code
                reason = f"exit code {code}, {end_of_log(log)[-300:]}"
            except self.ray.exceptions.RayTaskError as error:
                reason, retries_left = f"it could not be started: {error.cause}", 0
            except self.ray.exceptions.RayError as error:
                reason = str(error)
            reason = " ".join(reason.split())[:300]
            if self._stopping.is_set():
                break
            if retries_left == 0:
                raise ScalingError(
                    f"a worker died: {reason}",
                    where=self.where,
                    remedy=f"see {log}; run again to continue",
                )
            self.options.on_message(f"warning: a worker died and is started again: {reason}")
        return STOPPED

    def _run(self, arguments: Sequence[str], log: Path) -> int:
        """Run one worker, on as many nodes as it has hosts; returns the first exit code that is not
        0. When a part of it dies, all of it does. Raises RayError.
        """
        from ray.util.placement_group import placement_group, remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        group = placement_group([self.resources] * self.hosts, strategy="SPREAD")
        custom = dict(self.resources)
        cpus, gpus = custom.pop("CPU", 0.0), custom.pop("GPU", 0.0)

        def submit(function: Callable[..., Any], host: int, *values: object) -> Any:
            remote = self.ray.remote(
                num_cpus=cpus,
                num_gpus=gpus,
                resources=custom,
                max_retries=0,  # `_work` tries again with all parts
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=host
                ),
            )
            tasks.append(remote(function).remote(*values))
            self._active.add(tasks[-1])
            return tasks[-1]

        tasks: list[Any] = []
        variables = {name: os.environ[name] for name in FLAGS if name in os.environ}
        code, pending = 0, list[Any]()
        try:
            if self.hosts > 1:
                address = self.ray.get(submit(free_address, 0))
                arguments = [*arguments, "--coordinator", address, "--processes", str(self.hosts)]
            for host in range(self.hosts):
                own = ["--process", str(host)] if self.hosts > 1 else []
                place = (self.resources, log, variables, str(Path.cwd()), __version__)
                pending.append(submit(run_on_node, host, [*arguments, *own], *place))
            while pending and code == 0:
                (task,), pending = self.ray.wait(pending)
                code = self.ray.get(task)
            return code
        finally:
            for task in pending:
                self.ray.cancel(task, force=True)
            self._active -= set(tasks)
            remove_placement_group(group)


def connect(ray: Any, address: str | None) -> tuple[str, bool]:
    """Join or start a cluster without a word on stdout; returns its name, and whether the
    connection was made here.

    Signal handlers stay as they are. Raises ScalingError where there is no cluster at the address.
    """
    # Ray prints of dead nodes and tasks on stdout, even with `log_to_driver=False` (2.60), and
    # has no setting for it; the exit code and the end of the log say what matters
    ray._private.worker.print_to_stdstream = lambda data, **_: logger.info(
        "%s", "\n".join(data["lines"])
    )

    def name() -> str:
        return f"the Ray cluster at {ray.get_runtime_context().gcs_address}"

    if ray.is_initialized():
        return name(), False
    asked = address or os.environ.get("RAY_ADDRESS") or "auto"
    if asked.startswith("ray://"):
        raise ScalingError(
            "the protocol of Ray's remote clients is not supported",
            where=f"Ray at {asked}",
            remedy="run this program on a node of the cluster, or with `ray job submit`",
        )
    before = signal.getsignal(signal.SIGTERM)
    try:
        if ":" in asked:  # Ray itself would try for many minutes
            _probe(asked)
        if asked == "local" or (asked == "auto" and not _is_started()):
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                "local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **QUIET
            )
            return "a Ray of its own on this machine", True
        # "auto" would also join what another program has started for itself
        ray.init(None if asked == "auto" else asked, **QUIET)
        return name(), True
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:200]
        raise ScalingError(
            f"cannot be reached: {reason}",
            where=f"Ray at {asked}",
            remedy="start one with `ray start --head`, or leave RAY_ADDRESS unset to start one "
            "here",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            # Ray sets a handler that exits without saving
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _probe(address: str) -> None:
    """Connect to HOST:PORT once. Raises OSError, ValueError."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()


def _is_started() -> bool:
    """Whether this machine belongs to a cluster that `ray start` began and that still answers;
    `ray.init` looks into the same file.
    """
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    try:
        _probe((folder / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return False
    return True
