"""Checkpoint of a mesh.

Orbax writes the shards while training goes on; a manifest completes a save.

<name>.sharded/00000007/  state/ (Orbax)  progress.json  manifest.json (SHA-256 of every file)

A save is written under a name with a dot, hashed, synced, and only then renamed: Orbax checks no
payload and syncs no metadata by itself. The last two are kept, so that a corrupt one costs the
steps since the one before. Every process calls `save`, `wait` and `restore` at the same point on
one shared folder, and hashes the shards that it wrote when they are saved and when they are
restored; process 0 hashes the rest and publishes. No pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import multihost
from orbax.checkpoint.options import AsyncOptions

from scaling.errors import DISK, ScalingError
from scaling.files import sync
from scaling.train import fingerprint, local_checkpoint
from scaling.train.distributed import broadcast_from_host0, is_first, on_any_process
from scaling.train.local_checkpoint import Like, Unreadable

FORMAT = 1
KEPT = 2
SUMS = "sums."  # of the shards of one process, until the manifest has them
HASH_SECONDS = 1200
_writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")  # joined at interpreter exit
# No folder is written twice: TensorStore remembers what it wrote there, even where that failed.
_attempts = itertools.count()
_pending: list[tuple[Path, Future[None]]] = []


def folder(path: Path) -> Path:
    """The folder of the saves of the run of `path`."""
    return path.with_suffix(".sharded")


def exists(path: Path) -> bool:
    """Whether a run has a checkpoint here."""
    return bool(_saves(path))


def save(path: Path, state: Any, progress: dict[str, Any]) -> None:
    """Copy `state` off the devices and return; files appear when all of them are on disk.

    Waits for the save before.
    """
    wait()
    numbers = [0, *(int(name[:8]) for name in _saves(path, r"[0-9]{8}(\.damaged)?"))]
    number, attempt = broadcast_from_host0(1 + max(numbers), next(_attempts))
    hidden = folder(path) / f".{number:08d}.{attempt}"
    if is_first():
        _clean(path)
    checkpointer = _checkpointer()
    with _disk_errors(path):
        checkpointer.save((hidden / "state").absolute(), _named(state))
    progress = progress | {"format": FORMAT, "leaves": _described(state)}
    document = json.dumps(progress, allow_nan=False)
    _pending.append((path, _writer.submit(_publish, checkpointer, path, hidden, document)))


def wait() -> None:
    """Return when the save under way is complete on every process.

    Raises ScalingError (74) for a full disk, and any other error of the save.
    """
    if not _pending:
        return
    path, done = _pending.pop()
    error = done.exception()
    failed = on_any_process(error is not None)
    with _disk_errors(path):
        if error is not None:
            raise error
    if failed:
        raise ScalingError(
            "another process could not write the checkpoint",
            where=path,
            remedy="its own message says why",
            exit_code=DISK,
        )


def _checkpointer() -> ocp.StandardCheckpointer:
    """Makes folders before `save` returns: its threads would wait for them for 20 minutes."""
    options = AsyncOptions(create_directories_asynchronously=False)
    return ocp.StandardCheckpointer(async_options=options)


def _publish(
    checkpointer: ocp.StandardCheckpointer, path: Path, hidden: Path, document: str
) -> None:
    """In the background: wait for the shards, make the save visible; remove a failed one."""
    try:
        with contextlib.closing(checkpointer):
            checkpointer.wait_until_finished()
        if barrier := multihost.get_barrier_sync_fn():
            own = f"ocdbt.process_{jax.process_index()}/"
            sums = _sums(hidden, lambda name: own in name)
            (hidden / f"{SUMS}{jax.process_index()}").write_text(json.dumps(sums), "utf-8")
            barrier(key=f"hashed {hidden.name}", timeout_ms=1000 * HASH_SECONDS)
        if is_first():
            _make_visible(path, hidden, document)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def _make_visible(path: Path, hidden: Path, document: str) -> None:
    """Hash what no process has hashed, sync and rename; then drop the saves before the last two,
    and those of one device.
    """
    (hidden / "progress.json").write_text(document, encoding="utf-8")
    sums: dict[str, str] = {}
    for item in hidden.glob(f"{SUMS}*"):
        sums |= json.loads(item.read_text(encoding="utf-8"))
        item.unlink()
    sums |= _sums(hidden, lambda name: name not in sums)
    (hidden / "manifest.json").write_text(json.dumps(sums, indent=0), encoding="utf-8")
    for item in (*hidden.rglob("*"), hidden):
        sync(item)
    hidden.rename(folder(path) / hidden.name.split(".")[1])
    sync(folder(path))
    sync(folder(path).parent)
    for old in _saves(path)[:-KEPT]:
        shutil.rmtree(folder(path) / old)
    local_checkpoint.discard(path)


def restore(path: Path, like: Like) -> tuple[Any, dict[str, Any]]:
    """The newest intact save, in the structure and shardings that `like` makes of its progress, and
    the progress.

    The mesh may be another, or one device. A corrupt save is set aside with a warning and the one
    before is used. Raises Unreadable if none is left, or if it has other arrays.
    """
    wait()
    chosen = _newest_intact(path)
    progress = json.loads((chosen / "progress.json").read_text(encoding="utf-8"))
    wanted, here = like(progress), SingleDeviceSharding(jax.local_devices()[0])
    for one, other in itertools.zip_longest(progress["leaves"], _described(wanted)):
        if one != other:
            has, needs = (" ".join(map(str, leaf or ["nothing"])) for leaf in (one, other))
            raise Unreadable(f"has {has}, the run needs {needs}")
    target = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or here)
        for name, leaf in _named(wanted).items()
    }
    with contextlib.closing(_checkpointer()) as checkpointer:
        leaves = checkpointer.restore((chosen / "state").absolute(), target)
    state = jax.tree.unflatten(jax.tree.structure(wanted), [leaves[name] for name in target])
    return state, progress


def set_aside(path: Path) -> None:
    """Rename the saves, so that they can be inspected."""
    if is_first():
        target = path.with_suffix(".damaged")
        shutil.rmtree(target, ignore_errors=True)
        folder(path).rename(target)
    broadcast_from_host0(0)  # every process waits until it is done


def discard(path: Path) -> None:
    """Remove the saves of a run that has ended."""
    wait()
    if is_first():
        shutil.rmtree(folder(path), ignore_errors=True)


def _saves(path: Path, pattern: str = r"[0-9]{8}") -> list[str]:
    """Names of the visible saves, oldest first."""
    items = folder(path).glob("*")
    return sorted(item.name for item in items if re.fullmatch(pattern, item.name) and item.is_dir())


def _clean(path: Path) -> None:
    """Remove unfinished saves; what their last threads still write is removed the next time."""
    for item in folder(path).glob(".[0-9]*"):
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item, ignore_errors=True)


def _named(state: Any) -> dict[str, Any]:
    """The leaves of a state under names that sort in tree order."""
    return {f"leaf_{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}


def _described(state: Any) -> list[list[Any]]:
    """Path, shape and dtype of every leaf; Orbax itself would cast silently."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [
        [jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves
    ]


def _newest_intact(path: Path) -> Path:
    """The newest save that matches its manifest; others are set aside. Every process checks its
    share. Raises Unreadable if none is left.
    """
    if is_first():
        _clean(path)
    while True:
        (newest,) = broadcast_from_host0(int(["0", *_saves(path)][-1]))
        if not newest:
            raise Unreadable(f"none of the saves in {folder(path).name} is intact")
        save_folder = folder(path) / f"{newest:08d}"
        fault = _fault(save_folder)
        if not on_any_process(bool(fault)):
            return save_folder
        fault = fault or "another process could not read its share"
        fingerprint.warn(f"{folder(path).name}/{save_folder.name}: save set aside: {fault}")
        if is_first():
            damaged = save_folder.with_suffix(".damaged")
            shutil.rmtree(damaged, ignore_errors=True)
            save_folder.rename(damaged)


def _fault(save_folder: Path) -> str:
    """Why this process's share of a save is not what was written; empty if it is."""
    try:
        written = json.loads((save_folder / "manifest.json").read_text(encoding="utf-8"))
        sums = _sums(save_folder, lambda name: name != "manifest.json" and _is_own(name))
        for file in sorted({*filter(_is_own, written), *sums}):
            if written.get(file) != sums.get(file):
                wrong = "is not what was written" if file in sums else "is missing"
                raise Unreadable(f"{file} {wrong}")
        progress = json.loads((save_folder / "progress.json").read_text(encoding="utf-8"))
        if progress["format"] != FORMAT:
            raise Unreadable(f"format {progress['format']}, this program reads {FORMAT}")
    except Exception as error:  # noqa: BLE001 - the save before may be intact
        return f"{type(error).__name__}: {error}"
    return ""


def _is_own(file: str) -> bool:
    """Whether this process checks a file: what a process wrote is its own (Orbax gives each a
    folder; there may be fewer now), and the rest is process 0's.
    """
    writer = re.search(r"ocdbt\.process_(\d+)/", file)
    return (int(writer[1]) if writer else 0) % jax.process_count() == jax.process_index()


def _sums(save_folder: Path, is_wanted: Callable[[str], bool]) -> dict[str, str]:
    """SHA-256 of the wanted files of a save by their names, several at a time."""

    def digest(name: str) -> str:
        with open(save_folder / name, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    files = (item for item in save_folder.rglob("*") if item.is_file())
    names = sorted(filter(is_wanted, (str(item.relative_to(save_folder)) for item in files)))
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(names, pool.map(digest, names), strict=True))


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turns errors of the disk into ScalingError.

    TensorStore calls a full disk RESOURCE_EXHAUSTED, as jax does memory.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and "os_error_code" not in str(error):
            raise
        reason = str(error).partition("\n")[0][:200]
        remedy = "free space or fix the permissions, then run again"
        raise ScalingError(
            f"cannot write: {reason}", where=folder(path), remedy=remedy, exit_code=DISK
        ) from error
