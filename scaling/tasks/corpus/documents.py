"""Text files, rows of .jsonl and .parquet, and folders of them, as a stream of documents."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from scaling.errors import ScalingError, unknown_choice
from scaling.files import check_local, disk_error
from scaling.tasks.corpus.token_store import Source

_BLOCK_BYTES = 2**20
_SNIFFED_BYTES = 2**20
_FILES_NAMED = 8  # in a message
BOM = b"\xef\xbb\xbf"
_NAMED_ROWS = {".jsonl", ".ndjson", ".parquet"}  # their name alone says that they hold rows
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
    """A text as UTF-8 bytes: a whole file or that of a row; `where` names it in messages.

    Its `sha256` decides its split, so that equal texts stand in one split.
    """

    where: str
    text: bytes

    def sha256(self) -> bytes:
        """Of the text."""
        return hashlib.sha256(self.text).digest()


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
        every = matched = [source]
        if source.is_dir():
            every = matched = _below(source, out.resolve() if out else None)
            if patterns:
                names = {path: path.relative_to(source).as_posix() for path in every}
                matched = [p for p in every if any(fnmatch(names[p], each) for each in patterns)]
        unmatched += len(every) - len(matched)
        if every and not matched:
            what = f"none of {len(every)} files matches {' or '.join(patterns)}"
            remedy = "a pattern is one of paths below the folder: --glob '*.md', 'docs/*.txt'"
            raise ScalingError(what, where=source, remedy=remedy)
        has_row_files = source.is_dir() and any(_suffix(path) in _NAMED_ROWS for path in matched)
        for path in matched:
            name = path.name.lower()
            describes = has_row_files and name.partition(".")[0] in _DESCRIPTIONS
            if path != source and (name in _METADATA or describes):
                continue
            if problem := _problem(path):
                if path == source:
                    raise ScalingError(problem[0], where=path, remedy=problem[1])
                skipped[path] = problem[0]
                continue
            if path.resolve() not in seen:
                files[source].append(path)
            seen.add(path.resolve())
    if len(skipped) > len(seen):
        n_files = len(skipped) + len(seen)
        what = f"{len(skipped)} of {n_files} files are no text: {describe_skipped(skipped)}"
        remedy = "leave them out, or name those that are: --glob '*.txt'"
        raise ScalingError(what, where=sources[0], remedy=remedy)
    if not seen:
        what = "holds no text files: the corpus is empty"
        raise ScalingError(what, where=sources[0], remedy=_NAMES)
    return FileList(files, skipped, unmatched)


def describe_skipped(skipped: Mapping[Path, str]) -> str:
    """The files that are no text by reason; of many the first."""
    reasons: dict[str, list[str]] = {}
    for path, why in skipped.items():
        reasons.setdefault(why, []).append(path.name)
    return _listed([f"{why} ({_listed(names)})" for why, names in reasons.items()])


def _listed(items: list[str]) -> str:
    rest = len(items) - _FILES_NAMED
    return ", ".join(items[:_FILES_NAMED]) + (f", {rest} more" if rest > 0 else "")


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


def _problem(path: Path) -> tuple[str, str] | None:
    """Why a file cannot be read as documents, and what helps; raises DiskError."""
    suffix = _suffix(path)
    if suffix in _BINARY.split():
        what = "archives, arrays and pickles are not read"
        return what, "unpack it to .txt, .jsonl or .parquet"
    if not path.is_file():
        return "not a regular file" if path.exists() else "no such file", _NAMES
    if suffix in _NOT_TEXT.split():
        remedy = "convert it to .jsonl or .parquet, or leave it out"
        if suffix == ".arrow":
            remedy = f"name the folder of save_to_disk as hf:{path.parent}, or convert it to .jsonl"
        return f"{suffix} files are not read as text", remedy
    try:
        with open(path, "rb") as handle:
            data = handle.read(_SNIFFED_BYTES)
    except OSError as error:
        raise disk_error(error, path, "read") from error
    head = data.removeprefix(BOM).lstrip()
    if suffix == ".json" and not _is_json_lines(head):
        remedy = 'write it as lines like {"text": "..."}, or leave it out'
        return ".json files are read with one object per line", remedy
    start = re.sub(rb"^\[\s*{\s*", b"[{", head[:100].lower())
    for begin, (what, remedy) in _OTHER_FORMATS.items():
        if start.startswith(begin):
            return f"is {what}", remedy
    if has_rows(path):
        return None
    if _is_json_lines(head):
        return "looks like JSON lines, not like text", "name it .jsonl"
    is_cut = len(data) == _SNIFFED_BYTES
    return _text_problem(data[: whole_characters(data, len(data))] if is_cut else data)


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def has_rows(path: Path) -> bool:
    """Whether the documents of a file are rows, with the text in a column."""
    return _suffix(path) in _ROWS


def _is_json_lines(head: bytes) -> bool:
    """Whether the first line is a JSON object."""
    try:
        return isinstance(json.loads(head.partition(b"\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def documents(paths: Iterable[Path], column: str) -> Iterator[Document]:
    """Every document of the files in order; rows take the text of `column`, as a stream."""
    for path in paths:
        try:
            if has_rows(path):
                rows = (_parquet if _suffix(path) == ".parquet" else _jsonl)(path, column)
                yield from itertools.starmap(row, rows)
                continue
            text = path.read_bytes()
        except OSError as error:
            raise disk_error(error, path, "read") from error
        _check_text(text, str(path))
        yield Document(str(path), text.removeprefix(BOM))


def row(where: str, text: object) -> Document:
    """A row's text as a document. Raises ScalingError that names `where` for what is no text."""
    if not isinstance(text, str):
        what = "missing" if text is None else f"of type {type(text).__name__}"
        remedy = "leave such rows out of the file"
        raise ScalingError(f"the text is {what}", where=where, remedy=remedy)
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        what, remedy = f"half a character (a lone surrogate) at {error.start}", "write UTF-8"
        raise ScalingError(what, where=where, remedy=remedy) from None
    _check_text(data, where)
    return Document(where, data)


def _jsonl(path: Path, column: str) -> Iterator[tuple[str, object]]:
    form = f'one object a line, like {{"{column}": "..."}}'
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            where, text = f"{path} line {number}", line
            if number == 1:
                text = line.removeprefix(BOM)
            if not text.strip():
                continue
            _check_text(text, where)
            try:
                fields = json.loads(text)
            except (ValueError, RecursionError) as error:
                what = f"not JSON: {str(error)[:80]}"
                raise ScalingError(what, where=where, remedy=form) from None
            if not isinstance(fields, dict):
                raise ScalingError("not a JSON object", where=where, remedy=form)
            if column not in fields:
                raise unknown_choice("field", column, fields, where=where)
            yield where, fields[column]


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


def blocks(text: bytes, start: int, stop: int) -> Iterator[bytes]:
    """text[start:stop], UTF-8, in parts of about a MiB that end with a line where they can."""
    while start < stop:
        cut, end = stop, start + _BLOCK_BYTES
        if end < stop:
            cut = text.rfind(b"\n", start, end) + 1 or whole_characters(text, end)
        yield text[start:cut]
        start = cut


def whole_characters(text: bytes, end: int) -> int:
    """A cut at or just before `end` that splits no UTF-8 character."""
    start = end - 1
    while start > end - 4 and text[start] & 0xC0 == 0x80:
        start -= 1
    return start if text[start] >= 0xC0 else end


def _text_problem(text: bytes) -> tuple[str, str] | None:
    """Where bytes are not UTF-8 text or hold a zero, and what helps."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        remedy = "leave it out, or convert it (iconv -t UTF-8)"
        return f"not UTF-8 text at byte {error.start}", remedy
    if (at := text.find(b"\0")) >= 0:
        remedy = "leave it out, or convert it to UTF-8 text"
        return f"not text: a zero byte at byte {at}", remedy
    return None


def _check_text(text: bytes, where: str) -> None:
    if problem := _text_problem(text):
        raise ScalingError(problem[0], where=where, remedy=problem[1])
