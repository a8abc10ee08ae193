"""A person's own files as a stream of documents.

Text files, rows of .jsonl and .parquet, folders of them.
"""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from scaling.errors import DISK, ScalingError, unknown_choice
from scaling.tasks.corpus.token_store import Source

_BLOCK_BYTES = 2**20
_MAX_ROW_BYTES = 2**28
_UNREADABLE = {
    "pkl",
    "pickle",
    "npz",
    "npy",
    "pt",
    "pth",
    "bin",
    "zip",
    "gz",
    "bz2",
    "xz",
    "zst",
    "tar",
    "tgz",
    "7z",
    "safetensors",
}
_NAMES = "name text, .jsonl or .parquet files, or folders of them"


@dataclass(frozen=True)
class File:
    """A file to read, as the user wrote it.

    `name` is its path below the source, with forward slashes.
    """

    path: Path
    name: str
    source: Path


@dataclass(frozen=True)
class Document:
    """A text that can be opened as UTF-8 bytes.

    `where` names it in messages, `identity` decides its split.
    """

    where: str
    identity: bytes
    n_bytes: int
    open: Callable[[], BinaryIO]


def list_files(sources: Sequence[Path], out: Path | None = None) -> list[File]:
    """The files of the sources, each once, sorted within a source.

    `out` and names that start with a dot are left out.

    Raises ScalingError for what is missing, no regular file, or an archive, array or pickle.
    """
    if not sources:
        raise ScalingError("no files to prepare", remedy=_NAMES)
    unique: dict[Path, File] = {}
    for source in sources:
        for file in _below(source, out.resolve() if out else None):
            _check_readable(file.path)
            unique.setdefault(file.path.resolve(), file)
    if not unique:
        raise ScalingError("the corpus is empty: no files", where=str(sources[0]), remedy=_NAMES)
    return list(unique.values())


def sizes(sources: Sequence[Path], files: Sequence[File]) -> list[Source]:
    """How many files and bytes each source gives."""
    of = {
        source: [file.path.stat().st_size for file in files if file.source == source]
        for source in sources
    }
    return [
        Source(path=_legible(source), n_files=len(file_bytes), n_bytes=sum(file_bytes))
        for source, file_bytes in of.items()
    ]


def _legible(path: Path) -> str:
    """A path for JSON: a name on disk may hold bytes that are no UTF-8."""
    return path.as_posix().encode(errors="surrogateescape").decode(errors="replace")


def _below(source: Path, out: Path | None) -> list[File]:
    if not source.is_dir():
        return [File(source, source.name, source)]
    paths = []
    for folder, folders, names in os.walk(source, onerror=_raise):
        kept = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        folders[:] = [name for name in kept if Path(folder, name).resolve() != out]
        paths += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(
        (File(path, path.relative_to(source).as_posix(), source) for path in paths),
        key=lambda file: file.name,
    )


def _check_readable(path: Path) -> None:
    if path.suffix[1:].lower() in _UNREADABLE:
        raise ScalingError(
            "archives, arrays and pickles are not read",
            where=str(path),
            remedy="unpack it to .txt, .jsonl or .parquet",
        )
    if not path.is_file():
        raise ScalingError(
            "not a regular file" if path.exists() else "no such file",
            where=str(path),
            remedy=_NAMES,
        )


def _raise(error: OSError) -> None:
    raise _cannot_read(Path(error.filename), error) from error


def _cannot_read(path: Path, error: OSError) -> ScalingError:
    return ScalingError(
        f"cannot read: {error.strerror}",
        where=str(path),
        remedy="fix the permissions",
        exit_code=DISK,
    )


def documents(files: Sequence[File], column: str) -> Iterator[Document]:
    """Every document of the files in order.

    Rows take the text of `column` and are read as a stream.
    """
    for file in files:
        suffix = file.path.suffix[1:].lower()
        try:
            if suffix in ("jsonl", "ndjson", "parquet"):
                rows = (
                    _parquet(file.path, column)
                    if suffix == "parquet"
                    else _jsonl(file.path, column)
                )
                yield from (row(where, text) for where, text in rows)
            else:
                yield _text_file(file)
        except OSError as error:
            raise _cannot_read(file.path, error) from error


def _text_file(file: File) -> Document:
    def opened() -> BinaryIO:
        try:
            return open(file.path, "rb")
        except OSError as error:
            raise _cannot_read(file.path, error) from error

    return Document(
        str(file.path), file.name.encode(errors="surrogateescape"), file.path.stat().st_size, opened
    )


def row(where: str, text: object) -> Document:
    """A row's text as a document. Raises ScalingError that names `where` for what is no text."""
    if not isinstance(text, str):
        what = (
            "the text is missing" if text is None else f"the text is of type {type(text).__name__}"
        )
        raise ScalingError(what, where=where, remedy="leave such rows out of the file")
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise ScalingError(
            f"half a character (a lone surrogate) at {error.start}",
            where=where,
            remedy="write the text as UTF-8",
        ) from None
    return Document(where, data, len(data), lambda: io.BytesIO(data))


def _jsonl(path: Path, column: str) -> Iterator[tuple[str, object]]:
    offset = 0
    with open(path, "rb") as handle:
        for number in itertools.count(1):
            line, where = handle.readline(_MAX_ROW_BYTES), f"{path} line {number}"
            if not line:
                return
            if line.strip():
                yield where, _field(line, column, where, offset)
            offset += len(line)


def _field(line: bytes, column: str, where: str, offset: int) -> object:
    """One field of a JSON object; `offset` is where the line starts in its file."""
    form = f'one object a line, like {{"{column}": "..."}}'
    if len(line) == _MAX_ROW_BYTES:
        raise ScalingError(f"a line of {_MAX_ROW_BYTES} bytes or more", where=where, remedy=form)
    try:
        fields = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _not_utf8(where, offset + error.start) from None
    except (ValueError, RecursionError) as error:
        raise ScalingError(f"not JSON: {str(error)[:80]}", where=where, remedy=form) from None
    if not isinstance(fields, dict):
        raise ScalingError("not a JSON object", where=where, remedy=form)
    if column not in fields:
        raise unknown_choice("field", column, fields, where=where)
    return fields[column]


def _parquet(path: Path, column: str) -> Iterator[tuple[str, object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pa.OSFile(
        str(path)
    ) as handle:  # no thread of Arrow's may hold Python's memory when the interpreter ends
        try:
            table = pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=False)
            if column not in table.schema_arrow.names:
                raise unknown_choice("column", column, table.schema_arrow.names, where=str(path))
            rows = (
                row
                for batch in table.iter_batches(batch_size=256, columns=[column], use_threads=False)
                for row in batch.column(0).to_pylist()
            )
            for number, text in enumerate(rows, 1):
                yield f"{path} row {number}", text
        except (
            pa.ArrowException,
            ValueError,
            TypeError,
            KeyError,
            OSError,
        ) as error:  # a damaged file raises all of these
            what = f"not a readable Parquet file: {str(error)[:120]}"
            raise ScalingError(
                what, where=str(path), remedy="write it again, or restore it from a copy"
            ) from error


def blocks(handle: BinaryIO, start: int, stop: int, where: str) -> Iterator[bytes]:
    """The bytes from start to stop, a MiB at a time.

    Each block is whole UTF-8 text and ends with a line where it can.

    Raises ScalingError that names the byte where the text is not UTF-8 or holds a zero.
    """
    handle.seek(start)
    rest, offset, last = b"", start, False
    while not last:
        left = stop - offset - len(rest)
        data = rest + handle.read(min(_BLOCK_BYTES, left))
        last = left <= _BLOCK_BYTES or data == rest
        cut = len(data) if last else data.rfind(b"\n") + 1 or whole_characters(data)
        _check_text(data[:cut], offset, where)
        yield data[:cut]
        rest, offset = data[cut:], offset + cut


def whole_characters(data: bytes) -> int:
    """The largest cut near the end of `data` that splits no UTF-8 character."""
    for back in range(1, min(4, len(data))):
        if data[-back] < 0x80:
            return len(data) - back + 1
        if data[-back] >= 0xC0:
            return len(data) - back
    return len(data)


def _check_text(data: bytes, offset: int, where: str) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(where, offset + error.start) from None
    if (at := data.find(b"\0")) >= 0:
        raise ScalingError(
            f"not text: a zero byte at byte {offset + at}",
            where=where,
            remedy="leave it out, or convert it to UTF-8 text",
        )


def _not_utf8(where: str, offset: int) -> ScalingError:
    return ScalingError(
        f"not UTF-8 text at byte {offset}",
        where=where,
        remedy="leave it out, or convert it (iconv -t UTF-8)",
    )
