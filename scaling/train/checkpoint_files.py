"""Checkpoint files: arrays and progress in one checksummed .npz file a process, no pickle.

Each process writes the shards of its own devices: process 0, or the only one, to <name>.npz,
process 1 to <name>.1.npz. A file is written to a temporary name, synced and renamed, with a SHA-256
in the comment of the zip, so that a truncated or altered one is noticed when it is read. The one
before is kept, so that a corrupt file costs the steps since then. Those of a mesh are written in
the background. All processes call `save`, `wait` and `restore` at the same points on one shared
folder; a save counts once all of them have written their part.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling import files
from scaling.errors import DISK, ScalingError
from scaling.train import fingerprint
from scaling.train.distributed import broadcast_from_host0, is_first, on_any_process

FORMAT = 2
Like = Callable[[dict[str, Any]], Any]  # the structure, shapes and dtypes of a progress's state
_writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")  # joined at interpreter exit
_pending: list[tuple[Path, Future[None]]] = []  # the save under way


class Unreadable(Exception):
    """The checkpoint is corrupt or of another format; the caller sets it aside and starts again."""


def previous(path: Path) -> Path:
    """The file before the last."""
    return path.with_suffix(".previous.npz")


def exists(path: Path) -> bool:
    """Whether a run has a checkpoint here, as process 0 sees it."""
    return broadcast_from_host0(path.exists() or previous(path).exists()) == [1]


def set_aside(path: Path) -> None:
    """Rename the files of all processes, so that they can be inspected."""
    if is_first():
        for item in all_files(path):
            item.rename(item.with_name(f"{item.name}.damaged"))
    broadcast_from_host0(0)  # every process waits until it is done


def discard(path: Path) -> None:
    """Remove the state of a run that has ended."""
    wait()
    if is_first():
        for item in all_files(path):
            item.unlink(missing_ok=True)


def all_files(path: Path) -> list[Path]:
    """The files of every process, the last ones and those before."""
    return sorted(path.parent.glob(f"{path.stem}.*npz"))


def save(path: Path, state: Any, progress: dict[str, Any]) -> None:
    """Write the leaves of `state` in tree order, and `progress` as JSON.

    A mesh's are copied off the devices, and written in the background: see `wait`.
    """
    wait()
    leaves, arrays, pieces, is_sharded = jax.tree.leaves(state), [], [], False
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
            is_sharded = True
            for shard in leaf.addressable_shards:
                if shard.replica_id == 0:
                    arrays.append(np.array(shard.data))  # a copy: the next step overwrites it
                    pieces.append([index, [side.start or 0 for side in shard.index]])
        else:
            arrays.append(np.asarray(leaf))
            pieces.append([index, [0] * np.ndim(leaf)])
    described = progress | {
        "format": FORMAT,
        "save": broadcast_from_host0(secrets.randbits(31)),  # parts of one save agree
        "n_processes": jax.process_count(),
        "leaves": [[list(leaf.shape), str(leaf.dtype)] for leaf in leaves],
        "pieces": pieces,
    }
    text = json.dumps(described, allow_nan=False)
    if is_sharded:
        own = _part(path, jax.process_index())
        _pending.append((path, _writer.submit(_write, own, arrays, text)))
    else:
        _write(path, arrays, text)


def _part(path: Path, process: int) -> Path:
    return path.with_suffix(f".{process}.npz") if process else path


def _write(path: Path, arrays: list[np.ndarray], progress: str) -> None:
    named = {f"leaf_{i}": array for i, array in enumerate(arrays)}
    named["progress"] = np.frombuffer(progress.encode(), np.uint8)
    # a sweep's folder that was moved away is not made again
    with files.temporary_of(path, parents=False) as temporary:
        # as np.savez does, but with a comment: reopened for it, an archive that cannot be read
        # would be replaced by an empty one
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, array in named.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            archive.comment = files.PLACEHOLDER.encode()
        files.append_checksum(temporary)
        files.sync(temporary)
        if path.exists():
            os.replace(path, previous(path))
        os.replace(temporary, path)
        files.sync(path.parent)


def wait() -> None:
    """Return when the save under way is complete on every process. Raises DiskError."""
    if not _pending:
        return
    path, written = _pending.pop()
    error = written.exception()
    failed = on_any_process(error is not None)
    if error is not None:
        raise error
    if failed:
        raise ScalingError(
            "another process could not write the checkpoint",
            where=path,
            remedy="its own message says why",
            exit_code=DISK,
        )


def restore(path: Path, like: Like) -> tuple[Any, dict[str, Any]]:
    """The last intact save: the state as whole arrays on the host, and the progress.

    `like` gives the structure of the state for a progress. A corrupt save is set aside with a
    warning and the one before is used. Raises Unreadable with the reason if none is left, and what
    `like` raises.
    """
    wait()
    candidates = [file for file in (path, previous(path)) if file.exists()] or [path]
    for file in candidates:
        saved, reason = None, "another process could not read it"
        try:
            saved = _read_parts(path, file)
        except Unreadable as error:
            reason = str(error)
        if not on_any_process(saved is None) and saved is not None:
            break
        if file != candidates[-1]:
            if is_first():
                os.replace(file, file.with_name(f"{file.name}.damaged"))
            fingerprint.warn(f"{file.name}: checkpoint set aside, using the one before: {reason}")
    else:
        raise Unreadable(reason)
    leaves, progress = saved
    state = like(progress)
    for leaf, wanted in zip(leaves, jax.tree.leaves(state), strict=True):
        if leaf.shape != wanted.shape or leaf.dtype != wanted.dtype:
            raise Unreadable(
                f"has {leaf.dtype}{leaf.shape}, the run needs {wanted.dtype}{wanted.shape}"
            )
    return jax.tree.unflatten(jax.tree.structure(state), leaves), progress


def _read_parts(path: Path, file: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The whole leaves and the progress of a save of which `file` is the part of process 0."""
    arrays, progress = _read(file)
    leaves = [np.empty(shape, dtype) for shape, dtype in progress["leaves"]]
    _fill(leaves, arrays, progress)
    for process in range(1, progress["n_processes"]):
        part = _part(path, process)
        for other in (part, previous(part)):
            with contextlib.suppress(Unreadable):
                arrays, described = _read(other)
                if described["save"] == progress["save"]:
                    _fill(leaves, arrays, described)
                    break
        else:
            raise Unreadable(f"{part.name} is not intact, or of another save")
    return leaves, progress


def _fill(leaves: list[np.ndarray], arrays: list[np.ndarray], progress: dict[str, Any]) -> None:
    """Put the arrays of a part where they belong in the leaves."""
    for (index, starts), array in zip(progress["pieces"], arrays, strict=True):
        sides = zip(starts, array.shape, strict=True)
        leaves[index][tuple(slice(start, start + size) for start, size in sides)] = array


def _read(file: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The arrays and the progress of a file. Raises Unreadable, DiskError."""
    try:
        # read whole: zipfile and numpy hide errors of reading in errors of their own
        data = files.read_bytes(file)
        files.verify_checksum(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            progress = json.loads(bytes(arrays["progress"]))
            leaves = [arrays[f"leaf_{i}"] for i in range(len(arrays.files) - 1)]
    except (files.DiskError, MemoryError):
        raise  # the file may be intact: it stays where it is
    except Exception as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    if not isinstance(progress, dict) or progress.get("format") != FORMAT:
        raise Unreadable(f"not of format {FORMAT}, which this program reads")
    return leaves, progress
