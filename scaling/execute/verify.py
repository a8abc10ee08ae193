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
SKIPPED = (
    "damaged",
    "logs",
    "tracking",
)  # set aside already, and what libraries say and write: no result rests on it
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class FileCheck:
    """A file, relative to the folder, and what is known of it."""

    path: str
    state: State
    reason: str = ""


def inspect(folder: Path) -> list[FileCheck]:
    """Look at every file. Raises ScalingError when there is no such folder."""
    if not folder.is_dir():
        raise ScalingError(
            "no such folder", where=str(folder), remedy="name a folder made by `scaling run`"
        )
    found = []
    sums = dict(_sums(folder))
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file():
            if (
                path.suffix in (".parquet", ".json", ".txt", ".toml", ".jsonl") or path.name == SUMS
            ) and name.parts[0] not in SKIPPED:
                found.append(FileCheck(str(name), "corrupt", files.NOT_REGULAR))
            continue
        if (
            name.parts[0] in SKIPPED
            or path.name.endswith((".tmp", ".lock", ".damaged"))
            or path.stat().st_size == 0
        ):
            continue
        found.append(_look(path, str(name), sums))
    missing = [
        FileCheck(name, "corrupt", "it is missing") for name in sums if not (folder / name).exists()
    ]
    return found + missing


def _look(path: Path, name: str, sums: dict[str, str]) -> FileCheck:
    try:
        if name in sums:
            whole = hashlib.sha256(path.read_bytes()).hexdigest() == sums[name]
            return FileCheck(name, "whole" if whole else "corrupt", "" if whole else files.CHANGED)
        if path.parent.name == "ledger":
            bad = sum(entry is None for entry in entries(path))
            return FileCheck(
                name,
                "corrupt" if bad else "whole",
                f"{bad} lines are not what was written" if bad else "",
            )
        if path.parent.name == run_files.RUNS and path.suffix == ".parquet":
            run_files.check_run(run_files.read_parquet(path), path)
        if files.check_file(path):
            return FileCheck(name, "whole")
        if path.suffix == ".parquet":
            run_files.read_parquet(path)
        if path.suffix == ".json":
            files.read_json(path)
        return FileCheck(name, "no_checksum", "written by an older version, or by hand")
    except (files.ChecksumError, ScalingError) as error:
        return FileCheck(
            name, "corrupt", error.what if isinstance(error, ScalingError) else str(error)
        )
    except FileNotFoundError:
        return FileCheck(name, "whole", "it was replaced meanwhile")
    except PermissionError as error:
        raise files.disk_error(error, path, "read") from None


def _sums(folder: Path) -> Iterator[tuple[str, str]]:
    """(file, SHA-256) from the lists that list what carries no checksum of its own: reports, and shards of checkpoints."""
    for path in folder.rglob(SUMS):
        try:
            text = files.read_bytes(path).decode("utf-8", errors="replace")
        except (files.ChecksumError, FileNotFoundError):
            continue  # `inspect` names what is not a regular file
        for line in text.splitlines():
            digest, _, name = line.partition("  ")
            if name and len(digest) == 64 and not Path(name).is_absolute() and ".." not in name:
                yield str((path.parent / name).relative_to(folder)), digest
    for path in folder.glob("checkpoints/*.sharded/*/manifest.json"):
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue  # its files then have no sums: a reader of the checkpoint rejects it
        for name, digest in held.items():
            yield str((path.parent / name).relative_to(folder)), str(digest)
