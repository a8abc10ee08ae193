"""A Ray cluster as the coordinator sees it: what a process asks of it, and how it is joined."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
PROBE_SECONDS = 5.0
OBJECT_STORE_BYTES = 100 * 2**20  # of a Ray of our own: only lines of text go through it
SHORT_NAMES = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}
INTERNAL = ("memory", "object_store_memory")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What one training process asks of its node, in Ray's units (cores, devices); `custom` names
    resources of the cluster.
    """

    cpu: float = 1.0
    gpu: float = 0.0
    custom: tuple[tuple[str, float], ...] = ()

    def demand(self) -> dict[str, float]:
        """By Ray's names, without what is not asked for."""
        amounts = [("CPU", self.cpu), ("GPU", self.gpu), *self.custom]
        return {name: amount for name, amount in amounts if amount}

    def __str__(self) -> str:
        """As it is written on the command line."""
        return _listed(self.demand())


def _listed(amounts: dict[str, float]) -> str:
    return ",".join(f"{name}={amount:g}" for name, amount in amounts.items())


def parse_resources(text: str, *, where: str = "--resources") -> Resources:
    """Read `cpu=1,gpu=1,TPU=4,tpu-v4=1`; cpu is 1 unless it is given.

    Raises ScalingError for what Ray would not take: an amount is whole, or a fraction below 1.
    """

    def error(what: str) -> ScalingError:
        remedy = (
            "write it as cpu=1,gpu=0.5 or cpu=8,TPU=4; other names are resources of the cluster"
        )
        return ScalingError(what, where=where, remedy=remedy)

    amounts: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        name = SHORT_NAMES.get(name.lower(), name)
        if not name or not number:
            raise error(f"{part[:40]!r} is not NAME=AMOUNT")
        if name in amounts:
            raise error(f"{name} is given twice")
        if name in INTERNAL:
            raise error(f"{name} cannot be asked for")
        try:
            amount = float(number)
        except ValueError:
            amount = -1.0
        if not 0 <= amount < 2**31 or (amount > 1 and not amount.is_integer()):
            raise error(f"{part.strip()[:40]!r} is no amount")
        amounts[name] = amount
    cpu, gpu = amounts.pop("CPU", 1.0), amounts.pop("GPU", 0.0)
    resources = Resources(cpu, gpu, tuple(sorted(amounts.items())))
    if not resources.demand():
        raise error(f"{text[:40]!r} asks for nothing")
    return resources


def describe_capacity(ray: Any) -> str:
    """What all nodes of the cluster have together, of what people ask for."""
    amounts = {
        name: amount
        for name, amount in sorted(ray.cluster_resources().items())
        if ":" not in name and name not in INTERNAL
    }
    return f"all its nodes together have {_listed(amounts)}" if amounts else "it has no nodes"


def import_ray() -> Any:
    """The package. Raises ScalingError where it is missing."""
    try:
        import ray
    except ImportError:
        raise ScalingError(
            "the Ray executor needs the package ray",
            where="--executor ray",
            remedy='pip install -e ".[ray]"',
        ) from None
    return ray


def connect(ray: Any, address: str | None) -> tuple[str, bool]:
    """Join or start a cluster without a word on stdout; returns its name, and whether the
    connection was made here.

    Signal handlers stay as they are. Raises ScalingError where there is no cluster at the address.
    """
    # Ray prints of dead nodes and actors on stdout, even with `log_to_driver=False` (2.60), and
    # has no setting for it; `RayWorker.exit_reason` says what matters
    ray._private.worker.print_to_stdstream = lambda data, **_: log.info(
        "%s", "\n".join(data["lines"])
    )
    if ray.is_initialized():
        return _name(ray), False
    asked = address or os.environ.get("RAY_ADDRESS") or "auto"
    _check(asked)
    before = signal.getsignal(signal.SIGTERM)
    try:
        if asked == "local" or (asked == "auto" and not _is_started()):
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                "local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **QUIET
            )
            return "a Ray of its own on this machine", True
        # "auto" would also join what another program has started for itself
        ray.init(None if asked == "auto" else asked, **QUIET)
        return _name(ray), True
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(asked, str(error).partition("\n")[0][:200]) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            # Ray sets a handler that exits without saving
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _name(ray: Any) -> str:
    return f"the Ray cluster at {ray.get_runtime_context().gcs_address}"


def _check(address: str) -> None:
    """Raise ScalingError for an address that Ray would try for many minutes, or that cannot be
    used.
    """
    if address.startswith("ray://"):
        raise ScalingError(
            "the protocol of Ray's remote clients is not supported",
            where=f"Ray at {address}",
            remedy="run this program on a node of the cluster, or with `ray job submit`",
        )
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and (reason := _connection_error(host, int(port))):
        raise _unreachable(address, reason)


def _unreachable(address: str, reason: str) -> ScalingError:
    return ScalingError(
        f"cannot be reached: {reason}",
        where=f"Ray at {address}",
        remedy="start one with `ray start --head`, or leave RAY_ADDRESS unset to start one here",
    )


def _connection_error(host: str, port: int) -> str:
    """Why a connection fails; empty where it succeeds."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _is_started() -> bool:
    """Whether this machine belongs to a cluster that `ray start` began and that still answers;
    `ray.init` looks into the same file.
    """
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    record = folder / "ray" / "ray_current_cluster"
    if not record.is_file():
        return False
    host, _, port = record.read_text(encoding="utf-8").strip().rpartition(":")
    return bool(host) and port.isdigit() and not _connection_error(host, int(port))
