"""A run's state on disk, whole or not at all: arrays and progress in one checksummed file, no pickle.

One sealed .npz (SHA-256 in the comment of the zip) is written to a temporary name, synced and renamed, so a torn or flipped
file is noticed when it is read. The one before is kept, so that a damaged file costs the steps since then. (Sharded states
of many hosts need another writer; this one is for runs that one process holds.)
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling import files
from scaling.train import fingerprint

FORMAT = 1


class Unreadable(Exception):
    """The checkpoint is damaged or of another format; the caller sets it aside and starts again."""


def exists(path: Path) -> bool:
    """Whether a run left its state here."""
    return path.exists() or previous(path).exists()


def previous(path: Path) -> Path:
    """Where the state before the last is kept."""
    return path.with_suffix(".previous.npz")


def wait() -> None:
    """A save is on disk when `save` returns."""


def set_aside(path: Path) -> None:
    """Put what is here under another name, for a person to look at."""
    for item in (path, previous(path)):
        if item.exists():
            item.rename(item.with_name(f"{item.name}.damaged"))


def discard(path: Path) -> None:
    """Remove the state of a run that has ended."""
    path.unlink(missing_ok=True)
    previous(path).unlink(missing_ok=True)


def save(path: Path, state: Any, progress: dict[str, Any]) -> None:
    """Write the leaves of `state` in tree order, and `progress` as JSON."""
    leaves = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    text = json.dumps(progress | {"format": FORMAT}, allow_nan=False)
    arrays = leaves | {"progress": np.frombuffer(text.encode(), np.uint8)}
    with files.temporary_of(path) as temporary:
        _write(temporary, arrays)
        files.sync(temporary)
        if path.exists():
            os.replace(path, previous(path))
        os.replace(temporary, path)
        files.sync(path.parent)


def _write(target: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(target, "wb") as handle:  # a handle: np.savez would add .npz to the temporary name
        np.savez(handle, **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(target, "a") as archive:
        archive.comment = files.PLACEHOLDER.encode()
    files.append_checksum(target)


def restore(path: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """A state of the structure, shapes and dtypes of `like`, and the progress, from the last save that is whole.

    Raises Unreadable with the reason where none is.
    """
    if path.exists():
        try:
            return _restore(path, like)
        except Unreadable as error:
            if not previous(path).exists():
                raise
            os.replace(path, path.with_name(f"{path.name}.damaged"))
            fingerprint.warn(f"{path.name}: checkpoint set aside, the one before is taken: {error}")
    return _restore(previous(path), like)


def _restore(path: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    def load() -> tuple[list[np.ndarray], dict[str, Any]]:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            count = len(jax.tree.leaves(like))
            return [arrays[f"leaf_{i}"] for i in range(count)], json.loads(
                bytes(arrays["progress"])
            )

    try:
        files.check_file(path)
        leaves, progress = files.retry(path, load)
    except (files.DiskError, MemoryError):
        raise  # the file may be intact: it stays where it is
    except Exception as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    if not isinstance(progress, dict):
        raise Unreadable("its progress is not an object")
    if progress.get("format") != FORMAT:
        raise Unreadable(f"format {progress.get('format')}, this program reads {FORMAT}")
    for leaf, wanted in zip(leaves, jax.tree.leaves(like), strict=True):
        if leaf.shape != wanted.shape or leaf.dtype != wanted.dtype:
            raise Unreadable(
                f"holds {leaf.dtype}{leaf.shape} where the run needs {wanted.dtype}{wanted.shape}"
            )
    return jax.tree.unflatten(
        jax.tree.structure(like), [jax.numpy.asarray(leaf) for leaf in leaves]
    ), progress
