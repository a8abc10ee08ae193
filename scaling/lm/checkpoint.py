"""A run's state on disk, whole or not at all: arrays and progress in one checksummed file, no pickle.

One .npz carries CRC-32 sums and is written to a temporary name, synced and renamed, so a torn or flipped file is noticed
when it is read. (Sharded states of many hosts need another writer; this one is for runs that one process holds.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling.results import write_atomically

FORMAT = 1


class Unreadable(Exception):
    """The checkpoint is damaged or of another format; the caller sets it aside and starts again."""


def exists(path: Path) -> bool:
    """Whether a run left its state here."""
    return path.exists()


def wait() -> None:
    """A save is on disk when `save` returns."""


def set_aside(path: Path) -> None:
    """Put the file under another name, for a person to look at."""
    path.rename(path.with_suffix(".damaged"))


def discard(path: Path) -> None:
    """Remove the state of a run that has ended."""
    path.unlink(missing_ok=True)


def save(path: Path, state: Any, progress: dict[str, Any]) -> None:
    """Write the leaves of `state` in tree order, and `progress` as JSON."""
    leaves = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    text = json.dumps(progress | {"format": FORMAT}, allow_nan=False)
    write_atomically(path, lambda target: _write(target, leaves | {"progress": np.frombuffer(text.encode(), np.uint8)}))


def _write(target: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(target, "wb") as handle:  # a handle: np.savez would add .npz to the temporary name
        np.savez(handle, **arrays)  # type: ignore[arg-type]


def restore(path: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """A state of the structure, shapes and dtypes of `like`, and the progress. Raises Unreadable with the reason."""
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as held:  # np.load leaves a damaged file open
            progress = json.loads(bytes(held["progress"]))
            leaves = [held[f"leaf_{i}"] for i in range(len(jax.tree.leaves(like)))]
    except Exception as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    if progress.get("format") != FORMAT:
        raise Unreadable(f"format {progress.get('format')}, this program reads {FORMAT}")
    for leaf, wanted in zip(leaves, jax.tree.leaves(like), strict=True):
        if leaf.shape != wanted.shape or leaf.dtype != wanted.dtype:
            raise Unreadable(f"holds {leaf.dtype}{leaf.shape} where the run needs {wanted.dtype}{wanted.shape}")
    return jax.tree.unflatten(jax.tree.structure(like), [jax.numpy.asarray(leaf) for leaf in leaves]), progress
