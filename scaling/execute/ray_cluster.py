"""A Ray cluster seen from the coordinator: what a process asks of it, and how it is joined. Ray is imported when it is joined."""

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
OBJECT_STORE_BYTES = 100 * 2**20  # of a Ray of our own: lines of text are all that goes through it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What one training process asks of its node, in Ray's units (cores, devices); `custom` names resources of the cluster."""

    cpu: float = 1.0
    gpu: float = 0.0
    custom: tuple[tuple[str, float], ...] = ()

    def demand(self) -> dict[str, float]:
        """By Ray's names, without what is not asked for."""
        return {
            name: amount
            for name, amount in (("CPU", self.cpu), ("GPU", self.gpu), *self.custom)
            if amount
        }

    def __str__(self) -> str:
        """As it is written on the command line."""
        return _listed(self.demand())


def _listed(amounts: dict[str, float]) -> str:
    return ",".join(f"{name}={amount:g}" for name, amount in amounts.items())


def parse_resources(text: str, *, where: str = "--resources") -> Resources:
    """Read `cpu=1,gpu=1,TPU=4,tpu-v4=1`; cpu is 1 unless it is given. Raises ScalingError for what Ray would not take."""
    remedy = (
        "write it as cpu=1,gpu=1 or cpu=8,TPU=4; other names are custom resources of the cluster"
    )
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, amount = (piece.strip() for piece in part.partition("="))
        name = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}.get(name.lower(), name)
        if not name or not amount:
            raise ScalingError(f"{part[:40]!r} is not NAME=AMOUNT", where=where, remedy=remedy)
        if name in found:
            raise ScalingError(
                f"{name} is given twice", where=where, remedy="name each resource once"
            )
        if name in ("memory", "object_store_memory"):
            raise ScalingError(f"{name} cannot be asked for", where=where, remedy=remedy)
        found[name] = _amount(part, amount, where)
    resources = Resources(
        found.pop("CPU", 1.0), found.pop("GPU", 0.0), tuple(sorted(found.items()))
    )
    if not resources.demand():
        raise ScalingError(f"{text[:40]!r} asks for nothing", where=where, remedy=remedy)
    return resources


def _amount(part: str, text: str, where: str) -> float:
    """A number that is not negative, and whole above 1, as Ray wants it."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 2**31 or (value > 1 and not value.is_integer()):
        raise ScalingError(
            f"{part.strip()[:40]!r} is no amount",
            where=where,
            remedy="amounts are whole, or a fraction of one such as 0.5",
        )
    return value


def describe_capacity(ray: Any) -> str:
    """What all nodes of the cluster have together, of what people ask for."""
    amounts = {
        name: amount
        for name, amount in sorted(ray.cluster_resources().items())
        if name in ("CPU", "GPU") or _is_custom(name)
    }
    return f"all its nodes together have {_listed(amounts)}" if amounts else "it has no nodes"


def _is_custom(name: str) -> bool:
    return ":" not in name and name not in ("memory", "object_store_memory")


def import_ray() -> Any:
    """The package. Raises ScalingError where it is missing."""
    try:
        import ray
    except ImportError:
        raise ScalingError(
            "the Ray engine needs the package ray",
            where="--executor ray",
            remedy='pip install -e ".[ray]"',
        ) from None
    return ray


def connect(ray: Any, address: str | None) -> tuple[str, bool]:
    """Join or start a cluster without a word on stdout; returns what to call it, and whether the connection is ours to end.

    Signal handlers stay as they are. Raises ScalingError where there is no cluster at the address.
    """
    _silence_ray(ray)
    if ray.is_initialized():
        return _name(ray), False
    asked = address or os.environ.get("RAY_ADDRESS") or "auto"
    _check(asked)
    before = signal.getsignal(signal.SIGTERM)
    try:
        if asked == "local" or (asked == "auto" and not _is_started()):
            os.environ.setdefault(
                "RAY_USAGE_STATS_ENABLED", "0"
            )  # a Ray that is started for a sweep phones nobody
            ray.init(
                "local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **QUIET
            )
            return "a Ray of its own on this machine", True
        ray.init(
            None if asked == "auto" else asked, **QUIET
        )  # "auto" would also join what another program has started for itself
        return _name(ray), True
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(asked, str(error).partition("\n")[0][:200]) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(
                signal.SIGTERM, before or signal.SIG_DFL
            )  # Ray sets a handler that leaves without saving


def _check(address: str) -> None:
    """Raise ScalingError for an address that Ray would try for many minutes, or that cannot be used."""
    if address.startswith("ray://"):
        remedy = "run this program on a node of the cluster, or with `ray job submit`, and leave RAY_ADDRESS as it is there"
        raise ScalingError(
            "the protocol of Ray's remote clients is not supported",
            where=f"Ray at {address}",
            remedy=remedy,
        )
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and (reason := _refusal(host, int(port))):
        raise _unreachable(address, reason)


def _unreachable(address: str, reason: str) -> ScalingError:
    remedy = (
        "start one with `ray start --head`, or leave RAY_ADDRESS unset to have one started here"
    )
    return ScalingError(f"cannot be reached: {reason}", where=f"Ray at {address}", remedy=remedy)


def _refusal(host: str, port: int) -> str:
    """Why nobody answers there; empty where somebody does."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _is_started() -> bool:
    """Whether this machine belongs to a cluster that `ray start` began and that still answers; `ray.init` looks into the same file."""
    record = (
        Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
        / "ray"
        / "ray_current_cluster"
    )
    host, _, port = (
        record.read_text(encoding="utf-8").strip().rpartition(":")
        if record.is_file()
        else ("", "", "")
    )
    return bool(host) and port.isdigit() and not _refusal(host, int(port))


def _silence_ray(ray: Any) -> None:
    """Keep what Ray says of dead nodes and actors off stdout, where it goes even with `log_to_driver=False` (2.60).

    There is no setting for it; what matters of it is told by `RayWorker.exit_reason`.
    """
    ray._private.worker.print_to_stdstream = lambda data, **_: log.info(
        "%s", "\n".join(data["lines"])
    )


def _name(ray: Any) -> str:
    return f"the Ray cluster at {ray.get_runtime_context().gcs_address}"
