"""What a program is compiled for: a model, a kind of task and an execution, on which devices."""

from __future__ import annotations

from typing import NamedTuple

from scaling.config import Execution, ModelConfig, Precision, RunConfig
from scaling.config.optim import OptimizerName
from scaling.train.model.operations import Compute
from scaling.train.sharding import Devices, Sharder


class ProgramKey(NamedTuple):
    """What a program is compiled for; everything else about a run is traced.

    `execution` is resolved. The states of a pack of runs have a leading axis of runs. `devices` may
    be those of a machine that is not here, to compile for it; there are none for those of this job.
    """

    model: ModelConfig
    seq_len: int
    execution: Execution
    precision: Precision = "float32"
    schedule: str = "constant"
    averaged: bool = False
    target_positions: tuple[int, ...] | None = None
    document_separator: int | None = None
    optimizer: OptimizerName = "adamw"
    is_pack: bool = False
    devices: Devices = ()

    @property
    def compute(self) -> Compute:
        """What products are computed in, and for which kind of device."""
        return Compute(self.precision, self.execution.kind)

    @property
    def sharder(self) -> Sharder:
        """Which device holds what."""
        return Sharder(self.execution, self.devices)

    @property
    def has_flat_moments(self) -> bool:
        """Adam's moments as two flat vectors are faster on a CPU, but cannot be sharded with the
        parameters. On accelerators they cost two copies of all gradients.
        """
        on_cpu = self.execution.mesh.n_devices == 1 and not self.execution.on_accelerator
        return on_cpu and self.optimizer != "muon"

    def with_execution(self, **changes: object) -> ProgramKey:
        """The same program under another execution."""
        return self._replace(execution=self.execution.model_copy(update=changes))


def program_key(run: RunConfig, execution: Execution, n_runs: int = 1) -> ProgramKey:
    """The key of a run's programs, or of a pack of `n_runs`."""
    return ProgramKey(
        model=run.model,
        seq_len=run.task.seq_len,
        execution=execution,
        precision=run.precision,
        schedule=run.optim.schedule,
        averaged=run.evals.averaged,
        target_positions=run.task.target_positions,
        document_separator=getattr(run.task, "document_separator", None),
        optimizer=run.optim.name,
        is_pack=n_runs > 1,
    )
