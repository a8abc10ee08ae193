"""Arguments and options that several commands share, each declared once.

A command takes a dataclass of options as one parameter; `app.add_command` spreads its fields over
the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaling.cli.output import argument, choice, echo_err, flag, option
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.accounting import DeviceTime
    from scaling.config import Execution
    from scaling.execute.options import Monitor, RunOptions

DEVICE, CLUSTER, BUDGET, TIME = "Device", "Cluster", "Budget", "Devices and time"
INTERVALS = "Intervals"
EXECUTION = ("mesh", "micro_batch", "remat")  # fields of an `Execution`


SWEEP = argument("SWEEP", "A sweep file (TOML).")
OVERRIDES = argument(
    "[KEY=VALUE]...",
    "Changes to the sweep file: optim.lr=3e-4, design.budgets='[1e12,1e13]'. A list for a field of "
    "model, optim or task is an axis. The changed sweep has its own name and folder.",
    default=None,
)
OUT = option("The sweep's folder; default results/<name>.", metavar="DIR")
WORKERS = option(
    "Parallel processes; default one per core, or one on a GPU.", DEVICE, min=1, max=1024
)
ALLOW_CHANGES = flag(
    "Continue although code, corpus, versions, threads or devices have changed.",
    names="--accept-changes",
)
BOOTSTRAP = option(
    "Resamples, each refitted to convergence; 0 for no intervals.",
    INTERVALS,
    min=0,
    max=100_000,
    default=1000,
)
CI = option("Coverage of the intervals.", INTERVALS, default=0.95)
GLOB = option(
    "Of a folder of text only the files whose path below it matches: '*.md', 'docs/*'. Repeatable.",
    metavar="PATTERN",
    names="--glob",
)
HOURS = option("Budget as hours on --count devices of type --device at --mfu.", TIME, "H")
COUNT = option("Devices to train on: gives the hours of training.", TIME, "K")
MFU = option("Model FLOPs utilisation of training; default 0.4.", TIME, "X")


def device_time(
    device: str | None, count: int | None, mfu: float | None, hours: float | None
) -> DeviceTime | None:
    """Training on devices, where --hours, --count or --mfu asks for it. Raises ScalingError without
    a device.
    """
    from scaling.accounting import DeviceTime

    asked = {"hours": hours, "count": count, "mfu": mfu}
    given = next((name for name, value in asked.items() if value is not None), None)
    if given is None:
        return None
    if device is None:
        raise ScalingError(
            f"--{given} needs the name of a device",
            remedy="give it: --device h100 --count 8 --hours 72",
        )
    return DeviceTime(device, 1 if count is None else count, 0.4 if mfu is None else mfu)


@dataclass(frozen=True)
class ExecutionOptions:
    """How a run is carried out, not what it computes."""

    mesh: str | None = option(
        "Devices that share a run: data=2,fsdp=4,tensor=1. Default one device.",
        DEVICE,
        "AXIS=N,...",
    )
    micro_batch: int | None = option(
        "Sequences processed at a time; gradients are summed over the batch.",
        DEVICE,
        min=1,
        max=2**24,
    )
    remat: str = choice(
        "none block",
        "Rematerialisation: block saves block inputs only.",
        DEVICE,
        kind="way of rematerialisation",
        default="none",
    )

    def execution(self) -> Execution:
        """The options as an `Execution`. Raises ScalingError naming the option."""
        from scaling.config import Execution, MeshShape
        from scaling.config.mesh import parse_mesh

        shape = parse_mesh(self.mesh) if self.mesh else MeshShape()
        given = {name: getattr(self, name) for name in EXECUTION}
        return Execution.model_validate(given | {"mesh": shape})


@dataclass(frozen=True)
class TrainingOptions(ExecutionOptions):
    """Where and how `run` and `tune` train."""

    workers: int | None = WORKERS
    pack: int = option(
        "vmap at most N runs of one shape into one program.",
        DEVICE,
        min=1,
        max=4096,
        default=1,
    )
    max_runs: int | None = option("Train at most this many runs now.", BUDGET, min=1)
    resources: str | None = option(
        "Ray resources per process, your own names too, e.g. cpu=1,gpu=1.",
        CLUSTER,
        "cpu=1,gpu=1,...",
    )
    ray_address: str | None = option(
        "A Ray cluster; default RAY_ADDRESS, or the one running here.", CLUSTER
    )
    wait_for_nodes: bool = flag("Wait for nodes that Ray's autoscaler will add.", CLUSTER)
    simulate: str | None = option(
        "Dry-run the sweep on losses of a published law; nothing is trained.",
        metavar="published:NAME",
    )
    allow_changes: bool = ALLOW_CHANGES

    def run_options(
        self, executor: str, source: str, monitor: Monitor, **more: object
    ) -> RunOptions:
        """The options as `RunOptions`, whose fields they are named as; `more` replaces some."""
        from scaling.execute.options import Executor, RunOptions

        fields = {name: value for name, value in vars(self).items() if name not in EXECUTION}
        fields |= {"execution": self.execution()} | more
        return RunOptions(
            executor=Executor(executor),
            source=source,
            on_message=echo_err,
            monitor=monitor,
            **fields,
        )
