"""Every file of a sweep's folder against what was written: checksums, manifests, CRCs of lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scaling import files
from scaling.config.sweep_file import read_toml
from scaling.errors import ScalingError
from scaling.execute.ledger import entries
from scaling.store import run_files

State = Literal["whole", "corrupt", "no_checksum"]
SKIPPED = ("damaged", "logs", "report", "tracking")  # no result depends on them
CHECKED = (".parquet", ".json", ".txt", ".toml", ".jsonl")
ALL, PUBLISHED = ("**/*",), ("runs/[!.]*.parquet", "merged/[!.]*.parquet", "failures/[!.]*.txt")


@dataclass(frozen=True)
class FileCheck:
    """A file, relative to the folder, and what is known of it."""

    path: str
    state: State
    reason: str = ""


def inspect(folder: Path, patterns: Sequence[str] = ALL) -> list[FileCheck]:
    """Check every file, or those that are called so. Every byte is read once.

    Raises ScalingError when there is no such folder, NewerSchemaError, DiskError.
    """
    if not files.retry(folder, folder.is_dir):
        raise ScalingError(
            "no such folder", where=folder, remedy="name a folder made by `scaling run`"
        )
    checks, sums = [], _sums(folder) if patterns is ALL else {}
    listed = files.retry(
        folder, lambda: sorted({p for each in patterns for p in folder.glob(each)})
    )
    for path in listed:
        name = path.relative_to(folder)
        if name.parts[0] in SKIPPED or path.name.endswith((".tmp", ".lock", ".damaged")):
            continue
        if path.suffix in CHECKED or (path.is_file() and path.stat().st_size):
            checks += _check(path, str(name), sums.get(str(name)))
    written = ("sweep.toml", "plan.json") if patterns is ALL and run_files.has_runs(folder) else ()
    missing = [name for name in (*written, *sums) if not (folder / name).exists()]
    return checks + [FileCheck(name, "corrupt", "it is missing") for name in missing]


def _check(path: Path, name: str, expected: str | None) -> list[FileCheck]:
    """What is known of a file; nothing of one that was removed meanwhile."""
    problem, has_checksum = "", True
    try:
        if expected is not None:
            is_whole = hashlib.sha256(files.read_bytes(path)).hexdigest() == expected
            problem = "" if is_whole else files.CHANGED
        elif path.parent.name == "ledger":
            bad = sum(entry is None for entry in entries(path))
            problem = f"lines that are not what was written: {bad}" if bad else ""
        else:
            has_checksum = files.check_file(path)
            if path.suffix == ".json":
                files.read_json(path)
            elif path.suffix == ".toml" and not has_checksum:  # a part of it has none
                read_toml(path)
            elif path.suffix == ".parquet" and path.parent.name == run_files.RUNS:
                run_files.read_published(path)
            elif path.suffix == ".parquet" and not has_checksum:
                is_merged = path.parent.name == run_files.MERGED
                (run_files.read_published if is_merged else run_files.read_parquet)(path)
    except (files.DiskError, run_files.NewerSchemaError):
        raise
    except (files.ChecksumError, ScalingError, FileNotFoundError) as error:
        if not files.exists(path):
            return []
        problem = error.what if isinstance(error, ScalingError) else str(error)
    if problem or has_checksum:
        return [FileCheck(name, "corrupt" if problem else "whole", problem)]
    return [FileCheck(name, "no_checksum", "written by an older version, or by hand")]


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 by file, of what has no checksum of its own: the shards of checkpoints."""
    sums = {}
    for path in folder.glob("*/*.sharded/*/manifest.json"):
        try:
            manifest = dict(json.loads(files.read_bytes(path)).items())
        except (ValueError, AttributeError, RecursionError, files.ChecksumError, FileNotFoundError):
            continue  # its files then have no sums: a reader of the checkpoint rejects it
        for name, digest in manifest.items():
            parts = Path(name).parts
            if parts and parts[0] != "/" and ".." not in parts and len(str(digest)) == 64:
                sums[str((path.parent / name).relative_to(folder))] = str(digest)
    return sums
