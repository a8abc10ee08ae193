"""Whether runs fit a device's memory, present or not, and what would make them fit. No jax here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scaling.config import Execution, RunConfig
from scaling.config.base import divisors
from scaling.config.mesh import describe
from scaling.config.resolve_execution import Kind
from scaling.errors import ScalingError
from scaling.formatting import format_bytes, format_count
from scaling.plan import memory

# Of a device's memory: the rest is its context, buffers of collectives, and fragmentation.
USABLE = 0.92
LARGEST_MESH = 4096


@dataclass(frozen=True)
class DeviceMemory:
    """What one training process may fill: of an accelerator each device, of a CPU this process's
    share of the memory.
    """

    name: str
    kind: Kind
    capacity_bytes: int

    def required_bytes(self, run: RunConfig, execution: Execution) -> int:
        """Bytes that a run takes here: of an accelerator's memory, or of a process on a CPU."""
        return (
            memory.process_bytes(run, execution)
            if self.kind == "cpu"
            else memory.estimate(run, execution, self.kind).total
        )

    def fits(self, runs: Sequence[RunConfig], execution: Execution) -> bool:
        """Whether each of the runs does."""
        return all(self.required_bytes(run, execution) <= self.capacity_bytes for run in runs)


def suggest_execution(
    runs: Sequence[RunConfig], execution: Execution, device: DeviceMemory
) -> Execution | None:
    """The least change to `execution` under which all runs fit, if there is one.

    First the largest micro-batch alone, then with blocks computed again, then the smallest mesh
    (`fsdp`) with either. A mesh divides the batch and adds devices, so it is none for a CPU.
    """
    batch = math.gcd(*(run.batch_size for run in runs))
    now, data, most = execution.mesh.fsdp, execution.mesh.data, execution.micro_batch
    largest = min(batch // data, LARGEST_MESH) if device.kind != "cpu" else 0
    larger = [fsdp for fsdp in range(2 * now, largest + 1, now) if batch % (fsdp * data) == 0]
    for fsdp, remat in itertools.product([now, *larger], dict.fromkeys([execution.remat, "block"])):
        mesh = execution.mesh.model_copy(update={"fsdp": fsdp})
        for size in reversed(divisors(batch, data * fsdp)):
            if most is not None and size > most:
                continue
            is_whole = most is None and all(size == run.batch_size for run in runs)
            micro_batch = None if is_whole else size
            update = {"mesh": mesh, "remat": remat, "micro_batch": micro_batch}
            chosen = execution.model_copy(update=update)
            if device.fits(runs, chosen):
                return chosen
    return None


def to_cli_flags(chosen: Execution, execution: Execution) -> str:
    """The options of the command line that turn `execution` into `chosen`."""
    parts = []
    if chosen.mesh != execution.mesh:
        parts.append(f"--mesh {describe(chosen.mesh)}")
    if chosen.micro_batch != execution.micro_batch:
        parts.append(f"--micro-batch {chosen.micro_batch}")
    if chosen.remat != execution.remat:
        parts.append(f"--remat {chosen.remat}")
    return " ".join(parts)


def check_fits(runs: Sequence[RunConfig], execution: Execution, device: DeviceMemory) -> None:
    """Raise ScalingError naming the largest run that does not fit, and the options under which all
    of them do.
    """
    sizes = {run.run_id: device.required_bytes(run, execution) for run in runs}
    large = [run for run in runs if sizes[run.run_id] > device.capacity_bytes]
    if not large:
        return
    worst = max(large, key=lambda run: sizes[run.run_id])
    count = f" ({len(large)} of {len(runs)} runs do not fit)" if len(large) > 1 else ""
    batch = f"{execution.micro_batch or worst.batch_size} x {worst.task.seq_len} tokens at once"
    needs, has = format_bytes(sizes[worst.run_id]), format_bytes(device.capacity_bytes)
    parameters = format_count(memory.n_params(worst))
    if chosen := suggest_execution(runs, execution, device):
        remedy = f"it fits with {to_cli_flags(chosen, execution)}"
    elif device.kind == "cpu":
        remedy = (
            "no micro-batch makes it fit: fewer --workers, a machine with more memory, or a "
            "smaller model"
        )
    else:
        remedy = (
            "no micro-batch and no mesh that divides the batch makes it fit: a larger batch_size "
            "for a larger mesh, or a smaller model"
        )
    raise ScalingError(
        f"{parameters} parameters and {batch} need {needs}, {device.name} has {has}{count}",
        where=f"run {worst.run_id}",
        remedy=remedy,
    )
