"""What a sweep's folder says about each of its runs: done, running, failed or missing, at any moment, while others write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.execute.attempts import AttemptSummary, summarize
from scaling.execute.lease import HeartbeatMonitor, OtherProcess, peers
from scaling.execute.sweep_folder import SweepFolder
from scaling.store import run_files
from scaling.store.rows import DIVERGED

COLUMNS = ["run_id", "step", "split", "metric", "value"]


@dataclass(frozen=True)
class _Facts:
    """What is asked once, for all runs."""

    losses: dict[str, tuple[int | None, float | None]]
    reasons: dict[str, str]
    live: dict[str, dict[str, Any]]
    held: frozenset[str]
    damaged: dict[str, str]
    account: AttemptSummary


def status(folder: SweepFolder, watch: HeartbeatMonitor | None = None) -> dict[str, Any]:
    """The status document of the CLI contract; `eta_seconds` is null unless the sweep is in training and has a pace.

    `cost` counts what all attempts have taken, those that a kill has cost included; `warnings` name what is damaged.
    """
    document = folder.read_plan()
    training = peers(folder.path, watch or HeartbeatMonitor())
    held = run_files.read_folder(folder.path, COLUMNS)
    facts = _facts(folder, held, training)
    runs = [_run_status(planned, facts) for planned in document["runs"]]
    counts = {
        name: sum(run["status"] == name for run in runs)
        for name in ("done", "running", "failed", "missing")
    }
    planned_ids = {planned["run_id"] for planned in document["runs"]}
    etas = [peer.eta_seconds for peer in training if peer.eta_seconds is not None]
    return {
        "sweep": document["sweep"],
        "counts": counts,
        "runs": runs,
        "eta_seconds": max(etas) if etas and counts["running"] else None,
        "cost": _cost(document, facts),
        "processes": [peer.name for peer in training],
        "no_longer_planned": sorted(facts.losses.keys() - planned_ids),
        "simulated": document.get("simulated"),
        "warnings": _warnings(held, facts, training),
    }


def _facts(folder: SweepFolder, held: run_files.FolderRows, training: list[OtherProcess]) -> _Facts:
    return _Facts(
        losses=_losses(held),
        reasons=folder.reasons(),
        live={
            run_id: entry for peer in training for entry in peer.live for run_id in entry["run_ids"]
        },
        held=frozenset(run_id for peer in training for run_id in peer.runs),
        damaged={
            run_id: damage.reason for damage in held.corrupt_files for run_id in damage.run_ids
        },
        account=summarize(folder.path),
    )


def _losses(held: run_files.FolderRows) -> dict[str, tuple[int | None, float | None]]:
    """(step, loss) of the last validation of each run; (None, None) where it diverged before one."""
    table = held.table
    ids = np.asarray(table.column("run_id").to_numpy(zero_copy_only=False))
    split, metric = (
        np.asarray(table.column(name).to_numpy(zero_copy_only=False))
        for name in ("split", "metric")
    )
    step, value = table.column("step").to_numpy(), table.column("value").to_numpy()
    diverged = set(ids[metric == DIVERGED])
    found: dict[str, tuple[int | None, float | None]] = dict.fromkeys(ids.tolist(), (None, None))
    chosen = np.flatnonzero((split == "val") & (metric == "loss"))
    for i in chosen[np.argsort(step[chosen], kind="stable")]:
        if ids[i] not in diverged:
            found[ids[i]] = (int(step[i]), float(value[i]))
    return found


def _run_status(planned: dict[str, Any], facts: _Facts) -> dict[str, Any]:
    run_id = planned["run_id"]
    reason = facts.reasons.get(run_id, "")
    step, loss = facts.losses.get(run_id, (None, None))
    if run_id in facts.losses:
        state = "failed" if reason else "done"
    elif run_id in facts.held:
        live = facts.live.get(run_id, {})
        state, reason, step, loss = "running", "", live.get("step"), live.get("loss")
    elif run_id in facts.damaged:
        state, reason = (
            "missing",
            f"its file is corrupt ({facts.damaged[run_id]}); `scaling run` redoes it",
        )
    else:
        state = "failed" if reason else "missing"
    return {
        "run_id": run_id,
        "status": state,
        "n_params": planned["n_params"]["total"],
        "tokens": planned["tokens"],
        "step": step,
        "loss": loss,
        "attempts": facts.account.attempts[run_id],
        "reason": reason or None,
    }


def _cost(document: dict[str, Any], facts: _Facts) -> dict[str, float]:
    """Seconds of all workers, FLOPs they have trained, and FLOPs of the whole plan (each run alone)."""
    entries = {
        id(entry): entry for entry in facts.live.values()
    }.values()  # the runs of a family share one
    now, seconds = (sum(entry.get(name, 0.0) for entry in entries) for name in ("flops", "seconds"))
    planned = float(sum(run["flops"] for run in document["runs"]))
    return {
        "worker_seconds": facts.account.seconds + seconds,
        "flops": facts.account.flops + now,
        "planned_flops": planned,
    }


def _warnings(held: run_files.FolderRows, facts: _Facts, training: list[OtherProcess]) -> list[str]:
    found = [str(damage) for damage in held.corrupt_files]
    if facts.account.unreadable:
        found.append(
            f"ledger: {facts.account.unreadable} entries cannot be read: attempts and cost are too low by them"
        )
    return found + [
        f"leases/{peer.name}.json is corrupt: which runs it holds is not known"
        for peer in training
        if not peer.readable
    ]
