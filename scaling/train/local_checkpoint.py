"""Checkpoint of one device: arrays and progress in one checksummed .npz file, no pickle.

It is written to a temporary name, synced and renamed, with a SHA-256 in the comment of the zip, so
that a truncated or altered file is noticed when it is read. The one before is kept, so that a
corrupt file costs the steps since then. `sharded_checkpoint` is for a mesh.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling import files
from scaling.train import fingerprint

FORMAT = 1


class Unreadable(Exception):
    """The checkpoint is corrupt or of another format; the caller sets it aside and starts again."""


def exists(path: Path) -> bool:
    """Whether a run has a checkpoint here."""
    return path.exists() or previous(path).exists()


def previous(path: Path) -> Path:
    """The checkpoint before the last."""
    return path.with_suffix(".previous.npz")


def wait() -> None:
    """A save is on disk when `save` returns."""


def set_aside(path: Path) -> None:
    """Rename the checkpoints, so that they can be inspected."""
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
    # a sweep's folder that was moved away is not made again
    with files.temporary_of(path, parents=False) as temporary:
        # as np.savez does, but with a comment: reopened for it, an archive that cannot be read
        # would be replaced by an empty one
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            archive.comment = files.PLACEHOLDER.encode()
        files.append_checksum(temporary)
        files.sync(temporary)
        if path.exists():
            os.replace(path, previous(path))
        os.replace(temporary, path)
        files.sync(path.parent)


Like = Callable[[dict[str, Any]], Any]  # the structure, shapes and dtypes of a progress's state


def restore(path: Path, like: Like) -> tuple[Any, dict[str, Any]]:
    """The state and the progress of the last intact save.

    Raises Unreadable with the reason if there is none, and what `like` raises.
    """
    if path.exists():
        try:
            return _restore(path, like)
        except Unreadable as error:
            if not previous(path).exists():
                raise
            os.replace(path, path.with_name(f"{path.name}.damaged"))
            fingerprint.warn(f"{path.name}: checkpoint set aside, using the one before: {error}")
    return _restore(previous(path), like)


def _restore(path: Path, like: Like) -> tuple[Any, dict[str, Any]]:
    try:
        # read whole: zipfile and numpy hide errors of reading in errors of their own
        data = files.read_bytes(path)
        files.verify_checksum(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            progress = json.loads(bytes(arrays["progress"]))
            leaves = [arrays[f"leaf_{i}"] for i in range(len(arrays.files) - 1)]
    except (files.DiskError, MemoryError):
        raise  # the file may be intact: it stays where it is
    except Exception as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    if not isinstance(progress, dict):
        raise Unreadable("its progress is not an object")
    if progress.get("format") != FORMAT:
        raise Unreadable(f"format {progress.get('format')}, this program reads {FORMAT}")
    state = like(progress)
    for leaf, wanted in zip(leaves, jax.tree.leaves(state), strict=True):
        if leaf.shape != wanted.shape or leaf.dtype != wanted.dtype:
            raise Unreadable(
                f"has {leaf.dtype}{leaf.shape}, the run needs {wanted.dtype}{wanted.shape}"
            )
    arrays = [jax.numpy.asarray(leaf) for leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(state), arrays), progress
