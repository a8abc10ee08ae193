"""A family's state between sittings: saved whole, taken up to the bit, refused where the bits would differ."""

from __future__ import annotations

from collections.abc import Mapping
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
from scaling.train.run_metrics import RunMetrics, load_trail
from scaling.train.sharding import Sharder
from scaling.train.step import TrainState, initial_state, shape_of, stack_states


@dataclass
class TrainingState:
    """The state of a pack, the trail of each of its runs, and the trails of the branches that it still carries."""

    state: TrainState
    trails: dict[str, RunMetrics]


def init_state(family: RunGroup, how: Execution) -> TrainingState:
    """A new start: parameters drawn from each run's seed, empty trails for everyone."""
    shape = shape_of(family.runs[0])
    states = [initial_state(shape, run.seed, how) for run in family.runs]
    return TrainingState(
        states[0] if len(states) == 1 else stack_states(states),
        {run.run_id: RunMetrics() for run in family.all_runs()},
    )


def save(path: Path, family: RunGroup, carriage: TrainingState, how: Execution) -> None:
    """Keep what `family` needs to go on from here: of a branch, the trunk's state and its own trails."""
    trails = {
        run.run_id: carriage.trails[run.run_id].dump()
        for run in family.all_runs()
        if run.run_id in carriage.trails
    }
    progress = {
        "runs": [run.canonical() for run in family.runs],
        "trails": trails,
        "fingerprint": fingerprint.fingerprint(how, len(family.runs)),
    }
    _backend(how).save(path, carriage.state, progress)


def wait_until_saved(how: Execution) -> None:
    """Return when the last save is whole on disk; before that nobody may count on it."""
    _backend(how).wait()


def discard(path: Path, how: Execution) -> None:
    """Remove what a run that has ended left under `path`."""
    _backend(how).discard(path)


def _backend(how: Execution) -> Any:
    """The module that keeps states: one file of one process, or the shards of a mesh (Orbax is imported for these alone)."""
    if how.mesh.n_devices == 1:
        return local_checkpoint
    from scaling.train import sharded_checkpoint

    return sharded_checkpoint


def restore_or_init(
    path: Path, family: RunGroup, how: Execution, accept_other_machine: bool
) -> TrainingState:
    """The checkpoint's carriage, or a new one; a damaged checkpoint is set aside under another name.

    Raises ScalingError when it was written under other conditions and `accept_other_machine` is not set.
    """
    store = _backend(how)
    if not store.exists(path):
        _check_sharding_matches(path, how)
        return init_state(family, how)
    like = Sharder(how).outline(jax.eval_shape(lambda: init_state(family, how).state))
    try:
        state, progress = store.restore(path, like)
        if progress["runs"] != [run.canonical() for run in family.runs]:
            raise local_checkpoint.Unreadable("belongs to another run")
    except local_checkpoint.Unreadable as error:
        store.set_aside(path)
        fingerprint.warn(f"{path.name}: checkpoint set aside, the run starts again: {error}")
        return init_state(family, how)
    if not accept_other_machine:
        _check_machine(
            progress["fingerprint"], fingerprint.fingerprint(how, len(family.runs)), path
        )
    return TrainingState(
        state, {run_id: load_trail(trail) for run_id, trail in progress["trails"].items()}
    )


def _check_sharding_matches(path: Path, how: Execution) -> None:
    """A run that went on one device cannot go on on a mesh, nor the reverse: its moments are arranged otherwise."""
    other = path if how.mesh.n_devices > 1 else path.with_suffix(".sharded")
    if broadcast_from_host0(np.array([other.exists()]))[0]:
        was, now = ("one device", "a mesh") if how.mesh.n_devices > 1 else ("a mesh", "one device")
        remedy = f"go on with {was}, or delete the checkpoint"
        raise ScalingError(
            f"the checkpoint was written on {was} and cannot go on on {now}",
            where=str(other),
            remedy=remedy,
        )


def _check_machine(written: Mapping[str, Any], here: Mapping[str, Any], path: Path) -> None:
    changed = [
        f"{key} was {written.get(key)}, is {here.get(key)}"
        for key in sorted({*written, *here})
        if written.get(key) != here.get(key)
    ]
    if broadcast_from_host0(np.array([bool(changed)]))[0]:
        raise ScalingError(
            f"the checkpoint was written under other conditions, so the bits would differ: {'; '.join(changed)}",
            where=str(path),
            remedy="restore the conditions, delete the checkpoint, or give --accept-other-machine",
        )
