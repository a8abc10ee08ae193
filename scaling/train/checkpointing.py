"""Checkpoints of a run group.

Saved whole, restored to the bit, rejected where the bits would differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling.config import Execution
from scaling.config.run_groups import RunGroup
from scaling.errors import ScalingError
from scaling.train import fingerprint, local_checkpoint
from scaling.train.distributed import broadcast_from_host0
from scaling.train.run_metrics import RunMetrics, load_metrics
from scaling.train.sharding import Sharder
from scaling.train.step import TrainState, initial_state, program_key, stack_states


@dataclass
class TrainingState:
    """The state of a pack, and the metrics of its runs and of the branches that have not left, by
    run id.
    """

    state: TrainState
    metrics: dict[str, RunMetrics]


def init_state(group: RunGroup, execution: Execution) -> TrainingState:
    """Step 0: parameters drawn from each run's seed, no metrics."""
    key = program_key(group.runs[0])
    states = [initial_state(key, run.seed, execution) for run in group.runs]
    state = states[0] if len(states) == 1 else stack_states(states)
    return TrainingState(state, {run.run_id: RunMetrics() for run in group.followed_runs()})


def save(path: Path, group: RunGroup, training: TrainingState, execution: Execution) -> None:
    """Save what `group` needs to resume: for a branch the shared state and its own metrics."""
    progress = {
        "runs": [run.canonical() for run in group.runs],
        "metrics": {
            run.run_id: training.metrics[run.run_id].dump()
            for run in group.followed_runs()
            if run.run_id in training.metrics
        },
        "fingerprint": fingerprint.fingerprint(execution, len(group.runs)),
    }
    _backend(execution).save(path, training.state, progress)


def wait_until_saved(execution: Execution) -> None:
    """Return when the last save is complete on disk."""
    _backend(execution).wait()


def discard(path: Path, execution: Execution) -> None:
    """Remove the checkpoints of a run that has ended."""
    _backend(execution).discard(path)


def _backend(execution: Execution) -> Any:
    """One file for one device, Orbax shards for a mesh (Orbax is imported for these alone)."""
    if execution.mesh.n_devices == 1:
        return local_checkpoint
    from scaling.train import sharded_checkpoint

    return sharded_checkpoint


def restore_or_init(
    path: Path, group: RunGroup, execution: Execution, allow_changes: bool
) -> TrainingState:
    """The state of the checkpoint, or that of step 0; a corrupt checkpoint is renamed.

    Raises ScalingError when it was written under other conditions and `allow_changes` is not set.
    """
    backend = _backend(execution)
    if not backend.exists(path):
        _check_sharding_matches(path, execution)
        return init_state(group, execution)
    shapes = jax.eval_shape(lambda: init_state(group, execution).state)
    try:
        state, progress = backend.restore(path, Sharder(execution).abstract_state(shapes))
        if progress["runs"] != [run.canonical() for run in group.runs]:
            raise local_checkpoint.Unreadable("belongs to another run")
        metrics = {key: load_metrics(value) for key, value in progress["metrics"].items()}
        saved = dict(progress["fingerprint"])
    except (
        local_checkpoint.Unreadable,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        backend.set_aside(path)
        fingerprint.warn(f"{path.name}: checkpoint set aside, the run starts again: {error}")
        return init_state(group, execution)
    here = fingerprint.fingerprint(execution, len(group.runs))
    changed = [
        f"{key} was {saved.get(key)}, is {here.get(key)}"
        for key in sorted({*saved, *here})
        if saved.get(key) != here.get(key)
    ]
    if not allow_changes and broadcast_from_host0(np.array([bool(changed)]))[0]:
        raise ScalingError(
            "the checkpoint was written under other conditions, so the bits would differ: "
            + "; ".join(changed),
            where=path,
            remedy="restore the conditions, delete the checkpoint, or give --accept-changes",
        )
    return TrainingState(state, metrics)


def _check_sharding_matches(path: Path, execution: Execution) -> None:
    """A run cannot change between one device and a mesh.

    Its optimizer moments are laid out otherwise.
    """
    is_mesh = execution.mesh.n_devices > 1
    other = path if is_mesh else path.with_suffix(".sharded")
    if broadcast_from_host0(np.array([other.exists()]))[0]:
        was, now = ("one device", "a mesh") if is_mesh else ("a mesh", "one device")
        raise ScalingError(
            f"the checkpoint was written on {was} and cannot be resumed on {now}",
            where=other,
            remedy=f"resume on {was}, or delete the checkpoint",
        )
