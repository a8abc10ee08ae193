"""What a sweep's folder says about each of its runs: done, running, failed or missing, at any moment."""

from __future__ import annotations

import json
from typing import Any

from scaling.execute.folder import SweepFolder, final_loss
from scaling.results import run_files


def status(folder: SweepFolder) -> dict[str, Any]:
    """The status document of the CLI contract; `eta_seconds` is null unless the sweep is in training and has a pace."""
    document = folder.read_plan()
    eta, live = _live(folder)
    runs = [_run_status(folder, planned, live) for planned in document["runs"]]
    counts = {name: sum(run["status"] == name for run in runs) for name in ("done", "running", "failed", "missing")}
    planned_ids = {planned["run_id"] for planned in document["runs"]}
    others = [path.stem for path in run_files(folder.path) if path.stem not in planned_ids]
    return {"sweep": document["sweep"], "counts": counts, "runs": runs, "eta_seconds": eta, "no_longer_planned": others}


def _live(folder: SweepFolder) -> tuple[float | None, dict[str, dict[str, Any]]]:
    """Seconds left, and what the runs in training said last; nothing when nobody trains."""
    if not folder.is_held() or not folder.progress.exists():
        return None, {}
    live = json.loads(folder.progress.read_text(encoding="utf-8"))
    return live["eta_seconds"], {run_id: entry for entry in live["runs"] for run_id in entry["run_ids"]}


def _run_status(folder: SweepFolder, planned: dict[str, Any], live: dict[str, dict[str, Any]]) -> dict[str, Any]:
    run_id = planned["run_id"]
    state, reason = folder.outcome(run_id)
    step, loss = None, None
    if folder.run_file(run_id).exists():
        step, loss = final_loss(folder.run_file(run_id)) or (None, None)
    elif run_id in live:
        state, reason, step, loss = "running", "", live[run_id]["step"], live[run_id]["loss"]
    return {
        "run_id": run_id,
        "status": state,
        "n_params": planned["n_params"]["total"],
        "tokens": planned["tokens"],
        "step": step,
        "loss": loss,
        "attempts": folder.attempts(run_id),
        "reason": reason or None,
    }
