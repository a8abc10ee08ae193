"""Arguments and options that several commands share, each declared once.

A command takes a dataclass of options as one parameter; `app.add_command` spreads its fields over
the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scaling.cli.output import choice, echo_err, option
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.config import Execution
    from scaling.execute.options import Monitor, RunOptions

DEVICE, CLUSTER, BUDGET = "Device", "Cluster", "Budget"
MAX_PACK = 4096


def keys_that_begin(incomplete: str) -> list[str]:
    """For the shell: the keys of a sweep file that begin so, with their sign."""
    from scaling.config.overrides import known_keys

    return [f"{key}=" for key in known_keys() if key.startswith(incomplete)]


SweepPath = Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file (TOML).")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Changes to the sweep file: optim.lr=3e-4, design.budgets='[1e12,1e13]'. A list for "
        "a field of model, optim or task is an axis. The changed sweep has its own name and "
        "folder.",
        autocompletion=keys_that_begin,
    ),
]
Out = Annotated[
    Path | None,
    option("The sweep's folder; default results/<name>.", metavar="DIR"),
]
Workers = Annotated[
    int | None,
    option("Parallel processes; default one per core, or one on a GPU.", DEVICE, min=1, max=1024),
]
AcceptChanges = Annotated[
    bool,
    option("Continue although code, corpus, versions, threads or devices have changed."),
]


@dataclass(frozen=True)
class ExecutionOptions:
    """How a run is carried out, not what it computes."""

    mesh: Annotated[
        str | None,
        option(
            "Devices that share a run: data=2,fsdp=4,tensor=1. Default one device.",
            DEVICE,
            "AXIS=N,...",
        ),
    ] = None
    micro_batch: Annotated[
        int | None,
        option(
            "Sequences processed at a time; gradients are summed over the batch.",
            DEVICE,
            min=1,
            max=2**24,
        ),
    ] = None
    remat: Annotated[
        str,
        choice(
            "none products block",
            "Rematerialisation: products saves matmul outputs, block saves block inputs only.",
            DEVICE,
            kind="way of rematerialisation",
        ),
    ] = "none"

    def execution(self) -> Execution:
        """The options as an `Execution`. Raises ScalingError naming the option."""
        from scaling.config import Execution, MeshShape
        from scaling.config.mesh import parse_mesh

        shape = parse_mesh(self.mesh) if self.mesh else MeshShape()
        fields = {"mesh": shape, "micro_batch": self.micro_batch, "remat": self.remat}
        return Execution.model_validate(fields)


@dataclass(frozen=True)
class TrainingOptions(ExecutionOptions):
    """Where and how `run` and `tune` train."""

    workers: Workers = None
    pack: Annotated[
        str,
        option(
            "vmap several runs of one shape into one program: auto (small runs on an accelerator) "
            "or at most N.",
            DEVICE,
            "auto|N",
        ),
    ] = "auto"
    max_runs: Annotated[int | None, option("Train at most this many runs now.", BUDGET, min=1)] = (
        None
    )
    resources: Annotated[
        str | None,
        option(
            "Ray resources per process, your own names too, e.g. cpu=1,gpu=1.",
            CLUSTER,
            "cpu=1,gpu=1,...",
        ),
    ] = None
    ray_address: Annotated[
        str | None,
        option("A Ray cluster; default RAY_ADDRESS, or the one running here.", CLUSTER),
    ] = None
    wait_for_nodes: Annotated[
        bool,
        option("Wait for nodes that Ray's autoscaler will add.", CLUSTER),
    ] = False
    simulate: Annotated[
        str | None,
        option(
            "Dry-run the sweep on losses of a published law; nothing is trained.",
            metavar="published:NAME",
        ),
    ] = None
    accept_changes: AcceptChanges = False

    def run_options(
        self, executor: str, source: str, monitor: Monitor, **more: object
    ) -> RunOptions:
        """The options as `RunOptions`; `more` are those of `scaling run` alone."""
        from scaling.execute.options import Executor, RunOptions

        return RunOptions(
            executor=Executor(executor),
            execution=self.execution(),
            workers=self.workers,
            pack=parse_pack(self.pack),
            max_runs=self.max_runs,
            simulate=self.simulate,
            allow_changes=self.accept_changes,
            resources=self.resources,
            ray_address=self.ray_address,
            wait_for_nodes=self.wait_for_nodes,
            source=source,
            on_message=echo_err,
            monitor=monitor,
            **more,  # type: ignore[arg-type]
        )


def parse_pack(text: str) -> int | Literal["auto"]:
    """`--pack` as "auto" or a number of runs. Raises ScalingError for anything else."""
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MAX_PACK):
        raise ScalingError(
            f"--pack = {text[:40]!r} is not a number of runs",
            remedy=f'write "auto", or a number from 1 to {MAX_PACK}',
        )
    return int(text)
