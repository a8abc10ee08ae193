"""The engine of simulated sweeps: runs end in this process, in no time, and are published like any other."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaling import __version__
from scaling.errors import ScalingError
from scaling.execute.folder import SweepFolder
from scaling.execute.publish import failed, publish
from scaling.execute.simulated import simulate
from scaling.execute.worker import Order, load_order
from scaling.results import Provenance


class SimulatedWorker:
    """Takes orders as a worker process does, and answers from the law."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder, self._stopped = folder, threading.Event()
        self._orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def send(self, line: str) -> None:
        """Queue an order."""
        self._orders.put(line)

    def events(self) -> Iterator[str]:
        """What a worker process would say."""
        while (line := self._orders.get()) is not None:
            for event in self._carried_out(load_order(line)):
                yield json.dumps(event)

    def _carried_out(self, order: Order) -> Iterator[dict[str, Any]]:
        lease = Path(order.lease) if order.lease else None
        for run in order.family.everyone():
            source = Provenance(f"simulated: {run.simulated}", None, __version__, {"simulated": run.simulated}, order.notes)
            try:
                if self._stopped.is_set():
                    yield {"event": "stopped", "run_id": run.run_id, "reason": "before it began"}
                else:
                    yield publish(self.folder, order.sweep, run, simulate(run), source, lease)
            except ScalingError as error:
                yield failed(run, error)
        yield {"event": "over", "run_id": order.family.runs[0].run_id}

    def alive(self) -> bool:
        """It does not die before this process does."""
        return True

    def signal(self, number: int) -> None:
        """Simulate nothing more."""
        self._stopped.set()

    def close(self) -> None:
        """Nothing is held."""

    def death(self) -> tuple[str, str]:
        """It has none."""
        return "", ""


class SimulatedLauncher:
    """Starts simulated workers for a folder."""

    scarce = False

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder

    def start(self, index: int) -> SimulatedWorker:
        """Another one."""
        return SimulatedWorker(self.folder)

    def close(self) -> None:
        """Nothing is held."""
