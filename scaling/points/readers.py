"""Files of tables: read once, as bytes, decoded, decompressed, and parsed by the form that their
name says.

Nothing is unpickled and nothing is guessed here: cells stay as they were written until a column is
asked for. What a table cannot be read for is refused with the file's name and the reason.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from scaling.errors import DISK, ScalingError
from scaling.points.json_tables import read_json, read_json_lines
from scaling.points.text_tables import decode, read_csv, to_arrow

IN_MEMORY = Path("DataFrame")  # the location of a table in memory, in messages
FOLDER = "scaling.folder"  # the attribute of a table that holds the results folder it came from
ENCODING = "scaling.encoding"  # the attribute that says how a text file was decoded
MAX_ROWS = 10_000_000
MAX_BYTES = 2**31
MAX_COLUMNS = 10_000
FORMS = (
    "a results folder, a .csv, .json, .jsonl or .parquet file (.gz too), or a folder of W&B or "
    "TensorBoard runs"
)
PICKLES = (".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth")
WORKBOOKS = (".xlsx", ".xls", ".ods", ".numbers")


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
            remedy="fix the permissions",
            exit_code=DISK,
        ) from None


def suffix_of(path: Path) -> str:
    """The suffix that says the form, in small letters: `.csv` of `runs.csv.gz` too."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def is_table_file(path: Path) -> bool:
    """Whether a file's name says that it is a table."""
    return suffix_of(path) in READERS


def read_table(path: Path, data: bytes) -> pd.DataFrame:
    """One table from the bytes of a file, its form taken from the name.

    Raises ScalingError that names the file and the fault.
    """
    suffix = suffix_of(path)
    reader = READERS.get(suffix)
    if reader is None:
        why = "is of unknown form"
        if suffix in PICKLES:
            why = "may run code when it is opened"
        elif suffix in WORKBOOKS:
            why = "is a workbook: export the sheet as CSV"
        raise ScalingError(
            f"a {suffix or 'nameless'} file {why}", where=str(path), remedy=f"give {FORMS}"
        )
    data = _decompress(path, data)
    if not data.strip():
        raise ScalingError(
            "the file is empty",
            where=str(path),
            remedy="it needs a header and one row for each run",
        )
    note = ""
    if reader is not _parquet:
        data, note = decode(path, data)
    table = reader(path, data)
    _check_header(path, [str(name) for name in table.columns])
    _check_rows(path, len(table))
    if table.empty:
        raise ScalingError(
            "holds a header and no rows", where=str(path), remedy="it needs one row for each run"
        )
    if note:
        table.attrs[ENCODING] = f"{path.name} is read as {note}"
    return table


def _decompress(path: Path, data: bytes) -> bytes:
    """The content of a gzip file of bounded size; other files as they are."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    unpacker = zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(data, MAX_BYTES)
        while unpacker.eof and unpacker.unused_data.startswith(b"\x1f\x8b"):
            rest, unpacker = unpacker.unused_data, zlib.decompressobj(wbits=31)
            content += unpacker.decompress(rest, MAX_BYTES)
    except zlib.error as error:
        raise ScalingError(
            f"not a readable gzip file: {error}", where=str(path), remedy="write it again"
        ) from None
    if not unpacker.eof:
        what = "is cut off" if len(content) < MAX_BYTES else "unpacks to more than 2 GiB"
        raise ScalingError(f"the gzip file {what}", where=str(path), remedy="write it again")
    return content


def normalize_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table in memory as a file would give it: names as text, a named index as columns,
    rows counted from 0.

    Raises ScalingError for a name that stands twice and for a table without rows.
    """
    labelled = [str(name) for name in frame.index.names if name is not None]
    _check_header(IN_MEMORY, [*labelled, *map(str, frame.columns)])
    table = frame.reset_index(drop=not labelled)
    table.columns = pd.Index([str(name) for name in table.columns])
    if table.empty:
        raise ScalingError(
            "holds no rows", where=str(IN_MEMORY), remedy="it needs one row for each run"
        )
    return table


def origin(frame: pd.DataFrame) -> Path | None:
    """The results folder that a table was loaded from, where it still says so."""
    folder = frame.attrs.get(FOLDER)
    return Path(folder) if isinstance(folder, str) else None


def source_name(source: Path | pd.DataFrame) -> str:
    """What a source is called in documents and messages."""
    if isinstance(source, pd.DataFrame):
        return f"{IN_MEMORY} of {folder}" if (folder := origin(source)) else str(IN_MEMORY)
    return str(source)


def source_label(sources: Iterable[Path | pd.DataFrame]) -> str:
    """Several sources, with commas between them."""
    return ", ".join(map(source_name, sources))


def _check_header(path: Path, names: list[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise ScalingError(
            f"{len(names):,} columns; the limit is {MAX_COLUMNS:,}",
            where=str(path),
            remedy="is it a table with a row for each run? keep only the columns a fit needs",
        )
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ScalingError(
            f"column {twice[0]!r} stands twice in the header",
            where=str(path),
            remedy="give every column its own name",
        )


def _check_rows(path: Path, count: int) -> None:
    if count > MAX_ROWS:
        raise ScalingError(
            f"{count:,} rows; the limit is {MAX_ROWS:,}",
            where=str(path),
            remedy="keep one row for each run",
        )


def _parquet(path: Path, data: bytes) -> pd.DataFrame:
    try:
        file = pq.ParquetFile(to_arrow(data), page_checksum_verification=True, pre_buffer=False)
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
    ".csv": read_csv,
    ".tsv": read_csv,
    ".txt": read_csv,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": _parquet,
    ".pq": _parquet,
}
