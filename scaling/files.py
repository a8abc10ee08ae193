"""Atomic, checksummed file input and output: a file is whole or absent, and a changed byte is
noticed.

Every file carries the SHA-256 of all its bytes, computed with zeros in the digest's place and
marked `checksum:sha256:`. JSON holds it as its last key, TOML and text as a last line, Parquet in
the metadata of its footer, a checkpoint as the comment of its zip. Only a checksum that does not
match is corruption (`ChecksumError`). A file system that fails (EIO, ESTALE, EMFILE, ...) is asked
again shortly, and then named in a `DiskError` (exit 74): the file stays where it is.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from scaling.errors import DISK, ScalingError

PLACEHOLDER = "checksum:sha256:" + "0" * 64
KEYS = ("checksum", "seal")  # of a JSON document; files of former versions say `seal`
TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{12}\.tmp$")
CHANGED = "its bytes are not those that were written (SHA-256)"
NOT_REGULAR = "it is not a regular file"
_CHECKSUM = re.compile(rb"(?:checksum|seal):sha256:([0-9a-f]{64})?")
_CHANGED_MARK = re.compile(rb":sha256:[0-9a-f]{64}|(?:checksum|seal).{8}[0-9a-f]{64}")
_TAIL_BYTES = 1 << 16
_ABSENT = (FileNotFoundError, NotADirectoryError)
_PAUSES = (0.05, 0.25, 1.0)  # seconds before a read that failed is tried again
_NETWORK = {errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN, errno.EHOSTDOWN}
_TRANSIENT = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ENOLCK}
_TRANSIENT |= _NETWORK
UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL}
_NO_LINKS = UNSUPPORTED | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV}
_CHECK = "check the {}, then run again; finished runs are kept"
_MOVE = "move away what is there, or name another path"
_REMEDIES = {
    errno.ENOENT: "choose another folder, then run again",
    errno.ENOSPC: "free space, then run again",
    errno.EDQUOT: "free space or raise the quota, then run again",
    errno.EMFILE: "raise the limit of open files (ulimit -n), then run again",
    errno.ENFILE: "close files or raise the system's limit of them, then run again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: _CHECK.format("disk"),
    **dict.fromkeys(_NETWORK, _CHECK.format("network file system")),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP), _MOVE),
}
T = TypeVar("T")


class ChecksumError(Exception):
    """The bytes are not those that were written."""


class DiskError(ScalingError):
    """The operating system refused a file operation (exit 74)."""


def disk_error(error: OSError, path: Path, action: str = "write") -> DiskError:
    """The error that names the file, what the system says of it, and what helps.

    A part of the path that is a file instead of a folder is named as such.
    """
    where, code = str(path), error.errno or 0
    with contextlib.suppress(OSError):  # the disk may refuse this as well
        folders = (path, *path.parents) if code in (errno.EEXIST, errno.ENOTDIR) else path.parents
        blocked = next((p for p in folders if os.path.lexists(p) and not p.is_dir()), None)
        if blocked is not None:
            kind = "a file" if blocked.exists() else "a link that leads nowhere"
            what = f"{'' if blocked == path else f'{blocked} '}is {kind}, not a folder"
            return DiskError(what, where=where, remedy=_MOVE, exit_code=DISK)
    what = f"cannot {action}: {error.strerror or error}"
    if code in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError, StopIteration):
            space = os.statvfs(next(folder for folder in path.parents if folder.is_dir()))
            what += f" ({space.f_bavail * space.f_frsize:,} bytes free)"
    if code in UNSUPPORTED:
        what += f" by the file system {filesystem_of(path)}"
    remedy = _REMEDIES.get(code, "fix the permissions or choose another folder, then run again")
    return DiskError(what, where=where, remedy=remedy, exit_code=DISK)


def filesystem_of(path: Path) -> str:
    """Type and mount point of the file system that holds a path, as in `nfs4 at /home`."""
    with contextlib.suppress(OSError):
        target = os.path.realpath(path)
        mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
        inside = [m for m in mounts if os.path.commonpath([target, m[1]]) == m[1]]
        if inside:
            _, point, kind, *_ = max(inside, key=lambda mount: len(mount[1]))
            return f"{kind} at {point}"
    return "of this folder"


def check_local(path: Path) -> None:
    """Raise ScalingError for the address of an object store or a web page: no promise could be kept
    there.
    """
    scheme = re.match(r"([a-z][a-z0-9+.-]+):/", str(path))
    if scheme:
        raise ScalingError(
            f"{scheme[1]}:// addresses are not supported, only file systems",
            where=path,
            remedy="use a local or shared folder (or mount the store), and copy before or after",
        )


@contextlib.contextmanager
def as_disk_error(path: Path, action: str = "write") -> Iterator[None]:
    """Turn an OSError of the block into the DiskError of `path`; absence (FileNotFoundError)
    passes.
    """
    try:
        yield
    except _ABSENT:
        raise
    except OSError as error:
        raise disk_error(error, path, action) from error


def retry(path: Path, read: Callable[[], T]) -> T:
    """`read()`, tried again shortly where the file system fails.

    Raises FileNotFoundError (or NotADirectoryError) where there is no file, DiskError otherwise.
    """
    for pause in _PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno not in _TRANSIENT:
                break
            time.sleep(pause)
    with as_disk_error(path, "read"):
        return read()


def read_bytes(path: Path) -> bytes:
    """All bytes of a regular file, without waiting for a pipe. Raises ChecksumError for anything
    else, FileNotFoundError, DiskError.
    """

    def read() -> bytes:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link to itself, a socket
                raise ChecksumError(NOT_REGULAR) from None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ChecksumError(NOT_REGULAR)
        with os.fdopen(descriptor, "rb") as handle:
            return handle.read()

    return retry(path, read)


def exists(path: Path) -> bool:
    """Whether there is anything of that name, also a link that leads nowhere. Raises DiskError."""
    try:
        retry(path, lambda: os.lstat(path))
    except _ABSENT:
        return False
    return True


def with_checksum(data: bytes) -> bytes:
    """`data` with the digest filled in where its last `PLACEHOLDER` stands."""
    start = data.rindex(PLACEHOLDER.encode()) + len(PLACEHOLDER) - 64
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[start + 64 :]


def append_checksum(path: Path) -> None:
    """Fill in the digest of a file that ends in a `PLACEHOLDER` (in its last 64 KiB), chunk by
    chunk.
    """
    with open(path, "rb+") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        start = max(0, handle.seek(0, os.SEEK_END) - _TAIL_BYTES)
        handle.seek(start)
        offset = handle.read().rindex(PLACEHOLDER.encode()) + len(PLACEHOLDER) - 64
        handle.seek(start + offset)
        handle.write(digest.encode())


def verify_checksum(data: bytes) -> bool:
    """Whether `data` carries a checksum. Raises ChecksumError when it does not match."""
    tail = max(0, len(data) - _TAIL_BYTES)
    matches = list(_CHECKSUM.finditer(data, tail))
    if not matches and not _CHANGED_MARK.search(data, tail):
        return False
    if not matches or matches[-1][1] is None:
        raise ChecksumError("its checksum is corrupt")
    start, end = matches[-1].span(1)
    digest = hashlib.sha256(memoryview(data)[:start])
    digest.update(b"0" * 64 + data[end:])
    if digest.hexdigest().encode() != matches[-1][1]:
        raise ChecksumError(CHANGED)
    return True


def check_file(path: Path) -> bool:
    """Whether a file carries a checksum. Raises ChecksumError, FileNotFoundError, DiskError."""
    return verify_checksum(read_bytes(path))


def write_atomically(
    target: Path, write: Callable[[Path], object], *, durable: bool = True, parents: bool = True
) -> None:
    """Call `write(temporary path)` in the target's folder, sync, and rename; readers never see half
    a file.

    Raises DiskError. Without `durable` a power cut may lose the file, a kill may not.
    """
    with temporary_of(target, parents) as temporary:
        write(temporary)
        if durable:
            sync(temporary)
        os.replace(temporary, target)
        if durable:
            sync(target.parent)


def write_once(target: Path, write: Callable[[Path], object]) -> bool:
    """As `write_atomically`, but what exists already stays; says whether this call made the file.

    Where the file system has no hard links, two writers at the same instant may both say that they
    did.
    """
    with temporary_of(target) as temporary:
        write(temporary)
        sync(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if target.exists():
                return False
            os.replace(temporary, target)
        sync(target.parent)
    return True


@contextlib.contextmanager
def temporary_of(target: Path, parents: bool = True) -> Iterator[Path]:
    """A name next to `target` that no other process uses; removed at the end. Its folder is made,
    and with `parents` those above it. Raises DiskError.
    """
    check_local(target)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        target.parent.mkdir(parents=parents, exist_ok=True)
        yield temporary
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        with contextlib.suppress(OSError):  # the error above says it already
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A hidden folder next to `target` that takes its name at the end: whole, synced, or not at
    all. Raises DiskError, also where `target` has files; folders made for an error are removed.
    """
    check_local(target)
    place = target.absolute()
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    made = [parent for parent in place.parents if not parent.exists()]
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        os.rename(temporary, place)
        sync(place.parent)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # of a success they are not empty
                parent.rmdir()


def sync(path: Path) -> None:
    """Return when a file or a folder is on the disk, as far as its file system can promise that of
    folders.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def write_text(target: Path, text: str) -> None:
    """Publish a text file as it is, without a checksum, whole or not at all."""
    write_atomically(target, lambda path: path.write_text(text, encoding="utf-8"))


def write_lines(target: Path, text: str, comment: str = "") -> None:
    """Publish a text whose last line, after `comment`, is its checksum."""
    data = with_checksum(f"{text.rstrip(chr(10))}\n{comment}{PLACEHOLDER}\n".encode())
    write_atomically(target, lambda path: path.write_bytes(data))


def write_json(
    target: Path,
    document: Mapping[str, Any],
    *,
    indent: int | None = 1,
    durable: bool = True,
    parents: bool = True,
) -> None:
    """Publish a JSON document whose last key is its checksum; `parents` as in `temporary_of`."""
    text = json.dumps(
        {**document, KEYS[0]: PLACEHOLDER}, indent=indent, allow_nan=False, ensure_ascii=False
    )
    data = with_checksum(f"{text}\n".encode())
    write_atomically(target, lambda path: path.write_bytes(data), durable=durable, parents=parents)


def read_json(path: Path) -> dict[str, Any]:
    """A document without its checksum; one that carries none is taken as it is.

    Raises ChecksumError for anything that is no such document, FileNotFoundError, DiskError.
    """
    data = read_bytes(path)
    verify_checksum(data)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ChecksumError(f"not JSON: {str(error)[:80]}") from None
    if not isinstance(document, dict):
        raise ChecksumError("not a JSON object")
    for key in KEYS:
        document.pop(key, None)
    return document


def list_files(folder: Path, suffix: str, *, regular: bool = True) -> list[Path]:
    """The regular files of a folder with a suffix, by name, or whatever is called so; unfinished
    ones (a dot in front) are left out.

    An absent folder is empty. Raises DiskError where the folder cannot be read or is none.
    """

    def read() -> list[Path]:
        with os.scandir(folder) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if entry.name.endswith(suffix)
                and entry.name[0] != "."
                and (not regular or _is_file(entry))
            )

    try:
        return retry(folder, read)
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise disk_error(error, folder, "read") from None


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise
