"""The status of a sweep's folder: which runs are done, running, failed or missing, at any moment,
while other processes write.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

from pydantic import Field

from scaling.config.base import Document, finite
from scaling.execute.events import Pace
from scaling.execute.lease import Heartbeats, peers
from scaling.execute.ledger import summarize
from scaling.execute.sweep_folder import SweepFolder
from scaling.plan.document import PlannedRunEntry
from scaling.store import run_files
from scaling.store.rows import DIVERGED
from scaling.warning import ResultWarning, WarningCode, warn

COLUMNS = ["run_id", "step", "split", "metric", "value"]
RunState = Literal["done", "running", "failed", "missing"]


class RunStatus(Document):
    """One planned run.

    Args:
        n_params: all parameters; n_params_with_head: blocks and head, the convention of `plan`;
            n_params_active: the same with only the experts that a token takes.
        loss: at `step`, in nats: of the held-out data ("val"), or of the last training batches
            ("train") while the run is in training.
        reason: why it failed or is missing.
    """

    run_id: str
    status: RunState
    n_params: int
    n_params_with_head: int
    tokens: int
    step: int | None
    loss: float | None
    loss_split: Literal["train", "val"] | None
    attempts: int
    reason: str | None
    n_params_active: int


class Counts(Document):
    """Runs by state."""

    done: int
    running: int
    failed: int
    missing: int


class SweepCost(Document):
    """Seconds of all workers, FLOPs that they trained (lost attempts included), and FLOPs of the
    plan with each run trained alone.
    """

    worker_seconds: float
    flops: float
    planned_flops: float


class Status(Document):
    """The status document of the CLI contract.

    Args:
        eta_seconds: time left; null unless runs are in training and have a pace.
        pace: tokens/s, model FLOP/s and MFU of all runs in training.
        processes: the processes that train here now.
        no_longer_planned: finished runs that the sweep file no longer asks for.
        simulated: the law from which the runs are drawn, if they are.
        warnings: files that are corrupt.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    sweep: str
    counts: Counts
    runs: tuple[RunStatus, ...]
    eta_seconds: float | None
    pace: Pace | None
    cost: SweepCost
    processes: tuple[str, ...]
    no_longer_planned: tuple[str, ...]
    simulated: str | None
    warnings: tuple[ResultWarning, ...]

    @property
    def summary(self) -> str:
        """The counts that are not zero, in one line."""
        counts = self.counts.model_dump()
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def read_status(folder: SweepFolder, seen: Heartbeats | None = None) -> Status:
    """The status of a folder. Raises ScalingError where it has no plan.

    Pass the same `seen` to repeated calls, so that stopped processes of other hosts are noticed.
    """
    plan = folder.read_plan()
    training = peers(folder.path, {} if seen is None else seen)
    rows = run_files.read_folder(folder.path, COLUMNS)
    losses, reasons, attempts = _val_losses(rows), folder.reasons(), summarize(folder.path)
    groups = [group for peer in training for group in peer.progress.runs]
    progress = {run_id: group for group in groups for run_id in group.run_ids}
    claimed = {run_id for peer in training for run_id in peer.claims}
    corrupt = {run_id: file.reason for file in rows.corrupt_files for run_id in file.run_ids}
    tokens = {run.run_id: run.tokens for run in plan.runs}

    def run_status(planned: PlannedRunEntry) -> RunStatus:
        run_id = planned.run_id
        reason: str | None = reasons.get(run_id) or None
        state: RunState = "failed" if reason else "done" if run_id in losses else "missing"
        step, loss = losses.get(run_id, (None, None))
        split: Literal["train", "val"] = "val"
        if run_id not in losses and run_id in claimed:
            state, reason, split = "running", None, "train"
            group = progress.get(run_id)
            if group is not None and planned.tokens < tokens.get(group.run_id, 0):
                state, reason = "missing", f"branches off {group.run_id}, which is in training"
            elif group is not None:
                step, loss = group.step, finite(group.loss)
        elif run_id not in losses and run_id in corrupt:
            state = "missing"
            reason = f"its file is corrupt ({corrupt[run_id]}); `scaling run` trains it again"
        return RunStatus(
            run_id=run_id,
            status=state,
            n_params=planned.n_params.total,
            n_params_with_head=planned.n_params.with_head,
            n_params_active=planned.n_params.active or planned.n_params.with_head,
            tokens=planned.tokens,
            step=step,
            loss=loss,
            loss_split=None if loss is None else split,
            attempts=attempts.attempts[run_id],
            reason=reason,
        )

    runs = tuple(map(run_status, plan.runs))
    counts = dict.fromkeys(Counts.model_fields, 0) | Counter(run.status for run in runs)
    etas = [peer.progress.eta_seconds for peer in training if peer.progress.eta_seconds is not None]
    warnings = [
        warn(WarningCode.CORRUPT_FILE, str(file), file=str(file.path), run_ids=file.run_ids)
        for file in rows.corrupt_files
    ]
    if count := attempts.unreadable:
        message = f"ledger: attempts and cost are too low, for entries cannot be read: {count}"
        warnings.append(warn(WarningCode.CORRUPT_LEDGER, message, entries=count))
    return Status(
        sweep=plan.sweep,
        counts=Counts(**counts),
        runs=runs,
        eta_seconds=max(etas) if etas and counts["running"] else None,
        pace=Pace.of(groups) if groups else None,
        cost=SweepCost(
            worker_seconds=attempts.seconds + sum(group.seconds for group in groups),
            flops=attempts.flops + sum(group.flops for group in groups),
            planned_flops=plan.flops or float(sum(run.flops for run in plan.runs)),
        ),
        processes=tuple(peer.name for peer in training),
        no_longer_planned=tuple(sorted(losses.keys() - {run.run_id for run in plan.runs})),
        simulated=plan.simulated,
        warnings=tuple(warnings),
    )


def _val_losses(rows: run_files.FolderRows) -> dict[str, tuple[int | None, float | None]]:
    """(step, loss) of the last validation of each run; (None, None) where it diverged before."""
    table = rows.table.to_pandas(use_threads=False)
    diverged = table.loc[table["metric"] == DIVERGED, "run_id"]
    is_loss = (table["split"] == "val") & (table["metric"] == "loss")
    val = table[is_loss & ~table["run_id"].isin(diverged)].sort_values("step", kind="stable")
    last = val.drop_duplicates("run_id", keep="last")
    losses: dict[str, tuple[int | None, float | None]]
    losses = dict.fromkeys(table["run_id"].unique(), (None, None))
    return losses | {row.run_id: (row.step, finite(row.value)) for row in last.itertuples()}
