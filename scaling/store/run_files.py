"""The finished runs of a folder: one Parquet file per run, compacted into larger files when they
are many.

runs/<run_id>.parquet is a finished run, and its existence says so; merged/<digest>.parquet holds
thousands. A run that is in both (a compaction was interrupted) is the same run. Readers open a file
once, verify its checksum, and name a corrupt file instead of skipping it. A file that cannot be
read (an OSError) is not corrupt: that ends the command with exit 74.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scaling import files
from scaling.errors import STOPPED, ScalingError
from scaling.formatting import sanitize
from scaling.store.rows import SCHEMA, SCHEMA_VERSION

if TYPE_CHECKING:
    from scaling.config.task import TextFacts

RUNS, MERGED = "runs", "merged"
MODEL_DESCRIPTION = "scaling.json"  # of the run, in a folder of its model in another layout
RUN_ID = re.compile(r"[0-9a-f]{12}")
INDEX = b"scaling.runs"
LISTING_ATTEMPTS = 5  # a listing may be outdated by a compaction this often before we give up


class NewerSchemaError(ScalingError):
    """A file written by a newer version of this program."""


@dataclass(frozen=True)
class CorruptFile:
    """A file that is not what was written, and the runs that it held (as far as its name or index
    says).
    """

    path: Path
    reason: str
    run_ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        return sanitize(f"{self.path.parent.name}/{self.path.name} is corrupt: {self.reason}", 300)


def parquet_bytes(tables: Iterable[pa.Table], schema: pa.Schema, **metadata: str) -> bytes:
    """A Parquet file with one row group for each table, and its checksum in the footer."""
    output = pa.BufferOutputStream()
    with pq.ParquetWriter(output, schema, compression="zstd", write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table.cast(schema))
        writer.add_key_value_metadata({**metadata, "scaling.checksum": files.PLACEHOLDER})
    return files.with_checksum(bytes(output.getvalue()))


def write_run(folder: Path, table: pa.Table) -> bool:
    """Publish one run's rows, whole or not at all; False where the run is published already (that
    file stays).

    Raises ScalingError (74).
    """
    data = parquet_bytes([table], table.schema)
    target = folder / RUNS / f"{table.column('run_id')[0].as_py()}.parquet"
    return files.write_once(target, lambda path: path.write_bytes(data))


def read_parquet(
    path: Path, columns: Sequence[str] | None = None, required: Iterable[pa.Field] = ()
) -> pa.Table:
    """One Parquet file, opened once and verified.

    Raises ScalingError that names the file when it is corrupt, absent, or lacks a `required` column
    of that type, whether it is asked for or not; DiskError (74) when it cannot be read.
    """
    wrong = []
    try:
        data = files.read_bytes(path)
        files.verify_checksum(data)
        # in Arrow's memory: a thread of its pool that drops the last reference to a Python buffer
        # while the interpreter ends aborts the process
        copy = pa.BufferOutputStream()
        copy.write(data)
        source = pa.BufferReader(copy.getvalue())
        file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)
        types = {field.name: field.type for field in file.schema_arrow}
        wrong = [field.name for field in required if types.get(field.name) != field.type]
        if not wrong:
            return file.read(columns=None if columns is None else list(columns), use_threads=False)
    except (MemoryError, files.DiskError):
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise ScalingError(
            "no such file", where=path, remedy="name an existing table or results folder"
        ) from None
    except Exception as error:  # a corrupt footer raises many types (JSON, key, Unicode, Arrow)
        reason = str(error)
        if not isinstance(error, files.ChecksumError):
            reason = f"{type(error).__name__} (it starts with {data[:8]!r})"
        raise ScalingError(
            f"not a readable Parquet file: {reason}",
            where=path,
            remedy="run the sweep again: the run is redone; or restore the file from a copy",
        ) from error
    raise ScalingError(
        f"is not a run file: columns missing or not of their type: {', '.join(wrong)}",
        where=path,
        remedy="fit it as a table of your own, or move it away",
    )


def read_published(path: Path, columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    """The columns of a run's file, or of a merged one; `columns` must name run_id.

    Raises ScalingError where it is not what its name says, NewerSchemaError, DiskError.
    """
    table = read_parquet(path, columns, SCHEMA)
    version = int((table.schema.metadata or {}).get(b"scaling.schema", b"1"))
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"written with row schema {version}, this program reads {SCHEMA_VERSION}",
            where=str(path),
            remedy="update scaling",
        )
    if path.parent.name == RUNS and table["run_id"].unique().to_pylist() != [path.stem]:
        raise ScalingError(
            "its rows do not belong to the run that it is named after",
            where=path,
            remedy="delete it and run the sweep again",
        )
    return table.select(columns).replace_schema_metadata(None)


def run_files(folder: Path) -> list[Path]:
    """The files of single runs, in order of run_id; names that start with a dot are unfinished.

    What stands in the place of one (a folder, a pipe) is listed too: reading it names it.
    """
    return files.list_files(folder / RUNS, ".parquet", regular=False)


def merged_files(folder: Path) -> list[Path]:
    """The files that hold many runs."""
    return files.list_files(folder / MERGED, ".parquet", regular=False)


def has_runs(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    return bool(run_files(folder) or merged_files(folder))


def finished_run_ids(folder: Path) -> set[str]:
    """The ids of all published runs, from names and indices alone."""
    return {path.stem for path in run_files(folder)} | set(merged_ids(folder))


def is_finished(folder: Path, run_id: str) -> bool:
    """Whether a run is published."""
    return files.exists(folder / RUNS / f"{run_id}.parquet") or run_id in merged_ids(folder)


def merged_ids(folder: Path) -> frozenset[str]:
    """The ids in merged files; one whose index is corrupt counts as empty here, and `corrupt_files`
    names it.
    """
    try:
        stamp = files.retry(folder / MERGED, (folder / MERGED).stat).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    return _merged_ids(folder, stamp)


@lru_cache(maxsize=4)
def _merged_ids(folder: Path, stamp: int) -> frozenset[str]:
    return frozenset(itertools.chain.from_iterable(map(index, merged_files(folder))))


def index(path: Path) -> list[str]:
    """The runs in a merged file; none where it is corrupt, which reading it names. Raises
    DiskError.
    """
    try:
        metadata = pq.read_metadata(pa.BufferReader(files.read_bytes(path))).metadata
        return list(map(str, json.loads(metadata[INDEX])["runs"]))
    except (files.DiskError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - a corrupt footer raises errors of many types
        return []


@dataclass
class FolderRows:
    """All rows of a folder, and the files that are corrupt."""

    table: pa.Table
    corrupt_files: list[CorruptFile] = field(default_factory=list)


def read_folder(folder: Path, columns: list[str] | None = None) -> FolderRows:
    """Every published run once; `columns` must name run_id. A corrupt file is named, and the others
    are read.

    Raises NewerSchemaError, DiskError.
    """
    files.check_local(folder)
    for _ in range(LISTING_ATTEMPTS):
        if (content := _read_listed(folder, columns or SCHEMA.names)) is not None:
            return content
    raise ScalingError(
        "its files change faster than they can be read",
        where=folder,
        remedy="try again",
        exit_code=STOPPED,
    )


def _read_listed(folder: Path, columns: Sequence[str]) -> FolderRows | None:
    """The rows of the files that are listed now; None where one was merged meanwhile."""
    before, merged = run_files(folder), merged_files(folder)
    # listed twice: a run may have been merged between the two listings
    single = sorted({*before, *run_files(folder)})
    content = FolderRows(pa.schema([SCHEMA.field(name) for name in columns]).empty_table())
    tables = [content.table]
    seen: set[str] = set()
    for path in [*merged, *single]:
        if path.parent.name == RUNS and path.stem in seen:
            continue
        try:
            table = read_published(path, columns)
        except ScalingError as error:
            if not files.exists(path):
                return None
            if isinstance(error, (files.DiskError, NewerSchemaError)):
                raise
            content.corrupt_files.append(CorruptFile(path, error.what, run_ids_of(path)))
            continue
        run_ids = set(table["run_id"].unique().to_pylist())
        tables.append(_only(table, run_ids - seen) if run_ids & seen else table)
        seen |= run_ids
    content.table = pa.concat_tables(tables)
    return content


def run_ids_of(path: Path) -> tuple[str, ...]:
    """The runs of a file, by its name or its index."""
    if path.parent.name == MERGED:
        return tuple(index(path))
    return (path.stem,) if path.parent.name == RUNS and RUN_ID.fullmatch(path.stem) else ()


def _only(table: pa.Table, run_ids: Iterable[str]) -> pa.Table:
    return table.filter(
        pa.compute.is_in(table.column("run_id"), pa.array(list(run_ids), pa.string()))
    )


def planned_run_ids(folder: Path) -> frozenset[str] | None:
    """The runs that the folder's plan asks for; None where there is no plan, or it is corrupt."""
    try:
        runs = files.read_json(folder / "plan.json")["runs"]
        return frozenset(run["run_id"] for run in runs)
    except (FileNotFoundError, NotADirectoryError, files.ChecksumError, KeyError, TypeError):
        return None


def planned_text(folder: Path) -> TextFacts | None:
    """The text that the runs of the folder's plan read; None where the plan does not say."""
    from scaling.config.task import TextFacts  # a table is fitted without configuration

    try:
        return TextFacts.model_validate(files.read_json(folder / "plan.json")["text"])
    except (OSError, files.ChecksumError, KeyError, TypeError, ValueError):
        return None


def load(folder: Path, *, planned_only: bool = False) -> pd.DataFrame:
    """All rows of a sweep folder; with `planned_only` those of the runs that its plan asks for (all
    where it asks for none).

    `attrs["corrupt"]` names the files that are corrupt, `attrs["unplanned"]` the runs left out,
    `attrs["unfinished"]` those that the plan asks for and that have no rows.
    Raises ScalingError when no row is left.
    """
    content = read_folder(folder)
    table = content.table
    if table.num_rows == 0 and content.corrupt_files:
        first = content.corrupt_files[0]
        raise ScalingError(
            first.reason,
            where=first.path,
            remedy="run the sweep again: corrupt runs are trained again",
        )
    if table.num_rows == 0:
        raise ScalingError(
            "holds no finished runs",
            where=folder,
            remedy=f"train them first: scaling run sweeps/{folder.name}.toml",
        )
    finished = set(table.column("run_id").unique().to_pylist())
    planned = (planned_run_ids(folder) if planned_only else None) or finished
    unplanned = sorted(finished - planned) if finished & planned else []
    table = _only(table, planned) if unplanned else table
    frame = table.to_pandas(use_threads=False)
    frame.attrs["corrupt"] = [str(problem) for problem in content.corrupt_files]
    frame.attrs["unplanned"] = unplanned
    frame.attrs["unfinished"] = sorted(planned - finished) if finished & planned else []
    return frame


def read_run(folder: Path, run_id: str) -> pd.DataFrame:
    """The rows of one published run, in whichever file they are. Raises ScalingError where there
    are none.
    """
    path = folder / RUNS / f"{run_id}.parquet"
    if files.exists(path):
        try:
            return read_published(path).to_pandas(use_threads=False)
        except ScalingError:
            if files.exists(path):
                raise  # else it was compacted meanwhile
    table = _only(read_folder(folder).table, [run_id])
    if table.num_rows == 0:
        raise ScalingError(
            f"holds no finished run {run_id}",
            where=folder,
            remedy=f"scaling status {folder} lists its runs",
        )
    return table.to_pandas(use_threads=False)
