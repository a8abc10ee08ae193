"""Checkpoints of a run group.

Saved whole, restored to the bit, rejected where the bits would differ. With the user's consent a
run goes on under another execution: on a mesh what one device began, and back.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling.config import Execution, MeshShape
from scaling.config.run_groups import RunGroup
from scaling.errors import ScalingError
from scaling.store.rows import Measurement
from scaling.train import fingerprint, local_checkpoint
from scaling.train.distributed import broadcast_from_host0
from scaling.train.program import program_key
from scaling.train.run_metrics import RunMetrics
from scaling.train.step import TrainState, change_layout, draw_state, initial_state, stack_runs

Metrics = dict[str, RunMetrics]  # of the runs of a pack and of branches that have not left, by id


def save(
    path: Path, group: RunGroup, state: TrainState, metrics: Metrics, execution: Execution
) -> None:
    """Save what `group` needs to resume: for a branch the shared state and its own metrics."""
    progress = {
        "runs": [run.canonical() for run in group.runs],
        "metrics": {
            run.run_id: asdict(metrics[run.run_id])
            for run in group.runs_with_extensions()
            if run.run_id in metrics
        },
        "fingerprint": fingerprint.fingerprint(execution, len(group.runs)),
    }
    backend, *others = _backends(path, execution)
    backend.save(path, state, progress)
    if backend is local_checkpoint:  # a mesh does so once its shards are on disk
        for other in others:
            other.discard(path)


def wait_until_saved(path: Path, execution: Execution) -> None:
    """Return when the last save is complete on disk."""
    _backends(path, execution)[0].wait()


def discard(path: Path, execution: Execution) -> None:
    """Remove the checkpoints of a run that has ended."""
    for backend in _backends(path, execution):
        backend.discard(path)


def _backends(path: Path, execution: Execution) -> list[Any]:
    """One file for one device, Orbax shards for a mesh; first the one that this execution saves to,
    then the one that another execution may have saved to.
    """
    if execution.mesh.n_devices == 1 and not path.with_suffix(".sharded").exists():
        return [local_checkpoint]  # Orbax is imported for a mesh alone
    from scaling.train import sharded_checkpoint

    both = [local_checkpoint, sharded_checkpoint]
    return both if execution.mesh.n_devices == 1 else both[::-1]


def restore_or_init(
    path: Path, group: RunGroup, execution: Execution, allow_changes: bool
) -> tuple[TrainState, Metrics]:
    """The state of the checkpoint, or that of step 0: parameters drawn from each run's seed, no
    metrics. A corrupt checkpoint is renamed.

    Raises ScalingError when it was written under other conditions and `allow_changes` is not set.
    """
    for backend in _backends(path, execution):
        if broadcast_from_host0(backend.exists(path)) == [0]:
            continue
        try:
            return _restore(backend, path, group, execution, allow_changes)
        except (
            local_checkpoint.Unreadable,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            backend.set_aside(path)
            fingerprint.warn(f"{path.name}: checkpoint set aside, the run starts again: {error}")
    key = program_key(group.runs[0], execution)
    state = stack_runs([initial_state(key, run.seed) for run in group.runs])
    return state, {run.run_id: RunMetrics() for run in group.runs_with_extensions()}


def _restore(
    backend: Any, path: Path, group: RunGroup, execution: Execution, allow_changes: bool
) -> tuple[TrainState, Metrics]:
    """The state as it was saved, its layout changed to that of `execution`."""
    n_runs = len(group.runs)
    was = now = program_key(group.runs[0], execution)

    def saved_shapes(progress: dict[str, Any]) -> Any:
        nonlocal was
        if progress["runs"] != [run.canonical() for run in group.runs]:
            raise local_checkpoint.Unreadable("belongs to another run")
        saved, here = progress["fingerprint"], fingerprint.fingerprint(execution, n_runs)
        changed = [
            f"{key} was {saved.get(key)}, is {here.get(key)}"
            for key in sorted({*saved, *here})
            if saved.get(key) != here.get(key)
        ]
        if not allow_changes and broadcast_from_host0(bool(changed)) == [1]:
            raise ScalingError(
                "the checkpoint was written under other conditions, so the bits would differ: "
                + "; ".join(changed),
                where=path,
                remedy="restore the conditions, delete the checkpoint, or give --accept-changes",
            )
        settings = saved.get("execution", {})
        was = now._replace(
            execution=Execution(
                layers=settings.get("layers", "auto"),
                mesh=MeshShape(**settings.get("mesh", {})),
                kind="cpu" if "threads" in saved else "gpu",
            )
        )
        shapes = jax.eval_shape(lambda seed: stack_runs([draw_state(was, seed)] * n_runs), 0)
        return now.sharder.abstract_state(shapes)

    state, progress = backend.restore(path, saved_shapes)
    metrics = {
        run_id: RunMetrics(**(saved | {"measured": [Measurement(**m) for m in saved["measured"]]}))
        for run_id, saved in progress["metrics"].items()
    }

    def convert(state: TrainState) -> TrainState:
        return change_layout(was, now, state)

    state = jax.vmap(convert)(state) if n_runs > 1 else convert(state)
    if backend is local_checkpoint and now.sharder.is_sharded:
        state = jax.tree.map(np.asarray, state)  # each process puts its own part on its devices
    return state, metrics
