"""Every attempt at a run, and what it cost: one file of lines for each process that trained, kept for ever.

A line is a CRC-32 and a JSON object. A process appends to its own file only, so nothing is torn by others; a line that a
kill cut short, or that a disk damaged, is counted as unreadable and takes no other with it.
"""

from __future__ import annotations

import json
import math
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
        with self._lock, files.guarded(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)


def entries(path: Path) -> Iterator[dict[str, Any] | None]:
    """The entries of a ledger file in order; None for a line that cannot be read."""
    data = files.read_bytes(path)
    for line in data.split(b"\n"):
        if line:
            yield _entry(line)


def _entry(line: bytes) -> dict[str, Any] | None:
    crc, _, text = line.partition(b" ")
    try:
        if len(crc) != 8 or int(crc, 16) != zlib.crc32(text):
            return None
        entry: dict[str, Any] = json.loads(text)
        numbers = [float(entry.get(name, 0.0)) for name in ("seconds", "flops")]
        runs_named = all(isinstance(run_id, str) for run_id in entry["run_ids"])
        usable = runs_named and isinstance(entry["event"], str) and all(map(math.isfinite, numbers))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return entry if usable else None


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
