"""Events of runs in training, from workers to the coordinator and its callers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from scaling.formatting import format_count
from scaling.store.rows import EndKind


class FailureCause(StrEnum):
    """Why a run failed."""

    INPUT = "input"
    MEMORY = "memory"
    BUG = "bug"
    DISK = "disk"  # not the run's fault: it continues when the disk takes it
    DEVICE = "device"  # a device or a link, which may recover
    DIED = "died"  # the worker process was killed, or crashed
    START = "start"  # the worker process could not start


TRANSIENT = (FailureCause.DEVICE, FailureCause.DIED)


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    run_id: str = ""


class WorkerReady(_Event):
    """A worker process has imported what it needs and takes requests."""

    event: Literal["ready"] = "ready"


class RunProgress(_Event):
    """Training of a group: mean loss of the last dispatch in nats, and speed since it was resumed.

    For a pack, `run_id` and `loss` are those of its first run, speeds and `flops` (trained since
    the group was resumed) those of all its runs; `run_ids` names them and the pending branches.
    `mfu` is absent where the devices' peak is unknown.
    """

    event: Literal["progress"] = "progress"
    step: int
    n_steps: int
    loss: float
    tokens_per_second: float
    flops_per_second: float
    flops: float
    mfu: float | None = None
    run_ids: tuple[str, ...] = ()
    seconds: float = 0.0


class Pace(BaseModel):
    """The speed of all runs in training together; `mfu` is the mean where the peak is known."""

    model_config = ConfigDict(frozen=True)

    tokens_per_second: float
    flops_per_second: float
    mfu: float | None

    @classmethod
    def of(cls, groups: Iterable[RunProgress]) -> Pace:
        """Of the last progress of each group."""
        groups = tuple(groups)
        known = [group.mfu for group in groups if group.mfu is not None]
        return cls(
            tokens_per_second=sum(group.tokens_per_second for group in groups),
            flops_per_second=sum(group.flops_per_second for group in groups),
            mfu=sum(known) / len(known) if known else None,
        )

    def __str__(self) -> str:
        mfu = "" if self.mfu is None else f", MFU {self.mfu:.2f}"
        gflops = f"{self.flops_per_second / 1e9:.1f} GFLOP/s"
        return f"{format_count(self.tokens_per_second)} tokens/s, {gflops}{mfu}"


class Branched(_Event):
    """The checkpoint of a branch is written: any worker may train its runs."""

    event: Literal["branched"] = "branched"
    run_ids: tuple[str, ...]


class RunEnded(_Event):
    """A run ended in this session. `details` of a failure go to its note: reason and traceback."""

    event: EndKind
    reason: str = ""
    loss: float | None = None
    cause: FailureCause | None = None
    details: str = ""


class RunInterrupted(_Event):
    """A run failed for a cause that may pass, and is tried again."""

    event: Literal["interrupted"] = "interrupted"
    reason: str


class RunEndedByOtherProcess(_Event):
    """Another process finished the run, or failed at it."""

    event: Literal["elsewhere"] = "elsewhere"


class RunWarning(_Event):
    """A sentence for people."""

    event: Literal["warning"] = "warning"
    message: str


class GroupFinished(_Event):
    """A worker has no more to do with a group."""

    event: Literal["over"] = "over"


RunEvent = (
    WorkerReady
    | RunProgress
    | Branched
    | RunEnded
    | RunInterrupted
    | RunEndedByOtherProcess
    | RunWarning
    | GroupFinished
)
OnEvent = Callable[[RunEvent], None]
# of the lines that a worker writes
EVENTS: TypeAdapter[RunEvent] = TypeAdapter(Annotated[RunEvent, Field(discriminator="event")])
