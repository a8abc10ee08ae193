"""Many run files become few: what 100,000 runs need to be read in seconds, and no promise is broken
on the way.

The merged file is on disk, verified, before the first single file goes. Killed in between, a run
stands in both, and the next merge removes the second copy.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scaling import files
from scaling.errors import ScalingError
from scaling.store import run_files
from scaling.store.rows import SCHEMA
from scaling.store.run_files import FACTS, RUNS_PER_FILE, RUNS_PER_GROUP

COMPACT_ABOVE = 4096  # single files above which a sweep merges them by itself


@dataclass(frozen=True)
class CompactionResult:
    """What a merge did: runs now in merged files, files written and removed, and what was corrupt
    and left where it was.
    """

    runs: int
    written: int
    removed: int
    corrupt: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Run:
    run_id: str
    rows: pa.Table
    facts: tuple[str, ...]


def compact(folder: Path, most: int | None = None) -> CompactionResult:
    """Merge the single files of `folder`, and merged files that are less than half full, into at
    most `most` files.

    The caller sees to it that no other process merges the same folder. Raises ScalingError (74).
    """
    small = [
        path
        for path in run_files.merged_files(folder)
        if len(run_files.index(path)) < RUNS_PER_FILE // 2
    ]
    loose = run_files.run_files(folder)
    if not loose and len(small) < 2:
        return CompactionResult(0, 0, 0)
    settled = run_files.merged_ids(folder) - {
        run_id for path in small for run_id in run_files.index(path)
    }
    copies, loose = (
        [path for path in loose if path.stem in settled],
        [path for path in loose if path.stem not in settled],
    )
    corrupt: list[str] = []
    written, runs, sources = 0, 0, [*copies]
    for part in itertools.islice(_parts([*small, *loose]), most):
        target, count = _write(folder, part, corrupt, sources)
        written, runs = written + (target is not None), runs + count
    removed = [path for path in sources if path.exists()]
    for path in removed:
        path.unlink(missing_ok=True)
    return CompactionResult(runs, written, len(removed), tuple(corrupt))


def _parts(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Files that together hold at most `RUNS_PER_FILE` runs."""
    part: list[Path] = []
    count = 0
    for path in paths:
        size = len(run_files.index(path)) if path.parent.name == run_files.MERGED else 1
        if part and count + size > RUNS_PER_FILE:
            yield part
            part, count = [], 0
        part.append(path)
        count += size
    if part:
        yield part


def _write(
    folder: Path, part: Sequence[Path], corrupt: list[str], sources: list[Path]
) -> tuple[Path | None, int]:
    """One merged file of the runs of `part`; what may go afterwards is added to `sources`."""
    known: dict[str, list[object]] = {}
    shared: dict[str, int] = {}
    used: list[Path] = []

    def write(path: Path) -> None:
        schema = SCHEMA.with_metadata({"scaling.schema": "1"})
        # a handle: Arrow takes no path that is not UTF-8
        with (
            open(path, "wb") as handle,
            pq.ParquetWriter(
                handle, schema, compression="zstd", write_page_checksum=True
            ) as writer,
        ):
            for group in _groups(_runs(part, corrupt, used), known):
                for run in group:
                    facts = [shared.setdefault(text, len(shared)) for text in run.facts]
                    known[run.run_id] = [run_files.rows_digest(run.rows), *facts]
                writer.write_table(pa.concat_tables([run.rows for run in group]).cast(schema))
            text = json.dumps({"shared": list(shared), "runs": known})
            writer.add_key_value_metadata(
                {run_files.INDEX.decode(): text, run_files.CHECKSUM_KEY: files.PLACEHOLDER}
            )
        files.append_checksum(path)

    name = hashlib.sha256(os.fsencode("\n".join(sorted(path.name for path in part)))).hexdigest()[
        :16
    ]
    target = folder / run_files.MERGED / f"{name}.parquet"
    files.write_atomically(target, write)
    files.check_file(target)
    if not known:
        target.unlink()
        return None, 0
    sources += [path for path in used if path != target]
    return target, len(known)


def _runs(part: Sequence[Path], corrupt: list[str], used: list[Path]) -> Iterator[_Run]:
    """The runs of single and merged files; a corrupt file is named and stays where it is."""
    for path in part:
        try:
            if path.parent.name == run_files.MERGED:
                yield from _of_merged(path)
            else:
                yield _of_single(path)
            used.append(path)
        except ScalingError as error:
            corrupt.append(f"{path.parent.name}/{path.name}: {error.what}")


def _of_single(path: Path) -> _Run:
    table = run_files.read_parquet(path)
    rows = run_files.check_run(table, path)
    metadata = table.schema.metadata or {}
    return _Run(path.stem, rows, tuple(metadata.get(name, b"{}").decode() for name in FACTS))


def _of_merged(path: Path) -> Iterator[_Run]:
    known = run_files.index(path)
    table = run_files.read_parquet(path).select(SCHEMA.names).replace_schema_metadata(None)
    for run_id, rows in run_files.by_run(table):
        yield _Run(run_id, rows, tuple(known[run_id]["facts"]))


def _groups(runs: Iterator[_Run], known: dict[str, list[object]]) -> Iterator[list[_Run]]:
    """Runs in row groups, each run once and whole."""
    group: list[_Run] = []
    for run in runs:
        if run.run_id in known or any(run.run_id == other.run_id for other in group):
            continue
        group.append(run)
        if len(group) == RUNS_PER_GROUP:
            yield group
            group = []
    if group:
        yield group


def recover_runs(folder: Path, path: Path) -> int:
    """Publish again, one by one, the runs of a corrupt merged file whose rows are provably whole;
    returns how many.
    """
    known, count = run_files.index(path), 0
    for run_id, rows in run_files.recover_intact_runs(path):
        facts = dict(zip(FACTS, (text.encode() for text in known[run_id]["facts"]), strict=True))
        count += run_files.write_run(
            folder, rows.replace_schema_metadata({b"scaling.schema": b"1", **facts})
        )
    return count
