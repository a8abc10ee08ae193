"""Files of tables: read once, as bytes, decoded, decompressed, and parsed by the form that their
name says.

Nothing is unpickled and nothing is guessed here: cells stay as they were written until a column is
asked for. What a table cannot be read for is refused with the file's name and the reason.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.errors import DISK, ScalingError, with_location
from scaling.points.points import IN_MEMORY

if TYPE_CHECKING:  # a fit's document is read without them
    import pandas as pd

ENCODING = "scaling.encoding"  # the attribute that says how a text file was decoded
MAX_ROWS = 10_000_000
MAX_BYTES = 2**31
MAX_COLUMNS = 10_000
FORMS = (
    "a results folder, a .csv, .json, .jsonl or .parquet file (.gz too), or a folder of W&B or "
    "TensorBoard runs"
)
DOCUMENTS = (".md", ".tex")  # a table where they are named, no part of a folder of tables
CSV = (".csv", ".tsv", ".txt", ".dat", *DOCUMENTS)
JSON = (".json", ".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
WORKBOOKS = (".xlsx", ".xls", ".ods", ".numbers")
PICKLES = (".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth")
ONLY_NEEDED = "at most 2 GiB: keep only the columns a fit needs"


def read_tables(source: Path | pd.DataFrame) -> Iterator[tuple[Path, pd.DataFrame, bytes | None]]:
    """The tables of a source with their place and the bytes of the file: one in memory, a file, or
    those of a folder without results; trackers' logs are one table. Raises ScalingError.
    """
    if not isinstance(source, Path):
        yield IN_MEMORY, normalize_frame(source), None
        return
    files = _files(source)
    contents = {file: read_bytes(file) for file in files}
    if logs := [file for file in files if _is_log(file)]:
        from scaling.points.tracker_logs import read_runs

        yield source, read_runs(logs), b"".join(contents.pop(file) for file in logs)
    for file, content in contents.items():
        yield file, read_table(file, content), content


def _files(path: Path) -> list[Path]:
    """The tables of a source: itself, or those of a folder without results."""
    if not path.is_dir():
        return [path]
    if any((path / name).exists() for name in ("sweep.toml", "tuning.json")):
        raise ScalingError(
            "holds no finished runs",
            where=path,
            remedy="train them first: scaling run SWEEP.toml",
        )
    tables = sorted(
        file
        for file in path.iterdir()
        if is_table_file(file) and file.suffix not in DOCUMENTS and not file.name.startswith(".")
    )
    tables = tables or sorted(file for file in path.rglob("*") if _is_log(file))
    if not tables:
        raise ScalingError(
            "holds neither runs nor tables",
            where=path,
            remedy="name a folder with runs/*.parquet, or with tables",
        )
    return tables


def _is_log(path: Path) -> bool:
    return path.suffix == ".wandb" or "events.out.tfevents." in path.name


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of bounded size. Raises ScalingError that names the file."""
    with with_location(path):
        if not path.is_file():
            what = "not a regular file" if path.exists() else "no such file or folder"
            raise ScalingError(what, remedy=f"name {FORMS}")
        try:
            size = path.stat().st_size
            if size > MAX_BYTES:
                raise ScalingError(f"{size:,} bytes is too large", remedy=ONLY_NEEDED)
            return path.read_bytes()
        except OSError as error:
            what = f"cannot read: {error.strerror}"
            raise ScalingError(what, remedy="fix the permissions", exit_code=DISK) from None


def suffix_of(path: Path) -> str:
    """The suffix that says the form, in small letters: `.csv` of `runs.csv.gz` too."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def is_table_file(path: Path) -> bool:
    """Whether a file's name says that it is a table."""
    return suffix_of(path) in (*CSV, *JSON, *PARQUET)


def read_table(path: Path, data: bytes) -> pd.DataFrame:
    """One table from the bytes of a file, its form taken from the name.

    Raises ScalingError that names the file and the fault.
    """
    suffix, encoding = suffix_of(path), ""
    with with_location(path):
        if not is_table_file(path):
            why = "may run code when it is opened" if suffix in PICKLES else "is no table of runs"
            why = "is a workbook: export the sheet as CSV" if suffix in WORKBOOKS else why
            raise ScalingError(f"a {suffix or 'nameless'} file {why}", remedy=f"give {FORMS}")
        data = _decompress(data)
        if not data.strip():
            raise ScalingError(
                "the file is empty", remedy="it needs a header and one row for each run"
            )
        if suffix in PARQUET:
            table = _parquet(data)
        else:
            from scaling.points.text_tables import decode, read_csv

            text, encoding = decode(data)
            if suffix in JSON or re.match(r'\s*[\[{]\s*[\[{"]', text):
                from scaling.points.json_tables import read_json

                table = read_json(text, is_lines=suffix != ".json")
            else:
                table = read_csv(text)
        _check_header(table.columns)
        _check_rows(len(table))
    if encoding:
        table.attrs[ENCODING] = f"{path.name} is read as {encoding}"
    return table


def _decompress(data: bytes) -> bytes:
    """The content of a gzip file of bounded size; other files as they are."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ScalingError(f"not a readable gzip file: {error}", remedy="write it again") from None
    if len(content) > MAX_BYTES:
        raise ScalingError("the gzip file unpacks to more than 2 GiB", remedy=ONLY_NEEDED)
    return content


def normalize_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table in memory as a file would give it: names as text, a named index as columns,
    rows counted from 0.

    Raises ScalingError for a name that stands twice and for a table without rows.
    """
    labelled = [name for name in frame.index.names if name is not None]
    with with_location(IN_MEMORY):
        _check_header([*labelled, *frame.columns])
        _check_rows(len(frame))
    table = frame.reset_index(drop=not labelled)
    return table.set_axis([str(name) for name in table.columns], axis=1)


def _check_header(columns: Iterable[object]) -> None:
    names = Counter(map(str, columns))
    if names.total() > MAX_COLUMNS:
        raise ScalingError(
            f"{names.total():,} columns; the limit is {MAX_COLUMNS:,}",
            remedy="is it a table with a row for each run? keep only the columns a fit needs",
        )
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise ScalingError(
            f"column {twice[0]!r} stands twice in the header",
            remedy="give every column its own name",
        )


def _check_rows(count: int) -> None:
    if not 0 < count <= MAX_ROWS:
        what = f"{count:,} rows; the limit is {MAX_ROWS:,}" if count else "holds no rows"
        raise ScalingError(what, remedy="it needs one row for each run")


def _parquet(data: bytes) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # in Arrow's memory: its threads may outlive the interpreter, which must not free it under them
    buffer = pa.allocate_buffer(len(data))
    memoryview(buffer).cast("B")[:] = data
    source = pa.BufferReader(buffer)
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)
        groups = [file.metadata.row_group(each) for each in range(file.metadata.num_row_groups)]
        _check_rows(file.metadata.num_rows)
        unpacked = sum(group.total_byte_size for group in groups)
        if unpacked > MAX_BYTES:
            raise ScalingError(f"unpacks to {unpacked:,} bytes", remedy=ONLY_NEEDED)
        return file.read(use_threads=False).to_pandas(ignore_metadata=True, use_threads=False)
    except ScalingError:
        raise
    except Exception as error:  # a damaged footer raises errors of many types
        raise ScalingError(
            f"not a readable Parquet file: {type(error).__name__} (it starts with {data[:8]!r})",
            remedy="write it again, or restore it from a copy",
        ) from error
