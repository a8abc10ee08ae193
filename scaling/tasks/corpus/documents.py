"""Text files, rows of .jsonl and .parquet, and folders of them, as a stream of documents."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, cast

from scaling.errors import DISK, ScalingError, unknown_choice
from scaling.files import check_local, disk_error
from scaling.tasks.corpus.token_store import Source

_BLOCK_BYTES = 2**20
_MAX_ROW_BYTES = 2**28
_SNIFFED_BYTES = 2**20
_FILES_NAMED = 8  # in a message
BOM = b"\xef\xbb\xbf"
_LINES = {".jsonl", ".ndjson"}
_NAMED_ROWS = {*_LINES, ".parquet"}  # their name alone says that they hold rows
_ROWS = {*_NAMED_ROWS, ".json"}
_BINARY = ".pkl .pickle .npz .npy .pt .pth .bin .zip .gz .bz2 .xz .zst .tar .tgz .7z .safetensors"
_NOT_TEXT = ".csv .tsv .html .htm .xml .xlsx .arrow .pdf"
# Files that describe a data set are skipped in folders: these always,
_METADATA = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
_METADATA |= {"croissant.json"}
# and these, by the name without its suffix, where the folder also has rows.
_DESCRIPTIONS = {"readme", "license", "licence", "copying", "notice", "citation", "changelog"}
# How files begin that are no text whatever their name says.
_OTHER_FORMATS = {
    b"version https://git-lfs.github.com/": ("a pointer of Git LFS, not the file", "git lfs pull"),
    b"%pdf-": ("a PDF", "convert it to text, or leave it out"),
    b"<!doctype html": ("an HTML page", "convert it to text, or leave it out"),
    b"<html": ("an HTML page", "convert it to text, or leave it out"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it"),
    b"pk\x03\x04": ("a zip archive", "unpack it"),
    b'[{"': ("a list of JSON objects", 'write one object per line, like {"text": "..."}'),
}
_NAMES = "name text, .jsonl or .parquet files, or folders of them"


@dataclass(frozen=True)
class Document:
    """A text file, or the text of a row as UTF-8 bytes; `where` names it in messages.

    The text begins after `start` bytes (a byte order mark). The `sha256` of the text decides its
    split, so that equal texts stand in one split.
    """

    where: str
    content: Path | bytes
    n_bytes: int
    start: int = 0

    def open(self) -> BinaryIO:
        """The bytes, from the beginning of the text on."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        try:
            handle = open(self.content, "rb")  # noqa: SIM115 - the caller closes it
            handle.seek(self.start)
            return handle
        except OSError as error:
            raise disk_error(error, self.content, "read") from error

    def sha256(self) -> bytes:
        """Of the text."""
        with self.open() as handle:
            return hashlib.file_digest(cast(io.BufferedReader, handle), "sha256").digest()


@dataclass(frozen=True)
class FileList:
    """The files of each source, why others are no text, and how many match no pattern."""

    files: dict[Path, list[Path]]
    skipped: dict[Path, str]
    unmatched: int = 0


def list_files(
    sources: Sequence[Path], out: Path | None = None, patterns: Sequence[str] = ()
) -> FileList:
    """The files of each source, each once, sorted within a source; of a folder those whose path
    below it matches one of the `patterns` ("*.md"), where there are any.

    `out`, names that start with a dot and files that describe a data set are left out; in a folder
    of text, what is no text is skipped. Links to folders are followed once.

    Raises ScalingError for a source that is missing, no regular file, an archive, a table or a
    pickle, no UTF-8, or JSON lines by another name, and where most files are no text.
    """
    if not sources:
        raise ScalingError("no files to prepare", remedy=_NAMES)
    seen: set[Path] = set()
    unmatched = 0
    skipped: dict[Path, str] = {}
    files: dict[Path, list[Path]] = {source: [] for source in sources}
    for source in files:
        check_local(source)
        every = _below(source, out.resolve() if out else None) if source.is_dir() else [source]
        globs = patterns if source.is_dir() else ()
        names = [path.relative_to(source).as_posix() for path in every]
        matched = [not globs or any(fnmatch(name, glob) for glob in globs) for name in names]
        below = list(itertools.compress(every, matched))
        unmatched += len(every) - len(below)
        if every and not below:
            what = f"none of {len(every)} files matches {' or '.join(globs)}"
            remedy = "a pattern is one of paths below the folder: --glob '*.md', 'docs/*.txt'"
            raise ScalingError(what, where=source, remedy=remedy)
        is_data_set = source.is_dir() and any(_suffix(path) in _NAMED_ROWS for path in below)
        for path in below:
            name = path.name.lower()
            if path != source and (
                name in _METADATA or (is_data_set and name.partition(".")[0] in _DESCRIPTIONS)
            ):
                continue
            try:
                _check_readable(path)
            except ScalingError as error:
                if path == source or error.exit_code == DISK:
                    raise
                skipped[path] = error.what
                continue
            if path.resolve() not in seen:
                files[source].append(path)
            seen.add(path.resolve())
    if len(skipped) > len(seen):
        raise ScalingError(
            f"{len(skipped)} of {len(skipped) + len(seen)} files are no text: "
            f"{describe_skipped(skipped)}",
            where=sources[0],
            remedy="leave them out, or name those that are: --glob '*.txt'",
        )
    if not seen:
        what = "holds no text files: the corpus is empty"
        raise ScalingError(what, where=sources[0], remedy=_NAMES)
    return FileList(files, skipped, unmatched)


def describe_skipped(skipped: Mapping[Path, str]) -> str:
    """The files that are no text by reason; of many the first."""

    def listed(items: list[str]) -> str:
        rest = len(items) - _FILES_NAMED
        return ", ".join(items[:_FILES_NAMED]) + (f", {rest} more" if rest > 0 else "")

    reasons: dict[str, list[str]] = {}
    for path, why in skipped.items():
        reasons.setdefault(why, []).append(path.name)
    return listed([f"{why} ({listed(names)})" for why, names in reasons.items()])


def describe_sources(files: Mapping[Path, Sequence[Path]]) -> list[Source]:
    """How many files, of which kinds, and how many bytes each source gives."""
    return [
        Source(
            # a name on disk may hold bytes that are no UTF-8
            path=source.as_posix().encode(errors="surrogateescape").decode(errors="replace"),
            n_files=len(paths),
            n_bytes=sum(path.stat().st_size for path in paths),
            kinds=dict(
                sorted(Counter(_suffix(p)[1:] if has_rows(p) else "text" for p in paths).items())
            ),
        )
        for source, paths in files.items()
    ]


def _below(source: Path, out: Path | None) -> list[Path]:
    """The files in a folder, by their path below it."""

    def fail(error: OSError) -> None:
        raise disk_error(error, Path(error.filename), "read") from error

    paths: list[Path] = []
    visited: set[Path] = set()
    for folder, folders, names in os.walk(source, onerror=fail, followlinks=True):
        real = Path(folder).resolve()
        if real in visited or real == out:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        paths += [Path(folder, name) for name in names if name[0] != "."]
    return sorted(paths, key=lambda path: path.relative_to(source).as_posix())


def _check_readable(path: Path) -> None:
    suffix = _suffix(path)
    if suffix in _BINARY.split():
        what = "archives, arrays and pickles are not read"
        raise ScalingError(what, where=path, remedy="unpack it to .txt, .jsonl or .parquet")
    if not path.is_file():
        what = "not a regular file" if path.exists() else "no such file"
        raise ScalingError(what, where=path, remedy=_NAMES)
    if suffix in _NOT_TEXT.split():
        remedy = "convert it to .jsonl or .parquet, or leave it out"
        if suffix == ".arrow":
            remedy = f"name the folder of save_to_disk as hf:{path.parent}, or convert it to .jsonl"
        raise ScalingError(f"{suffix} files are not read as text", where=path, remedy=remedy)
    try:
        with open(path, "rb") as handle:
            data = handle.read(_SNIFFED_BYTES)
    except OSError as error:
        raise disk_error(error, path, "read") from error
    head = data.removeprefix(BOM).lstrip()
    start = re.sub(rb"^\[\s*{\s*", b"[{", head[:100].lower())
    other = next((begin for begin in _OTHER_FORMATS if start.startswith(begin)), None)
    if suffix == ".json" and not _is_json_lines(head):
        what = ".json files are read with one object per line"
        remedy = 'write it as lines like {"text": "..."}, or leave it out'
        raise ScalingError(what, where=path, remedy=remedy)
    if other is not None:
        what, remedy = _OTHER_FORMATS[other]
        raise ScalingError(f"is {what}", where=path, remedy=remedy)
    if not has_rows(path):
        if _is_json_lines(head):
            what = "looks like JSON lines, not like text"
            raise ScalingError(what, where=path, remedy="name it .jsonl")
        is_cut = len(data) == _SNIFFED_BYTES
        _check_text(data[: whole_characters(data)] if is_cut else data, str(path), 0)


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def has_rows(path: Path) -> bool:
    """Whether the documents of a file are rows, with the text in a column."""
    return _suffix(path) in _ROWS


def _is_json_lines(head: bytes) -> bool:
    """Whether the first two lines (or the only one) are JSON objects."""
    is_cut = len(head) >= _SNIFFED_BYTES - len(BOM)
    lines = [line for line in head.split(b"\n") if line.strip()]
    if is_cut and len(lines) > 1:
        lines.pop()
    if not head.startswith(b"{"):
        return False
    try:
        return all(isinstance(json.loads(line), dict) for line in lines[:2])
    except (ValueError, RecursionError):
        return len(lines) == 1 and is_cut  # one object longer than that


def documents(paths: Iterable[Path], column: str) -> Iterator[Document]:
    """Every document of the files in order; rows take the text of `column`, as a stream."""
    for path in paths:
        try:
            if has_rows(path):
                rows = (_parquet if _suffix(path) == ".parquet" else _jsonl)(path, column)
                yield from itertools.starmap(row, rows)
                continue
            with open(path, "rb") as handle:
                start = len(BOM) if handle.read(len(BOM)) == BOM else 0
            yield Document(str(path), path, path.stat().st_size, start)
        except OSError as error:
            raise disk_error(error, path, "read") from error


def row(where: str, text: object) -> Document:
    """A row's text as a document. Raises ScalingError that names `where` for what is no text."""
    if not isinstance(text, str):
        what = "missing" if text is None else f"of type {type(text).__name__}"
        remedy = "leave such rows out of the file"
        raise ScalingError(f"the text is {what}", where=where, remedy=remedy)
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise ScalingError(
            f"half a character (a lone surrogate) at {error.start}",
            where=where,
            remedy="write the text as UTF-8",
        ) from None
    return Document(where, data, len(data))


def _jsonl(path: Path, column: str) -> Iterator[tuple[str, object]]:
    form = f'one object a line, like {{"{column}": "..."}}'
    offset = 0  # of the line in its file
    with open(path, "rb") as handle:
        for number, line in enumerate(iter(lambda: handle.readline(_MAX_ROW_BYTES), b""), 1):
            where, text = f"{path} line {number}", line
            if number == 1:
                text = line.removeprefix(BOM)
            if len(line) == _MAX_ROW_BYTES:
                what = f"a line of {_MAX_ROW_BYTES} bytes or more"
                raise ScalingError(what, where=where, remedy=form)
            if text.strip():
                try:
                    fields = json.loads(text.decode("utf-8"))
                except UnicodeDecodeError as error:
                    raise _not_utf8(where, offset + len(line) - len(text) + error.start) from None
                except (ValueError, RecursionError) as error:
                    what = f"not JSON: {str(error)[:80]}"
                    raise ScalingError(what, where=where, remedy=form) from None
                if not isinstance(fields, dict):
                    raise ScalingError("not a JSON object", where=where, remedy=form)
                if column not in fields:
                    raise unknown_choice("field", column, fields, where=where)
                yield where, fields[column]
            offset += len(line)


def _parquet(path: Path, column: str) -> Iterator[tuple[str, object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # no thread of Arrow's may hold Python's memory when the interpreter ends
    with pa.OSFile(str(path)) as handle:
        try:
            table = pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=False)
            if column not in table.schema_arrow.names:
                raise unknown_choice("column", column, table.schema_arrow.names, where=path)
            batches = table.iter_batches(batch_size=256, columns=[column], use_threads=False)
            rows = itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in batches)
            for number, text in enumerate(rows, 1):
                yield f"{path} row {number}", text
        except (pa.ArrowException, ValueError, TypeError, KeyError, OSError) as error:
            # a damaged file raises all of these
            what = f"not a readable Parquet file: {str(error)[:120]}"
            remedy = "write it again, or restore it from a copy"
            raise ScalingError(what, where=path, remedy=remedy) from error


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
        block, rest = data[:cut], data[cut:]
        _check_text(block, where, offset)
        yield block
        offset += cut


def _check_text(block: bytes, where: str, offset: int) -> None:
    """Raise ScalingError that names the byte where the block is not UTF-8 or holds a zero."""
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(where, offset + error.start) from None
    if (at := block.find(b"\0")) >= 0:
        what = f"not text: a zero byte at byte {offset + at}"
        remedy = "leave it out, or convert it to UTF-8 text"
        raise ScalingError(what, where=where, remedy=remedy)


def whole_characters(data: bytes) -> int:
    """The largest cut near the end of `data` that splits no UTF-8 character."""
    for back in range(1, min(4, len(data))):
        if data[-back] < 0x80:
            return len(data) - back + 1
        if data[-back] >= 0xC0:
            return len(data) - back
    return len(data)


def _not_utf8(where: str, offset: int) -> ScalingError:
    remedy = "leave it out, or convert it (iconv -t UTF-8)"
    return ScalingError(f"not UTF-8 text at byte {offset}", where=where, remedy=remedy)
