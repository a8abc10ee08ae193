"""What a sweep writes is whole or absent, and says itself when it is no longer what was written.

Every file carries a seal: `seal:sha256:` and the digest of all its bytes, computed with zeros in the digest's place. JSON
holds it as its last key, TOML and text as a last line, Parquet among the metadata of its footer, a checkpoint as the
comment of its zip. So one bit that flips anywhere is noticed, in any format, without a second file that could be lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scaling.errors import DISK, ScalingError

MARK = b"seal:sha256:"
PLACEHOLDER = (MARK + b"0" * 64).decode()
TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{12}\.tmp$")
_HEX = re.compile(rb"[0-9a-f]{64}")
_PIECE, _TAIL = 1 << 20, 1 << 16
CHANGED = "its bytes are not those that were written (SHA-256)"


class ChecksumError(Exception):
    """The bytes are not those that were sealed."""


def with_checksum(data: bytes) -> bytes:
    """`data` with the digest filled in where its last `PLACEHOLDER` stands."""
    place = data.rindex(PLACEHOLDER.encode()) + len(MARK)
    return data[:place] + hashlib.sha256(data).hexdigest().encode() + data[place + 64 :]


def append_checksum(path: Path) -> None:
    """Fill in the digest of a file that ends in a `PLACEHOLDER` (at most 64 KiB before its end), without holding it in memory."""
    with open(path, "rb+") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        start = max(0, handle.seek(0, os.SEEK_END) - _TAIL)
        handle.seek(start)
        place = start + handle.read().rindex(PLACEHOLDER.encode()) + len(MARK)
        handle.seek(place)
        handle.write(digest.encode())


def verify_checksum(data: bytes | memoryview) -> bool:
    """Whether `data` carries a seal. Raises Broken when the seal is not that of these bytes."""
    view = memoryview(data)
    place = _place(bytes(view[-_TAIL:]))
    offset = max(0, len(view) - _TAIL)
    if place is None and offset:
        place, offset = _place(bytes(view)), 0
    if place is None:
        return False
    place += offset
    digest = hashlib.sha256(view[:place])
    digest.update(b"0" * 64)
    digest.update(view[place + 64 :])
    if digest.hexdigest().encode() != bytes(view[place : place + 64]):
        raise ChecksumError(CHANGED)
    return True


def _place(data: bytes) -> int | None:
    """Where the digest of the last seal stands; None without one. Raises Broken where the seal itself is damaged."""
    found = data.rfind(MARK)
    if found >= 0 and not _HEX.match(data, found + len(MARK)):
        raise ChecksumError("its seal is damaged")
    if found < 0 and any(
        _is_damaged_marker(data[match.start() - len(MARK) : match.start()])
        for match in _HEX.finditer(data, max(0, len(data) - _TAIL))
    ):
        raise ChecksumError("its seal is damaged")
    return found + len(MARK) if found >= 0 else None


def _is_damaged_marker(text: bytes) -> bool:
    """Whether these bytes are the mark but for one bit."""
    return (
        len(text) == len(MARK)
        and sum((one ^ other).bit_count() for one, other in zip(text, MARK, strict=True)) == 1
    )


def check_file(path: Path) -> bool:
    """Whether a file carries a seal, without holding it in memory. Raises Broken, or OSError."""
    with open(path, "rb") as handle:
        start = max(0, handle.seek(0, os.SEEK_END) - _TAIL)
        handle.seek(start)
        found = _place(handle.read())
        if found is None:
            return verify_checksum(path.read_bytes()) if start else False
        handle.seek(0)
        digest, left = hashlib.sha256(), start + found
        while left:
            piece = handle.read(min(left, _PIECE))
            digest.update(piece)
            left -= len(piece)
        held = handle.read(64)
        digest.update(b"0" * 64 + handle.read())
    if digest.hexdigest().encode() != held:
        raise ChecksumError(CHANGED)
    return True


def write_atomically(
    target: Path, write: Callable[[Path], object], *, durable: bool = True
) -> None:
    """Call `write(temporary path)` in the target's folder, sync, and rename; readers never see half a file.

    Raises ScalingError (74) when the disk refuses. Without `durable` a power cut may lose the file, a kill may not.
    """
    with temporary_of(target) as temporary:
        write(temporary)
        if durable:
            sync(temporary)
        os.replace(temporary, target)
        if durable:
            sync(target.parent)


def write_once(target: Path, write: Callable[[Path], object]) -> bool:
    """As `write_atomically`, but what exists already stays; says whether this call made the file."""
    with temporary_of(target) as temporary:
        write(temporary)
        sync(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except (PermissionError, NotImplementedError):  # a file system without hard links
            os.replace(temporary, target)
        sync(target.parent)
    return True


@contextlib.contextmanager
def temporary_of(target: Path) -> Iterator[Path]:
    """A name beside `target` that no other process or host uses; nothing stays under it. Disk errors become ScalingError (74)."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        with contextlib.suppress(
            OSError
        ):  # a parent is a file, or the disk is read-only: said above
            temporary.unlink(missing_ok=True)


def disk_error(error: OSError, target: Path) -> ScalingError:
    """What the disk refused, where, with the space that is left; a folder of the path that is a file is named as such."""
    blocked = ""
    with contextlib.suppress(OSError):  # a disk that refuses may refuse this, too
        blocked = next(
            (str(above) for above in target.parents if above.exists() and not above.is_dir()), ""
        )
    if blocked:
        return ScalingError(
            f"{blocked} is a file, not a folder",
            where=str(target),
            remedy="name another path",
            exit_code=DISK,
        )
    room = ""
    with contextlib.suppress(OSError):
        found = os.statvfs(next(folder for folder in target.parents if folder.is_dir()))
        room = f" ({found.f_bavail * found.f_frsize:,} bytes free)"
    remedy = "free space or mend the permissions, then run again"
    return ScalingError(
        f"cannot write: {error.strerror or error}{room}",
        where=str(target),
        remedy=remedy,
        exit_code=DISK,
    )


def sync(path: Path) -> None:
    """Return when a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(target: Path, text: str, *, durable: bool = True) -> None:
    """Publish a text file as it is, unsealed, whole or not at all."""
    write_atomically(target, lambda path: path.write_text(text, encoding="utf-8"), durable=durable)


def write_lines(target: Path, text: str, comment: str = "") -> None:
    """Publish a text whose last line, after `comment`, is its seal."""
    data = with_checksum(f"{text.rstrip(chr(10))}\n{comment}{PLACEHOLDER}\n".encode())
    write_atomically(target, lambda path: path.write_bytes(data))


def write_json(
    target: Path, document: Mapping[str, Any], *, indent: int | None = 1, durable: bool = True
) -> None:
    """Publish a JSON document whose last key is its seal."""
    text = json.dumps(
        {**document, "seal": PLACEHOLDER}, indent=indent, allow_nan=False, ensure_ascii=False
    )
    data = with_checksum(f"{text}\n".encode())
    write_atomically(target, lambda path: path.write_bytes(data), durable=durable)


def read_json(path: Path) -> dict[str, Any]:
    """A sealed document without its seal; an unsealed one is taken as it is.

    Raises Broken for whatever is no such document, FileNotFoundError, and ScalingError (74) where it must not be read.
    """
    try:
        data = path.read_bytes()
        verify_checksum(data)
        document = json.loads(data)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except PermissionError as error:
        raise permission_error(error, path) from None
    except OSError as error:
        raise ChecksumError(f"no file that can be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ChecksumError(f"not JSON: {str(error)[:80]}") from None
    if not isinstance(document, dict):
        raise ChecksumError("not a JSON object")
    document.pop("seal", None)
    return document


def list_files(folder: Path, suffix: str) -> list[Path]:
    """The regular files of a folder with a suffix, by name; what is unfinished (a dot in front) or no file is left out.

    Raises ScalingError where the folder must not be read or is none (74); an absent folder is empty.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if entry.name.endswith(suffix) and entry.name[0] != "." and _is_file(entry)
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise permission_error(error, folder) from None


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle
        return False


def permission_error(error: OSError, path: Path) -> ScalingError:
    """What must not be read, and where."""
    return ScalingError(
        f"cannot read: {error.strerror}",
        where=str(path),
        remedy="mend the permissions, or move it away",
        exit_code=DISK,
    )
