"""Many run files become one: what 100,000 runs need to be read in seconds.

The merged file is on disk, verified, before the first single file goes. Killed in between, a run
stands in both, and the next compaction removes the single file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from scaling import files
from scaling.errors import ScalingError
from scaling.store import run_files
from scaling.store.rows import SCHEMA, SCHEMA_VERSION

COMPACT_ABOVE = 4096  # single files above which a sweep merges them by itself
RUNS_PER_FILE, RUNS_PER_GROUP = 5_000, 64  # some 12 s under the lock


@dataclass(frozen=True)
class CompactionResult:
    """What a compaction did: runs now in merged files, files written and removed, and what was
    corrupt and left where it was.
    """

    runs: int = 0
    written: int = 0
    removed: int = 0
    corrupt: tuple[str, ...] = ()


def compact(folder: Path) -> CompactionResult:
    """Merge single files of `folder`, at most `RUNS_PER_FILE`, into one.

    The caller sees to it that no other process compacts the same folder. Raises DiskError (74).
    """
    merged = run_files.merged_ids(folder)
    single = run_files.run_files(folder)
    sources = [path for path in single if path.stem in merged]  # copies that a kill has left
    tables: list[pa.Table] = []
    run_ids: list[str] = []
    corrupt: list[str] = []
    for path in [path for path in single if path.stem not in merged][:RUNS_PER_FILE]:
        try:
            tables.append(run_files.check_run(run_files.read_parquet(path), path))
        except files.DiskError:
            raise
        except ScalingError as error:
            corrupt.append(f"{path.parent.name}/{path.name}: {error.what}")
            continue
        run_ids.append(path.stem)
        sources.append(path)

    def write(path: Path) -> None:
        schema = SCHEMA.with_metadata({"scaling.schema": str(SCHEMA_VERSION)})
        index = json.dumps({"runs": run_ids})
        starts = range(0, len(tables), RUNS_PER_GROUP)
        groups = (pa.concat_tables(tables[first : first + RUNS_PER_GROUP]) for first in starts)
        with open(path, "wb") as handle:  # Arrow takes no path that is not UTF-8
            run_files.write_table(handle, groups, schema, **{run_files.INDEX.decode(): index})
        files.append_checksum(path)

    if tables:
        name = hashlib.sha256(os.fsencode(" ".join(run_ids))).hexdigest()[:16]
        target = folder / run_files.MERGED / f"{name}.parquet"
        files.write_atomically(target, write)
        files.check_file(target)
    for path in sources:
        with files.as_disk_error(path, "remove"):
            path.unlink(missing_ok=True)
    return CompactionResult(len(run_ids), int(bool(tables)), len(sources), tuple(corrupt))
