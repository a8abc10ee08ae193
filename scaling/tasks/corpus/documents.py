"""A person's own files as a stream of documents.

Text files, rows of .jsonl and .parquet, folders of them.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from scaling.errors import ScalingError, unknown_choice
from scaling.tasks.corpus.token_store import Source, cannot_read

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
_ROWS = {"jsonl", "ndjson", "json", "parquet"}
_NOT_TEXT = {"csv", "tsv", "html", "htm", "xml", "xlsx", "arrow", "pdf"}
# Files of a data set's repository that describe it; skipped where a folder also has rows.
_METADATA = {"readme.md", "license", "dataset_infos.json", "dataset_info.json", "dataset_dict.json"}
_METADATA |= {"state.json", "croissant.json"}
_SNIFFED_BYTES = 2**16
BOM = b"\xef\xbb\xbf"
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

    `where` names it in messages; the `sha256` of its text decides its split, so that equal texts
    stand in one split. The text begins after `start` bytes (a byte order mark).
    """

    where: str
    sha256: Callable[[], bytes]
    n_bytes: int
    open: Callable[[], BinaryIO]
    start: int = 0


def list_files(sources: Sequence[Path], out: Path | None = None) -> list[File]:
    """The files of the sources, each once, sorted within a source.

    `out`, names that start with a dot, and (where a source has files of rows) files that describe a
    data set are left out. Links to folders are followed once.

    Raises ScalingError for what is missing, no regular file, an archive, a table or a pickle, or
    JSON lines by another name.
    """
    if not sources:
        raise ScalingError("no files to prepare", remedy=_NAMES)
    unique: dict[Path, File] = {}
    for source in sources:
        below = _below(source, out.resolve() if out else None)
        if source.is_dir() and any(_suffix(f.path) in _ROWS - {"json"} for f in below):
            below = [file for file in below if file.path.name.lower() not in _METADATA]
        for file in below:
            _check_readable(file.path)
            unique.setdefault(file.path.resolve(), file)
    if not unique:
        raise ScalingError("the corpus is empty: no files", where=str(sources[0]), remedy=_NAMES)
    return list(unique.values())


def sizes(sources: Sequence[Path], files: Sequence[File]) -> list[Source]:
    """How many files, of which kinds, and how many bytes each source gives."""
    kinds: dict[Path, Counter[str]] = {source: Counter() for source in sources}
    for file in files:
        kinds[file.source][_suffix(file.path) if has_rows(file) else "text"] += 1
    of = {
        source: [file.path.stat().st_size for file in files if file.source == source]
        for source in sources
    }
    return [
        Source(
            path=_legible(source),
            n_files=len(file_bytes),
            n_bytes=sum(file_bytes),
            kinds=dict(sorted(kinds[source].items())),
        )
        for source, file_bytes in of.items()
    ]


def _legible(path: Path) -> str:
    """A path for JSON: a name on disk may hold bytes that are no UTF-8."""
    return path.as_posix().encode(errors="surrogateescape").decode(errors="replace")


def _below(source: Path, out: Path | None) -> list[File]:
    if not source.is_dir():
        return [File(source, source.name, source)]
    paths: list[Path] = []
    visited: set[Path] = set()
    for folder, folders, names in os.walk(source, onerror=_raise, followlinks=True):
        real = Path(folder).resolve()
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
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
    suffix = _suffix(path)
    if suffix in _NOT_TEXT:
        raise ScalingError(
            f".{suffix} files are not read as text",
            where=str(path),
            remedy="convert it to .jsonl or .parquet, or leave it out",
        )
    if suffix == "parquet" or suffix in ("jsonl", "ndjson"):
        return
    is_lines = _is_json_lines(path)
    if suffix == "json" and not is_lines:
        raise ScalingError(
            ".json files are read with one object per line",
            where=str(path),
            remedy='write it as lines like {"text": "..."}, or leave it out',
        )
    if suffix != "json" and is_lines:
        raise ScalingError(
            "looks like JSON lines, not like text",
            where=str(path),
            remedy="name it .jsonl",
        )


def _suffix(path: Path) -> str:
    return path.suffix[1:].lower()


def has_rows(file: File) -> bool:
    """Whether the documents of a file are rows, with the text in a column."""
    return _suffix(file.path) in _ROWS


def _is_json_lines(path: Path) -> bool:
    """Whether the first two lines (or the only one) are JSON objects."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(_SNIFFED_BYTES).removeprefix(BOM).lstrip()
    except OSError as error:
        raise cannot_read(path, error) from error
    lines = [line for line in head.split(b"\n") if line.strip()]
    if len(head) >= _SNIFFED_BYTES - 3 and len(lines) > 1:
        lines = lines[:-1]  # cut off
    if not head.startswith(b"{"):
        return False
    try:
        return all(isinstance(json.loads(line), dict) for line in lines[:2])
    except (ValueError, RecursionError):
        return len(lines) == 1 and len(head) >= _SNIFFED_BYTES - 3  # one object longer than that


def _raise(error: OSError) -> None:
    raise cannot_read(Path(error.filename), error) from error


def documents(files: Sequence[File], column: str) -> Iterator[Document]:
    """Every document of the files in order.

    Rows take the text of `column` and are read as a stream.
    """
    for file in files:
        try:
            if has_rows(file):
                is_parquet = _suffix(file.path) == "parquet"
                rows = (_parquet if is_parquet else _jsonl)(file.path, column)
                yield from (row(where, text) for where, text in rows)
            else:
                yield _text_file(file)
        except OSError as error:
            raise cannot_read(file.path, error) from error


def _text_file(file: File) -> Document:
    def opened() -> BinaryIO:
        try:
            return open(file.path, "rb")
        except OSError as error:
            raise cannot_read(file.path, error) from error

    with opened() as handle:
        start = len(BOM) if handle.read(len(BOM)) == BOM else 0

    def sha256() -> bytes:
        with opened() as handle:
            handle.seek(start)
            return hashlib.file_digest(cast(io.BufferedReader, handle), "sha256").digest()

    return Document(str(file.path), sha256, file.path.stat().st_size, opened, start)


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
    return Document(
        where, lambda: hashlib.sha256(data).digest(), len(data), lambda: io.BytesIO(data)
    )


def _jsonl(path: Path, column: str) -> Iterator[tuple[str, object]]:
    offset = 0
    with open(path, "rb") as handle:
        for number in itertools.count(1):
            line, where = handle.readline(_MAX_ROW_BYTES), f"{path} line {number}"
            if not line:
                return
            text = line.removeprefix(BOM) if number == 1 else line
            if text.strip():
                yield where, _field(text, column, where, offset + len(line) - len(text))
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
