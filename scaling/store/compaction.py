"""Many run files become one: what 100,000 runs need to be read in seconds.

The merged file is on disk, verified, before the first single file goes. Killed in between, a run
stands in both, and the next compaction removes the single file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from scaling import files
from scaling.errors import ScalingError
from scaling.store import run_files
from scaling.store.rows import SCHEMA, SCHEMA_VERSION

COMPACT_ABOVE = 4096  # single files above which a sweep merges them by itself
RUNS_PER_FILE, RUNS_PER_GROUP = 5_000, 64  # some 12 s under the lock


@dataclass
class CompactionResult:
    """What a compaction did: runs now in merged files, files written and removed, and what was
    corrupt and left where it was.
    """

    runs: int = 0
    written: int = 0
    removed: int = 0
    corrupt: tuple[str, ...] = ()


def compact(folder: Path, locked: Callable[[], AbstractContextManager[Any]]) -> CompactionResult:
    """Merge the single files of `folder`, `RUNS_PER_FILE` at a time, each time inside the folder's
    lock, so that no other process waits long for it. Raises DiskError (74).
    """
    result, is_done = CompactionResult(), False
    while not is_done:
        with locked():
            is_done = not _merge_once(folder, result)
    return result


def _merge_once(folder: Path, result: CompactionResult) -> bool:
    """Merge at most `RUNS_PER_FILE` single files; whether there were any."""
    merged = run_files.merged_ids(folder)
    single = run_files.run_files(folder)
    sources = [path for path in single if path.stem in merged]  # copies that a kill has left
    tables: list[pa.Table] = []
    run_ids: list[str] = []
    corrupt: list[str] = []
    for path in [path for path in single if path.stem not in merged][:RUNS_PER_FILE]:
        try:
            tables.append(run_files.read_published(path))
        except files.DiskError:
            raise
        except ScalingError as error:
            corrupt.append(f"{path.parent.name}/{path.name}: {error.what}")
            continue
        run_ids.append(path.stem)
        sources.append(path)
    if tables:
        schema = SCHEMA.with_metadata({"scaling.schema": str(SCHEMA_VERSION)})
        index = {run_files.INDEX.decode(): json.dumps({"runs": run_ids})}
        starts = range(0, len(tables), RUNS_PER_GROUP)
        groups = (pa.concat_tables(tables[first : first + RUNS_PER_GROUP]) for first in starts)
        data = run_files.parquet_bytes(groups, schema, **index)
        name = hashlib.sha256(os.fsencode(" ".join(run_ids))).hexdigest()[:16]
        target = folder / run_files.MERGED / f"{name}.parquet"
        files.write_atomically(target, lambda path: path.write_bytes(data))
        files.check_file(target)
    for path in sources:
        with files.as_disk_error(path, "remove"):
            path.unlink(missing_ok=True)
    result.runs += len(run_ids)
    result.written += bool(tables)
    result.removed += len(sources)
    result.corrupt = tuple(corrupt)
    return bool(tables)
