"""Every attempt at a run, and what it cost: one file of lines for each process that trained, kept for ever.

A line is a CRC-32 and a JSON object. A process appends to its own file only, so nothing is torn by others; a line that a
kill cut short, or that a disk damaged, is counted as unreadable and takes no other with it.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaling import files


@dataclass
class AttemptSummary:
    """What the ledgers of a folder say: attempts by run, seconds of training (of all workers together), FLOPs kept and FLOPs
    spent, and lines that cannot be read.
    """

    attempts: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    flops: float = 0.0
    unreadable: int = 0


class Ledger:
    """The file of one process; safe to use from its threads."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self._lock = folder / "ledger" / f"{name}.jsonl", threading.Lock()

    def add(self, **entry: Any) -> None:
        """Append one entry; it survives the death of this process. Raises ScalingError (74)."""
        text = json.dumps(entry, allow_nan=False)
        line = (
            f"\n{zlib.crc32(text.encode()):08x} {text}\n".encode()
        )  # what was cut short before it stays a line of its own
        try:
            with self._lock:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                try:
                    os.write(descriptor, line)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise files.disk_error(error, self.path) from error


def entries(path: Path) -> Iterator[dict[str, Any] | None]:
    """The entries of a ledger file in order; None for a line that cannot be read."""
    try:
        data = path.read_bytes()
    except PermissionError as error:
        raise files.disk_error(error, path, "read") from None
    for line in data.split(b"\n"):
        if line:
            yield _entry(line)


def _entry(line: bytes) -> dict[str, Any] | None:
    crc, _, text = line.partition(b" ")
    try:
        whole = len(crc) == 8 and int(crc, 16) == zlib.crc32(text)
    except ValueError:
        return None
    entry: dict[str, Any] | None = json.loads(text) if whole else None
    return entry


def summarize(folder: Path) -> AttemptSummary:
    """The sum of all ledgers of a sweep's folder."""
    found = AttemptSummary()
    for path in files.list_files(folder / "ledger", ".jsonl"):
        for entry in entries(path):
            if entry is None:
                found.unreadable += 1
            elif entry["event"] == "started":
                found.attempts.update(entry["run_ids"])
            else:
                found.seconds += entry.get("seconds", 0.0)
                found.flops += entry.get("flops", 0.0)
                found.ended.update(f"{run_id} {entry['event']}" for run_id in entry["run_ids"])
    return found
