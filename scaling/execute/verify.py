"""Every file of a sweep's folder against what was written: checksums, manifests, CRCs of lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scaling import files
from scaling.errors import ScalingError
from scaling.execute.attempts import entries
from scaling.store import run_files

State = Literal["whole", "corrupt", "no_checksum"]
SKIPPED = ("damaged", "logs", "tracking")  # no result depends on them
SUMS = "SHA256SUMS"
CHECKED = (".parquet", ".json", ".txt", ".toml", ".jsonl")


@dataclass(frozen=True)
class FileCheck:
    """A file, relative to the folder, and what is known of it."""

    path: str
    state: State
    reason: str = ""


def inspect(folder: Path) -> list[FileCheck]:
    """Check every file. Raises ScalingError when there is no such folder, DiskError."""
    if not folder.is_dir():
        raise ScalingError(
            "no such folder", where=str(folder), remedy="name a folder made by `scaling run`"
        )
    checks = []
    sums = dict(_sums(folder))
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in SKIPPED or path.name.endswith((".tmp", ".lock", ".damaged")):
            continue
        if path.is_file():
            if path.stat().st_size:
                checks.append(_check(path, str(name), sums))
        elif path.suffix in CHECKED or path.name == SUMS:
            checks.append(FileCheck(str(name), "corrupt", files.NOT_REGULAR))
    missing = [name for name in sums if not (folder / name).exists()]
    return checks + [FileCheck(name, "corrupt", "it is missing") for name in missing]


def _check(path: Path, name: str, sums: dict[str, str]) -> FileCheck:
    is_in_sums, problem = name in sums, ""
    try:
        if is_in_sums:
            is_whole = hashlib.sha256(files.read_bytes(path)).hexdigest() == sums[name]
            problem = "" if is_whole else files.CHANGED
        elif path.parent.name == "ledger":
            bad = sum(entry is None for entry in entries(path))
            problem = f"{bad} lines are not what was written" if bad else ""
        else:
            is_run = path.parent.name == run_files.RUNS and path.suffix == ".parquet"
            if is_run:
                run_files.check_run(run_files.read_parquet(path), path)
            if not files.check_file(path):
                if path.suffix == ".parquet" and not is_run:
                    run_files.read_parquet(path)
                if path.suffix == ".json":
                    files.read_json(path)
                reason = "written by an older version, or by hand"
                return FileCheck(name, "no_checksum", reason)
    except files.DiskError:
        raise
    except (files.ChecksumError, ScalingError) as error:
        problem = error.what if isinstance(error, ScalingError) else str(error)
    except FileNotFoundError:
        return FileCheck(name, "whole", "it was replaced meanwhile")
    return FileCheck(name, "corrupt" if problem else "whole", problem)


def _sums(folder: Path) -> Iterator[tuple[str, str]]:
    """(file, SHA-256) of what has no checksum of its own: reports, shards of checkpoints."""
    for path in folder.rglob(SUMS):
        try:
            text = files.read_bytes(path).decode("utf-8", errors="replace")
        except (files.ChecksumError, FileNotFoundError):
            continue  # `inspect` names what is not a regular file
        pairs = (line.partition("  ")[::2] for line in text.splitlines())
        yield from _below(folder, path.parent, ((name, digest) for digest, name in pairs))
    for path in folder.glob("checkpoints/*.sharded/*/manifest.json"):
        try:
            manifest = json.loads(files.read_bytes(path))
        except (ValueError, RecursionError, files.ChecksumError, FileNotFoundError):
            continue  # its files then have no sums: a reader of the checkpoint rejects it
        if isinstance(manifest, dict):
            pairs = ((str(name), str(digest)) for name, digest in manifest.items())
            yield from _below(folder, path.parent, pairs)


def _below(folder: Path, root: Path, sums: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, digest in sums:
        is_inside = name and not Path(name).is_absolute() and ".." not in Path(name).parts
        if is_inside and len(digest) == 64:
            yield str((root / name).relative_to(folder)), digest
