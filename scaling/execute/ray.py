"""The Ray executor: retrying tasks that run `scaling run` on the nodes of a cluster.

As under Slurm, every worker is `scaling run` on the same folder, which must be on a file system
that all nodes share: the workers share the runs through leases, and Ray starts one again whose node
has died. Every node needs this program in the same version. Nothing here imports ray before it is
used.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling import __version__
from scaling.errors import DISK, RUNS_FAILED, STOPPED, ScalingError
from scaling.execute.coordinator import Stop, StopReason
from scaling.execute.environment import cores, python_module, worker_environment
from scaling.execute.local import end_of_log
from scaling.execute.options import RunOptions
from scaling.execute.signals import Signals, exit_code
from scaling.store.provenance import FLAGS

POLL_SECONDS = 0.1
PROBE_SECONDS = 5.0
SHORT_NAMES = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}
INTERNAL = ("memory", "object_store_memory")

logger = logging.getLogger(__name__)


class WorkerDied(Exception):
    """A worker ended in a way that may pass: Ray starts it again, `--retries` times."""


def listed(amounts: Mapping[str, float]) -> str:
    """Resources as they are written on the command line."""
    return ",".join(f"{name}={amount:g}" for name, amount in amounts.items())


def parse_resources(text: str) -> dict[str, float]:
    """What a process asks of its node, by Ray's names, from `cpu=1,gpu=1,TPU=4,tpu-v4=1`; cpu is 1
    unless it is given, and what is 0 is left out.

    Raises ScalingError for what Ray would not take: an amount is whole, or a fraction below 1.
    """
    amounts, problem = dict[str, float](), ""
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        name = SHORT_NAMES.get(name.lower(), name)
        try:
            amount = float(number)
        except ValueError:
            amount = -1.0
        is_amount = 0 <= amount < 2**31 and (amount <= 1 or amount.is_integer())
        if name in INTERNAL:
            problem = f"{name} cannot be asked for"
        elif not name or not is_amount:
            problem = f"{part.strip()[:40]!r} is not NAME=AMOUNT"
        elif name in amounts:
            problem = f"{name} is given twice"
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

    Raises RuntimeError on a node that lacks the disk, or has this program in another version;
    WorkerDied for an exit code that another attempt may not give.
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
    code = process.wait()
    if code not in (0, RUNS_FAILED, DISK, STOPPED):
        raise WorkerDied(f"exit code {code}, {end_of_log(log)[-300:]}")
    return code


class RayCluster:
    """The cluster at `--ray-address` or RAY_ADDRESS, else the one that runs here, else one that is
    started here and ends with this process; `slots` workers fit its nodes at once when nothing else
    runs there.

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
        self.ray: Any = ray
        self.options = options
        self.resources = parse_resources(options.resources or "cpu=1")
        self._is_of_caller = ray.is_initialized()  # by `ray.init` of a program that calls this one
        self.where = connect(ray, options.ray_address)
        self.slots = sum(
            min(
                int(node["Resources"].get(name, 0) / amount + 1e-9)
                for name, amount in self.resources.items()
            )
            for node in ray.nodes()
            if node["Alive"]
        )
        if not options.wait_for_nodes and self.slots < 1:
            amounts = {
                name: amount
                for name, amount in sorted(ray.cluster_resources().items())
                if ":" not in name and name not in INTERNAL
            }
            has = f"all its nodes together have {listed(amounts)}" if amounts else "it has no nodes"
            self.close()
            raise ScalingError(
                f"no place for a worker that needs {listed(self.resources)}",
                where=self.where,
                remedy=f"{has}; ask for less, or with an autoscaler add --wait-for-nodes",
            )

    def close(self) -> None:
        """End the connection to Ray, unless the program that calls this one has made it."""
        if not self._is_of_caller:
            self.ray.shutdown()

    def train(self, folder: Path, n_runs: int, signals: Signals) -> Stop | None:
        """Train a folder that holds its sweep.toml in workers that share its runs, and count their
        budgets each on its own; returns why they stopped. Raises ScalingError where one died.
        """
        folder, custom = folder.resolve(), dict(self.resources)
        task = self.ray.remote(
            num_cpus=custom.pop("CPU", 0.0),
            num_gpus=custom.pop("GPU", 0.0),
            resources=custom,
            max_retries=self.options.retries,
            retry_exceptions=[WorkerDied],
            scheduling_strategy="SPREAD",
        )(run_on_node)
        command = ["run", str(folder / "sweep.toml"), "--out", str(folder), "--workers", "1"]
        command += self.options.to_cli_flags()
        variables = {name: os.environ[name] for name in FLAGS if name in os.environ}
        (folder / "logs").mkdir(exist_ok=True)
        stem = folder / "logs" / f"ray-{time.time_ns()}"
        n_workers = min(self.options.workers or max(1, self.slots), n_runs)
        logs = [stem.with_name(f"{stem.name}-{index}.log") for index in range(n_workers)]
        place = (variables, str(Path.cwd()), __version__)
        pending = [task.remote(command, self.resources, log, *place) for log in logs]
        asked = f"{n_workers} workers with {listed(self.resources)}"
        self.options.on_message(f"{self.where}: {asked}; follow them with scaling status {folder}")
        codes, deaths = {0}, list[str]()
        is_cancelled = False
        signals.on_force_quit = lambda: os._exit(exit_code(signals.received))
        while pending:
            ended, pending = self.ray.wait(pending, timeout=POLL_SECONDS)
            for worker in ended:
                try:
                    codes.add(self.ray.get(worker))
                except self.ray.exceptions.RayError as error:
                    deaths.append(" ".join(str(getattr(error, "cause", error)).split())[:300])
            if signals.count and not is_cancelled:
                is_cancelled = True
                for worker in pending:
                    self.ray.cancel(worker)
        if signals.received:
            return Stop(StopReason.SIGNAL, "a signal", exit_code(signals.received))
        if deaths:
            raise ScalingError(
                f"a worker died: {deaths[0]}",
                where=self.where,
                remedy=f"see {stem}-*.log; run again to continue",
            )
        if DISK in codes:
            return Stop(StopReason.DISK, "disk full or not writable", DISK)
        if STOPPED in codes:
            return Stop(StopReason.MAX_RUNS, "a budget of a worker is used up")
        return None


def connect(ray: Any, address: str | None) -> str:
    """Join a cluster without a word on stdout; returns its name.

    Signal handlers stay as they are. Raises ScalingError where a cluster that is named, or was
    started here, cannot be reached.
    """
    # Ray prints of dead nodes and tasks on stdout, even with `log_to_driver=False` (2.60), and
    # has no setting for it; the exit code and the end of the log say what matters
    ray._private.worker.print_to_stdstream = lambda data, **_: logger.info(
        "%s", "\n".join(data["lines"])
    )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a Ray that is started here
    asked = address or os.environ.get("RAY_ADDRESS") or ""
    if asked.startswith("ray://"):
        raise ScalingError(
            "the protocol of Ray's remote clients is not supported",
            where=f"Ray at {asked}",
            remedy="run this program on a node of the cluster, or with `ray job submit`",
        )
    before = signal.getsignal(signal.SIGTERM)
    try:
        if ":" in asked:  # Ray itself would try for many minutes
            host, _, port = asked.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
        ray.init(
            asked or None,
            include_dashboard=False,
            ignore_reinit_error=True,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        return f"the Ray cluster at {ray.get_runtime_context().gcs_address}"
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:200]
        raise ScalingError(
            f"cannot be reached: {reason}",
            where=f"Ray at {asked or 'this machine'}",
            remedy="start one with `ray start --head`, or name it with --ray-address",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            # Ray sets a handler that exits without saving
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
