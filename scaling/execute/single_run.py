"""`train_single_run`: one run of a sweep in this process, or in one process on each of several
hosts.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scaling.config import Execution
from scaling.config.run_groups import constant_lr_eval_steps, extension_groups, group_runs
from scaling.errors import RUNS_FAILED, STOPPED, ScalingError
from scaling.execute import worker
from scaling.execute.events import OnEvent
from scaling.execute.lease import Lease
from scaling.execute.machine import check_devices
from scaling.execute.options import OnMessage
from scaling.execute.prepare_folder import prepare
from scaling.execute.signals import Signals, exit_code
from scaling.execute.sweep_folder import SweepFolder
from scaling.plan import Plan


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended; `is_first` says whether this process writes the results."""

    run_id: str
    outcome: Literal["done", "diverged", "stopped"]
    file: str
    reason: str | None
    is_first: bool
    exit_code: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of `scaling train`."""
        names = ("run_id", "outcome", "file", "reason")
        return {name: getattr(self, name) for name in names}


def train_single_run(
    plan: Plan,
    run_id: str,
    folder: SweepFolder,
    execution: Execution,
    hosts: AbstractContextManager[bool],
    *,
    source: str,
    is_distributed: bool,
    allow_changes: bool,
    on_message: OnMessage,
    on_event: OnEvent,
    profile: Path | None = None,
) -> RunOutcome:
    """Train one run of a plan and publish it in a folder; a finished one stays.

    `hosts` joins the processes of the run (`distributed_process`). Raises ScalingError for a run
    that is not in the plan, or (75) that another process trains. A trace of some steps goes to the
    folder `profile`.
    """
    known = {item.run_id: item for item in plan.runs}
    if run_id not in known:
        raise ScalingError(
            f"run {run_id!r} is not in the plan",
            where=source,
            remedy="`scaling plan SWEEP` lists the run ids",
        )
    if not is_distributed:
        check_devices([known[run_id]], execution, 1)
    signals, kind = Signals(), "done"
    with signals, hosts as is_first, contextlib.ExitStack() as stack:
        lease: Lease | None = None
        if is_first:
            lease = stack.enter_context(Lease(folder.path))
            prepare(folder, plan, lease, on_message, allow_changes=allow_changes)
            with lease.locked() as claimed:
                if run_id in claimed:
                    raise ScalingError(
                        f"run {run_id} is in training by another process",
                        where=folder.path,
                        remedy="watch it with `scaling status`",
                        exit_code=STOPPED,
                    )
                lease.claim([run_id])
        if not folder.is_finished(run_id):
            runs = [item.run for item in plan.runs]
            eval_steps, kept = constant_lr_eval_steps(runs), extension_groups(runs, plan.extensions)
            (group,) = group_runs([known[run_id].run], eval_steps, kept)
            request = worker.TrainRequest(
                sweep=plan.sweep.name,
                group=group,
                execution=execution,
                allow_changes=allow_changes,
                lease=lease.name if lease else None,
                profile=str(profile) if profile else None,
            )
            outcomes = worker.train_group(folder, request, should_stop=signals, on_event=on_event)
            kind = outcomes[run_id]
    codes = {"done": 0, "diverged": RUNS_FAILED, "stopped": exit_code(signals.received)}
    return RunOutcome(
        run_id=run_id,
        outcome=kind,  # type: ignore[arg-type]
        file=str(folder.path_of("rows", run_id)),
        reason=folder.reason(run_id) or None,
        is_first=is_first,
        exit_code=codes[kind],
    )


@contextlib.contextmanager
def distributed_process(
    coordinator: str | None, processes: int | None, process: int | None
) -> Iterator[bool]:
    """Join the processes of one run while inside; yields whether this is the one that writes."""
    if coordinator is None and processes is None and process is None:
        yield True
        return
    from scaling.train.distributed import DistributedConfig, initialize_distributed, is_first

    settings = (
        DistributedConfig()
        if (coordinator, processes, process) == ("auto", None, None)
        else DistributedConfig(coordinator, processes, process)
    )
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)  # libraries print to file descriptor 1 (gloo names its peers)
    try:
        with initialize_distributed(settings):
            yield is_first()
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
