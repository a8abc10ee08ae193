"""Saves of a state that lives on eight forced devices, damaged in every way.

Run by test_sharded_checkpoint as a child.
"""

import contextlib
import io
import json
import resource
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np

from scaling.config import Execution, MeshShape
from scaling.errors import ScalingError
from scaling.train import sharded_checkpoint as store
from scaling.train.program import program_key
from scaling.train.sharding import Sharder
from scaling.train.step import initial_state
from tests.train.sharding_cases import run_of

CUBE = Execution(layers="scan", mesh=MeshShape(data=2, fsdp=2, tensor=2))
WIDE = Execution(layers="scan", mesh=MeshShape(fsdp=4))


def abstract_state(execution):
    """The shapes and places of a state on a mesh."""
    return Sharder(execution).abstract_state(
        jax.eval_shape(lambda: initial_state(program_key(run_of("scan"), execution), 0))
    )


def values(state):
    """Copies of all leaves."""
    return [np.array(leaf, copy=True) for leaf in jax.tree.leaves(state)]


def same(one, other):
    """Whether two lists of leaves agree to the bit."""
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True)
    )


def restored(path, execution=CUBE):
    """The note of the restored save, its leaves, its state, and the warnings on stderr."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        state, progress = store.restore(path, lambda progress: abstract_state(execution))
    return progress["note"], values(state), state, told.getvalue()


def attempt(path):
    """The note of the save that is found, or the kind of the error."""
    try:
        return restored(path)[0]
    except (store.Unreadable, ScalingError) as error:
        return f"{type(error).__name__}: {error}"


def round_trip(path):
    """Two saves, the arrays of each given away to the next update at once."""
    update = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = initial_state(program_key(run_of("scan"), CUBE), 0)
    first = values(state)
    store.save(path, state, {"note": 1})
    second = [leaf + 1 for leaf in first]
    state = update(state)
    begun = time.perf_counter()
    store.save(path, state, {"note": 2})
    returned = time.perf_counter() - begun
    update(update(state))
    store.wait()
    whole = time.perf_counter() - begun
    note, found, state, _ = restored(path)
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(abstract_state(CUBE)), strict=True)
    placed = [leaf.sharding.is_equivalent_to(want.sharding, leaf.ndim) for leaf, want in pairs]
    _, elsewhere, moved, _ = restored(path, WIDE)
    return {
        "note": note,
        "same": same(found, second),
        "placed": all(placed),
        "elsewhere": same(elsewhere, second),
        "devices": len(moved.params["unembedding"].sharding.device_set),
        "returned": returned,
        "whole": whole,
    }


def damages(path, backup):
    """What is found after a flipped bit in each file of the newest save, after a cut and after a
    deletion: the save before.
    """
    found = {}
    for file in sorted(
        item.relative_to(backup) for item in (backup / "00000002").rglob("*") if item.is_file()
    ):
        for kind in (
            ("flip", "cut", "delete")
            if file.suffix == ".json" or "state/d" in str(file)
            else ("flip",)
        ):
            shutil.rmtree(store.folder(path))
            shutil.copytree(backup, store.folder(path))
            target = store.folder(path) / file
            data = bytearray(target.read_bytes())
            data[len(data) // 2] ^= 4
            target.unlink() if kind == "delete" else target.write_bytes(
                data[: len(data) // 2] if kind == "cut" else data
            )
            note, _, _, told = restored(path)
            found[f"{kind} {file.relative_to('00000002')}"] = [note, "set aside" in told]
    return found


def interrupted(path, backup):
    """What a killed process leaves is ignored and cleaned away.

    With both saves damaged nothing is restored.
    """
    found = {}
    shutil.rmtree(store.folder(path))
    shutil.copytree(backup, store.folder(path))
    shutil.copytree(backup / "00000001", store.folder(path) / ".00000003.7")
    (store.folder(path) / "00000009.damaged").mkdir()
    found["half-written"] = attempt(path)
    found["cleaned"] = not (store.folder(path) / ".00000003.7").exists()
    for name in ("00000001", "00000002"):
        (store.folder(path) / name / "manifest.json").write_text("{}")
    found["all damaged"] = attempt(path)
    store.set_aside(path)
    found["set aside"] = path.with_suffix(".damaged").is_dir() and not store.exists(path)
    return found


def others(path, state):
    """The last two are kept.

    Other arrays are rejected; an error of the writer in the background is raised by `wait`.
    """
    for note in range(4):
        store.save(path, state, {"note": note})
    store.wait()
    found = {"kept": sorted(item.name for item in store.folder(path).iterdir())}
    try:
        store.restore(path, lambda progress: state._replace(step=state.params))
    except store.Unreadable as error:
        found["other arrays"] = str(error)
    shutil.rmtree(store.folder(path))
    store.folder(path).write_text("a file where the folder should be")
    try:
        store.save(path, state, {"note": 5})
        store.wait()
    except ScalingError as error:
        found["disk"] = [error.exit_code, str(error)]
    store.folder(path).unlink()
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY)
    )  # as on a full disk, writing fails half-way
    try:
        store.save(path, state, {"note": 6})
        store.wait()
    except ScalingError as error:
        found["full"] = [error.exit_code, str(error)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for note in (7, 8):  # threads of the refused save may still write while the first is made
        store.save(path, state, {"note": note})
        store.wait()
    found["left"] = sorted(item.name for item in store.folder(path).iterdir())
    store.discard(path)
    found["discarded"] = not store.folder(path).exists()
    return found


def main():
    """Print what became of every case."""
    path = Path(sys.argv[1]) / "run.npz"
    report = {"round trip": round_trip(path)}
    backup = path.with_name("backup")
    shutil.copytree(store.folder(path), backup)
    report["damages"] = damages(path, backup)
    report["interrupted"] = interrupted(path, backup)
    report["others"] = others(path, initial_state(program_key(run_of("scan"), CUBE), 0))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
