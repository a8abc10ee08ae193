"""Saves of a state that lives on eight forced devices, damaged in every way.

Run by test_checkpoint_files as a child.
"""

import contextlib
import io
import json
import resource
import sys
import time
from pathlib import Path

import jax
import numpy as np

from scaling.config import Execution, MeshShape
from scaling.errors import ScalingError
from scaling.train import checkpoint_files as store
from scaling.train.program import program_key
from scaling.train.sharding import Sharder
from scaling.train.step import initial_state
from tests.train.sharding_cases import run_of

CUBE = Execution(layers="scan", mesh=MeshShape(data=2, fsdp=2, tensor=2))
WIDE = Execution(layers="scan", mesh=MeshShape(fsdp=4))


def shapes(execution):
    """The shapes of a state under an execution."""
    return jax.eval_shape(lambda: initial_state(program_key(run_of("scan"), execution), 0))


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
        state, progress = store.restore(path, lambda progress: shapes(execution))
    return progress["note"], values(state), Sharder(execution).put_state(state), told.getvalue()


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
    pairs = zip(
        jax.tree.leaves(state),
        jax.tree.leaves(Sharder(CUBE).shardings(shapes(CUBE))),
        strict=True,
    )
    placed = [leaf.sharding.is_equivalent_to(want, leaf.ndim) for leaf, want in pairs]
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


def damages(path):
    """What is found after flipped bits, cuts and a deletion of the newest file: the save before."""
    good, before, found = path.read_bytes(), store.previous(path).read_bytes(), {}
    places = [len(good) * part // 7 for part in range(1, 7)]
    changes = {f"flip {place}": place for place in places} | {"cut": None, "delete": None}
    for name, place in changes.items():
        data = bytearray(good)
        if place is not None:
            data[place] ^= 4
        store.previous(path).write_bytes(before)
        path.write_bytes(data[: len(data) // 2] if name == "cut" else data)
        if name == "delete":
            path.unlink()
        note, _, _, told = restored(path)
        found[name] = [note, name == "delete" or "set aside" in told]
    return found


def others(path, state):
    """The last two are kept.

    With both corrupt nothing is restored. Other arrays are rejected; an error of the writer in the
    background is raised by `wait`.
    """
    for note in range(4):
        store.save(path, state, {"note": note})
    store.wait()
    found = {"kept": sorted(item.name for item in path.parent.glob("run.*npz"))}
    found["notes"] = [restored(item)[0] for item in (path, store.previous(path))]
    try:
        store.restore(path, lambda progress: state._replace(step=state.params["embedding"]))
    except store.Unreadable as error:
        found["other arrays"] = str(error)
    store.previous(path).write_bytes(b"{}")
    path.write_bytes(b"{}")
    found["all corrupt"] = attempt(path)
    store.set_aside(path)
    found["set aside"] = not store.exists(path) and len([*path.parent.glob("run.*damaged")])
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY)
    )  # as on a full disk, writing fails half-way
    try:
        store.save(path, state, {"note": 6})
        store.wait()
    except ScalingError as error:
        found["full"] = [error.exit_code, str(error)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found["left"] = [item.name for item in path.parent.iterdir() if item.suffix != ".damaged"]
    store.save(path, state, {"note": 7})
    store.discard(path)
    found["discarded"] = not store.exists(path)
    return found


def main():
    """Print what became of every case."""
    path = Path(sys.argv[1]) / "run.npz"
    report = {"round trip": round_trip(path)}
    report["damages"] = damages(path)
    store.discard(path)
    report["others"] = others(path, initial_state(program_key(run_of("scan"), CUBE), 0))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
