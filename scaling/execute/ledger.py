"""Every attempt at a run, and what it cost: one file of lines for each process that trained.

A line is a CRC-32 and a JSON object. A process appends to its own file only; a line that a kill cut
short, or that a disk corrupted, is counted as unreadable and takes no other with it.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from scaling import files


class LedgerEntry(BaseModel):
    """What happened to runs: `started`, or how they ended, with seconds and FLOPs of training."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    event: str
    run_ids: tuple[str, ...]
    seconds: float = 0.0
    flops: float = 0.0


@dataclass
class AttemptSummary:
    """What the ledgers of a folder say: attempts by run, seconds of training (of all workers
    together), FLOPs spent, and lines that cannot be read.
    """

    attempts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    flops: float = 0.0
    unreadable: int = 0


def add(path: Path, **entry: Any) -> None:
    """Append one entry to a process's file; it survives the death of the process. A folder that was
    moved away is not made again. Raises ScalingError (74).
    """
    text = json.dumps(entry, allow_nan=False)
    # what was cut short before it stays a line of its own
    line = f"\n{zlib.crc32(text.encode()):08x} {text}\n".encode()
    with contextlib.suppress(FileNotFoundError), files.as_disk_error(path):
        path.parent.mkdir(exist_ok=True)
        with open(path, "ab", buffering=0) as handle:
            handle.write(line)


def entries(path: Path) -> Iterator[LedgerEntry | None]:
    """The entries of a ledger file in order; None for a line that cannot be read."""
    for line in files.read_bytes(path).split(b"\n"):
        if not line:
            continue
        crc, _, text = line.partition(b" ")
        try:
            is_whole = len(crc) == 8 and int(crc, 16) == zlib.crc32(text)
            yield LedgerEntry.model_validate_json(text) if is_whole else None
        except (ValueError, ValidationError):
            yield None


def summarize(folder: Path) -> AttemptSummary:
    """The sum of all ledgers of a sweep's folder."""
    summary = AttemptSummary()
    for path in files.list_files(folder / "ledger", ".jsonl"):
        for entry in entries(path):
            if entry is None:
                summary.unreadable += 1
            elif entry.event == "started":
                summary.attempts.update(entry.run_ids)
            else:
                summary.seconds += entry.seconds
                summary.flops += entry.flops
    return summary
