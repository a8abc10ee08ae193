"""A stranger's file becomes a table, or is refused with its name: the first step of the right half of the line.

Each file is read once, as bytes, so the digest is that of what was parsed. Nothing is unpickled, nothing is guessed:
cells stay as they were written until a column is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from csv import reader as csv_lines
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scaling.errors import DISK, ScalingError

HELD, FOLDER = (
    Path("DataFrame"),
    "scaling.folder",
)  # the place of a table in memory, and the attribute that holds its folder
MAX_ROWS = 10_000_000
MAX_BYTES = 2**31
FORMS = "a results folder, a .csv, .json, .jsonl or .parquet file, or a folder of W&B or TensorBoard runs"


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of bounded size. Raises ScalingError that names the file."""
    if not path.exists():
        raise ScalingError("no such file or folder", where=str(path), remedy=f"name {FORMS}")
    if not path.is_file():
        raise ScalingError("not a regular file", where=str(path), remedy=f"name {FORMS}")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ScalingError(
                f"{size:,} bytes is too large",
                where=str(path),
                remedy="at most 2 GiB: keep only the columns a fit needs",
            )
        return path.read_bytes()
    except OSError as error:
        raise ScalingError(
            f"cannot read: {error.strerror}",
            where=str(path),
            remedy="mend the permissions",
            exit_code=DISK,
        ) from None


def read_table(path: Path, data: bytes) -> pd.DataFrame:
    """One table from the bytes of a file, its form taken from the name. Raises ScalingError that names the file and the fault."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        why = (
            "may run code when it is opened"
            if path.suffix.lower() in (".pkl", ".pickle", ".npy", ".npz", ".pt")
            else "is of unknown form"
        )
        raise ScalingError(
            f"a {path.suffix or 'nameless'} file {why}", where=str(path), remedy=f"give {FORMS}"
        )
    if not data.strip():
        raise ScalingError(
            "the file is empty",
            where=str(path),
            remedy="it needs a header and one row for each run",
        )
    table = reader(path, data)
    _check_header(path, [str(name) for name in table.columns])
    if table.empty:
        raise ScalingError(
            "holds a header and no rows", where=str(path), remedy="it needs one row for each run"
        )
    return table


def normalize_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table in memory as a file would give it: names as text, a named index as columns, rows counted from 0.

    Raises ScalingError for a name that stands twice and for a table without rows.
    """
    labelled = [str(name) for name in frame.index.names if name is not None]
    _check_header(HELD, [*labelled, *map(str, frame.columns)])
    table = frame.reset_index(drop=not labelled)
    table.columns = pd.Index([str(name) for name in table.columns])
    if table.empty:
        raise ScalingError("holds no rows", where=str(HELD), remedy="it needs one row for each run")
    return table


def origin(frame: pd.DataFrame) -> Path | None:
    """The results folder that a table was loaded from, where it still says so."""
    folder = frame.attrs.get(FOLDER)
    return Path(folder) if isinstance(folder, str) else None


def named_one(source: Path | pd.DataFrame) -> str:
    """What a source is called in documents and messages."""
    if isinstance(source, pd.DataFrame):
        return f"{HELD} of {folder}" if (folder := origin(source)) else str(HELD)
    return str(source)


def source_label(sources: Iterable[Path | pd.DataFrame]) -> str:
    """Several sources, with commas between them."""
    return ", ".join(map(named_one, sources))


def _check_header(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ScalingError(
            f"column {twice[0]!r} stands twice in the header",
            where=str(path),
            remedy="give every column its own name",
        )


def _csv(path: Path, data: bytes) -> pd.DataFrame:
    """Text cells, no row longer or shorter than the header (pandas would shift such a row silently)."""
    from pyarrow import csv  # 0.1 s, needed for this form only

    header = data.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    counts = {mark: header.count(mark.encode()) for mark in (",", ";", "\t")}
    mark = max(counts, key=lambda name: (counts[name], name == ","))
    names = next(csv_lines([header.decode("utf-8", "replace")], delimiter=mark))
    _check_header(path, [name.strip() for name in names])
    if len(data.strip().splitlines()) == 1:
        return pd.DataFrame(columns=names)
    as_text = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
    )
    try:
        parsed = csv.read_csv(
            _native(data.lstrip()),
            parse_options=csv.ParseOptions(delimiter=mark),
            convert_options=as_text,
        )
    except pa.ArrowInvalid as error:
        what = f"not a readable CSV table: {str(error).splitlines()[0][:160]}"
        raise ScalingError(
            what,
            where=str(path),
            remedy="every row needs as many cells as the header; write decimal points",
        ) from None
    _check_rows(path, parsed.num_rows)
    table = parsed.to_pandas(use_threads=False)
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    return table


def _native(data: bytes) -> pa.BufferReader:
    """A copy in Arrow's own memory: its threads may outlive the interpreter, and Python's memory must not be theirs to free."""
    buffer = pa.allocate_buffer(len(data))
    memoryview(buffer).cast("B")[:] = data
    return pa.BufferReader(buffer)


def _check_rows(path: Path, count: int) -> None:
    if count > MAX_ROWS:
        raise ScalingError(
            f"{count:,} rows; the limit is {MAX_ROWS:,}",
            where=str(path),
            remedy="keep one row for each run",
        )


def _json(path: Path, data: bytes) -> pd.DataFrame:
    """A list of objects, or one object of equally long lists."""
    found = _parse_json(path, data, "")
    if (
        isinstance(found, dict)
        and found
        and all(isinstance(column, list) for column in found.values())
    ):
        lengths = {len(column) for column in found.values()}
        if len(lengths) > 1:
            raise ScalingError(
                f"its columns have different lengths: {sorted(lengths)}",
                where=str(path),
                remedy="one value for each run",
            )
        return pd.DataFrame(found)
    return _records(path, found)


def _jsonl(path: Path, data: bytes) -> pd.DataFrame:
    lines = enumerate(data.splitlines(), start=1)
    return _records(
        path,
        [_parse_json(path, line, f"line {number}: ") for number, line in lines if line.strip()],
    )


def _parse_json(path: Path, data: bytes, place: str) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ScalingError(
            f"{place}not valid JSON: {str(error)[:160]}",
            where=str(path),
            remedy="a list of objects, one a run",
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice in one object: {[key for key, _ in pairs]}")
    return found


def _records(path: Path, found: Any) -> pd.DataFrame:
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise ScalingError(
            "not a list of objects",
            where=str(path),
            remedy='write [{"N": 1e6, "D": 2e7, "loss": 3.2}, ...]',
        )
    return pd.DataFrame(found)


def _parquet(path: Path, data: bytes) -> pd.DataFrame:
    try:
        file = pq.ParquetFile(_native(data), page_checksum_verification=True, pre_buffer=False)
        _check_rows(path, file.metadata.num_rows)
        unpacked = sum(
            file.metadata.row_group(index).total_byte_size
            for index in range(file.metadata.num_row_groups)
        )
        if unpacked > MAX_BYTES:
            raise ScalingError(
                f"unpacks to {unpacked:,} bytes",
                where=str(path),
                remedy="at most 2 GiB: keep only the columns a fit needs",
            )
        return file.read(use_threads=False).to_pandas(ignore_metadata=True, use_threads=False)
    except ScalingError:
        raise
    except (
        Exception
    ) as error:  # a damaged footer raises errors of many types (JSON, key, Unicode, Arrow)
        what = f"not a readable Parquet file: {type(error).__name__} (it starts with {data[:8]!r})"
        raise ScalingError(
            what, where=str(path), remedy="write it again, or restore it from a copy"
        ) from error


READERS: dict[str, Callable[[Path, bytes], pd.DataFrame]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
    ".pq": _parquet,
}
