"""The finished runs of a folder, on disk: one file a run as it is published, merged into larger ones when they are many.

runs/<run_id>.parquet is a finished run, and its being there is what says so; merged/<digest>.parquet holds thousands. A run
that stands in both (a merge was interrupted) is the same run. Readers open a file once, verify its seal, and name a
damaged file instead of skipping it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scaling import files
from scaling.errors import DISK, STOPPED, ScalingError
from scaling.store.rows import SCHEMA, SCHEMA_VERSION

RUNS, MERGED = "runs", "merged"
INDEX, FACTS = b"scaling.runs", (b"scaling.fingerprint", b"scaling.execution")
RUNS_A_FILE, RUNS_A_GROUP = 10_000, 64
ATTEMPTS = 5  # a listing may be outdated by a merge this often before we give up


@dataclass(frozen=True)
class CorruptFile:
    """A file that is not what was written, and the runs that it held (as far as its name or index tells)."""

    path: Path
    reason: str
    run_ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.path.parent.name}/{self.path.name} is damaged: {self.reason}"


def write_run(folder: Path, table: pa.Table) -> bool:
    """Publish one run's rows, whole or not at all; False where the run is published already (that file stays).

    Raises ScalingError (74).
    """
    run_id = table.column("run_id")[0].as_py()
    data = files.with_checksum(_file_of(table))
    return files.write_once(
        folder / RUNS / f"{run_id}.parquet", lambda path: path.write_bytes(data)
    )


def _file_of(table: pa.Table) -> bytes:
    """A Parquet file with page checksums and room for a seal."""
    made = pa.BufferOutputStream()
    with pq.ParquetWriter(
        made, table.schema, compression="zstd", write_page_checksum=True
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"scaling.seal": files.PLACEHOLDER})
    return bytes(made.getvalue())


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """One Parquet file, opened once and verified. Raises ScalingError that names the file when it is damaged.

    Arrow reads it without threads and without Python's memory: a thread of its pool that drops the last reference to a
    Python buffer while the interpreter ends aborts the process ("terminate called without an active exception").
    """
    try:
        with pa.OSFile(str(path)) as file:
            data = file.read_buffer()
        return _parsed(data, columns)
    except FileNotFoundError:
        raise ScalingError(
            "no such file", where=str(path), remedy="name an existing table or results folder"
        ) from None
    except PermissionError as error:
        raise ScalingError(
            f"cannot read: {error.strerror}",
            where=str(path),
            remedy="mend the permissions",
            exit_code=DISK,
        ) from None
    except (
        Exception
    ) as error:  # a damaged footer raises errors of many types (JSON, key, Unicode, Arrow)
        raise ScalingError(
            f"not a readable Parquet file: {_why(error, path)}",
            where=str(path),
            remedy="run the sweep again: the run is redone; or restore the file from a copy",
        ) from error


def _parsed(data: pa.Buffer, columns: list[str] | None = None) -> pa.Table:
    files.verify_checksum(memoryview(data))
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True, pre_buffer=False)
    return file.read(columns=columns, use_threads=False)


def _why(error: Exception, path: Path) -> str:
    if isinstance(error, files.ChecksumError):
        return str(error)
    try:
        with open(path, "rb") as handle:
            return f"{type(error).__name__} (it starts with {handle.read(8)!r})"
    except OSError as again:
        return str(again.strerror)


def run_files(folder: Path) -> list[Path]:
    """The files of single runs, in order of run_id; names that start with a dot are unfinished."""
    return files.list_files(folder / RUNS, ".parquet")


def merged_files(folder: Path) -> list[Path]:
    """The files that hold many runs."""
    return files.list_files(folder / MERGED, ".parquet")


def has_runs(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    return any(files.list_files(folder / name, ".parquet") for name in (RUNS, MERGED))


def finished_run_ids(folder: Path) -> set[str]:
    """The ids of all published runs, from names and indices alone."""
    return {path.stem for path in run_files(folder)} | set(merged_ids(folder))


def is_finished(folder: Path, run_id: str) -> bool:
    """Whether a run is published."""
    return (folder / RUNS / f"{run_id}.parquet").exists() or run_id in merged_ids(folder)


def merged_ids(folder: Path) -> frozenset[str]:
    """The ids in merged files; an index that cannot be read counts as empty here, and `damages` names it."""
    try:
        stamp = (folder / MERGED).stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    return _merged_ids(folder, stamp)


@lru_cache(maxsize=4)
def _merged_ids(folder: Path, stamp: int) -> frozenset[str]:
    return frozenset(run_id for path in merged_files(folder) for run_id in index(path))


def index(path: Path) -> dict[str, dict[str, Any]]:
    """Of each run in a merged file: digest of its rows, fingerprint and execution notes. Empty where it cannot be read."""
    try:
        held = json.loads((pq.read_metadata(path).metadata or {})[INDEX])
        shared = held["shared"]
        return {
            run_id: {"rows": rows, "facts": [shared[i] for i in facts]}
            for run_id, (rows, *facts) in held["runs"].items()
        }
    except Exception:  # noqa: BLE001 - a damaged footer raises errors of many types; whoever reads the file names it
        return {}


@dataclass
class FolderRows:
    """All rows of a folder, and what could not be read of it."""

    table: pa.Table
    corrupt_files: list[CorruptFile] = field(default_factory=list)


def read_folder(folder: Path, columns: list[str] | None = None) -> FolderRows:
    """Every published run once; `columns` must name run_id. A damaged file is named in `damages`; the others are there.

    Raises ScalingError for a newer schema.
    """
    for _ in range(ATTEMPTS):
        try:
            return _read_listed(folder, columns)
        except ConcurrentlyRemoved:
            continue  # merged meanwhile: list again
    raise ScalingError(
        "its files change faster than they can be read",
        where=str(folder),
        remedy="try again",
        exit_code=STOPPED,
    )


class ConcurrentlyRemoved(Exception):
    """A listed file has gone."""


def _read_listed(folder: Path, columns: list[str] | None) -> FolderRows:
    before, merged = run_files(folder), merged_files(folder)
    loose = sorted(
        {*before, *run_files(folder)}
    )  # listed twice: a run may move either way between the two listings
    damages: list[CorruptFile] = []
    tables: list[pa.Table] = []
    seen: set[str] = set()
    for path in merged:
        table, damage = _runs_of(path, columns)
        held = set(
            table.column("run_id").unique().to_pylist()
        )  # not the index: the file may have gone meanwhile
        tables.append(_only(table, held - seen) if held & seen else table)
        damages += [damage] if damage else []
        seen |= held
    for path in loose:
        if path.stem in seen:
            continue
        try:
            tables.append(_checked(path, columns))
        except ScalingError as error:
            if not path.exists():
                raise ConcurrentlyRemoved from None
            if error.exit_code == DISK or "row schema" in error.what:
                raise
            damages.append(CorruptFile(path, error.what, (path.stem,)))
    return FolderRows(
        pa.concat_tables(tables) if tables else _schema(columns).empty_table(), damages
    )


def _schema(columns: list[str] | None) -> pa.Schema:
    return pa.schema([SCHEMA.field(name) for name in columns]) if columns else SCHEMA


def _only(table: pa.Table, run_ids: Iterable[str]) -> pa.Table:
    return table.filter(
        pa.compute.is_in(table.column("run_id"), pa.array(list(run_ids), pa.string()))
    )


def _checked(path: Path, columns: list[str] | None = None) -> pa.Table:
    return checked(read_parquet(path), path).select(columns or SCHEMA.names)


def checked(table: pa.Table, path: Path) -> pa.Table:
    """The rows of the run that `path` is named after. Raises ScalingError when the table holds anything else."""
    _check_schema(table, path)
    if table.num_rows == 0 or set(table.column("run_id").unique().to_pylist()) != {path.stem}:
        raise ScalingError(
            "its rows do not belong to the run that it is named after",
            where=str(path),
            remedy="delete it and run the sweep again",
        )
    return table.select(SCHEMA.names).replace_schema_metadata(None)


def _check_schema(table: pa.Table, path: Path) -> None:
    names = set(table.column_names)
    missing = [name for name in SCHEMA.names if name not in names]
    if missing:
        what = f"is no run file: columns missing: {', '.join(missing)}"
        raise ScalingError(
            what, where=str(path), remedy="fit it as a foreign table, or move it away"
        )
    version = int((table.schema.metadata or {}).get(b"scaling.schema", b"1"))
    if version > SCHEMA_VERSION:
        what = f"written with row schema {version}, this program reads {SCHEMA_VERSION}"
        raise ScalingError(what, where=str(path), remedy="update scaling")


def _runs_of(path: Path, columns: list[str] | None) -> tuple[pa.Table, CorruptFile | None]:
    """The rows of a merged file; of a damaged one those runs whose rows are provably whole."""
    try:
        table = read_parquet(path, columns)
        if not set(columns or SCHEMA.names) <= set(table.column_names):
            raise ScalingError("another table than this program's", where=str(path))
        return table.select(columns or SCHEMA.names).replace_schema_metadata(None), None
    except ScalingError as error:
        if not path.exists():
            raise ConcurrentlyRemoved from None
        if error.exit_code == DISK:
            raise
        whole = list(recover_intact_runs(path))
        kept = {run_id for run_id, _ in whole}
        lost = tuple(sorted(set(index(path)) - kept))
        table = pa.concat_tables([rows for _, rows in whole]) if whole else SCHEMA.empty_table()
        return table.select(columns or SCHEMA.names), CorruptFile(path, error.what, lost)


def recover_intact_runs(path: Path) -> Iterator[tuple[str, pa.Table]]:
    """(run_id, rows) of every run in a damaged merged file whose rows have the digest that the index holds."""
    known = index(path)
    if not known:
        return
    file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    for group in range(file.metadata.num_row_groups):
        try:
            table = (
                file.read_row_group(group, use_threads=False)
                .select(SCHEMA.names)
                .replace_schema_metadata(None)
            )
            found = list(by_run(table))
        except Exception:  # noqa: BLE001 - this part is the damaged one; its runs are named in the Damage
            continue
        yield from (
            (run_id, rows)
            for run_id, rows in found
            if known.get(run_id, {}).get("rows") == rows_digest(rows)
        )


def by_run(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each run, which lie together."""
    ids = table.column("run_id").to_pylist()
    starts = [i for i, run_id in enumerate(ids) if i == 0 or run_id != ids[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        yield ids[start], table.slice(start, end - start)


def rows_digest(table: pa.Table) -> str:
    """Twelve hex digits that stand for the values of a run's rows, however they are stored."""
    digest = hashlib.sha256()
    for column in table.select(SCHEMA.names).columns:
        digest.update(
            repr(
                column.to_pylist()
                if column.null_count or len(column) < 2
                else _encode_column(column)
            ).encode()
        )
    return digest.hexdigest()[:12]


def _encode_column(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column, a constant once."""
    distinct = column.unique()
    return [*distinct.to_pylist(), len(column)] if len(distinct) == 1 else column.to_pylist()


def load(folder: Path) -> pd.DataFrame:
    """All rows of a sweep folder; `attrs["damaged"]` names the files that could not be read. Raises ScalingError when none is left."""
    held = read_folder(folder)
    if held.table.num_rows == 0 and held.corrupt_files:
        first = held.corrupt_files[0]
        raise ScalingError(
            first.reason,
            where=str(first.path),
            remedy="run the sweep again: what is damaged is redone",
        )
    if held.table.num_rows == 0:
        raise ScalingError(
            "holds no finished runs",
            where=str(folder),
            remedy=f"train them first: scaling run sweeps/{folder.name}.toml",
        )
    frame = held.table.to_pandas(use_threads=False)
    frame.attrs["damaged"] = [str(damage) for damage in held.corrupt_files]
    return frame


def read_run(folder: Path, run_id: str) -> pd.DataFrame:
    """The rows of one published run, wherever they lie. Raises ScalingError where there are none."""
    path = folder / RUNS / f"{run_id}.parquet"
    if path.exists():
        try:
            return _checked(path).to_pandas(use_threads=False)
        except ScalingError:
            if path.exists():
                raise  # else it was merged meanwhile
    table = _only(read_folder(folder).table, [run_id])
    if table.num_rows == 0:
        raise ScalingError(
            f"holds no finished run {run_id}",
            where=str(folder),
            remedy=f"scaling status {folder} lists its runs",
        )
    return table.to_pandas(use_threads=False)


def corrupt_files(folder: Path) -> list[CorruptFile]:
    """The published files that are not what was written, each with its runs. Every byte is read once."""
    found = []
    for path in [*run_files(folder), *merged_files(folder)]:
        try:
            if path.parent.name == RUNS:
                checked(read_parquet(path), path)
            elif not files.check_file(path):
                found += [damage] if (damage := _runs_of(path, None)[1]) else []
        except FileNotFoundError:
            continue
        except files.ChecksumError as error:
            found.append(_damage(path, str(error)))
        except ScalingError as error:
            if error.exit_code == DISK or "row schema" in error.what:
                raise
            if path.exists():
                found.append(_damage(path, error.what))
        except OSError as error:
            raise ScalingError(
                f"cannot read: {error.strerror}",
                where=str(path),
                remedy="mend the permissions",
                exit_code=DISK,
            ) from None
    return found


def _damage(path: Path, reason: str) -> CorruptFile:
    return (
        _runs_of(path, None)[1] or CorruptFile(path, reason)
        if path.parent.name == MERGED
        else CorruptFile(path, reason, (path.stem,))
    )


def fingerprints(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(run_id, fingerprint) of each published run, from the files' metadata alone."""
    for path in run_files(folder):
        metadata = pq.read_metadata(path).metadata or {}
        yield path.stem, json.loads(metadata.get(FACTS[0], b"{}"))
    for path in merged_files(folder):
        for run_id, held in index(path).items():
            yield run_id, json.loads(held["facts"][0])
