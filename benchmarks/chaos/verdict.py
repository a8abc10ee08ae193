"""What a kill may have done to a sweep: lost a run, trained one twice, counted one twice, or
changed a number.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from scaling.execute.ledger import entries
from scaling.store import run_files

CLOCK = ("seconds", "tokens_per_second")


@dataclass
class Verdict:
    """Counts over all kills; `notes` say of each fault where it was found."""

    kills: int = 0
    sweeps: int = 0
    lost: int = 0
    duplicated: int = 0
    different: int = 0
    stuck: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """All of them."""
        return self.lost + self.duplicated + self.different + self.stuck

    def add(self, other: Verdict) -> None:
        """Sum up."""
        for name in ("kills", "sweeps", "lost", "duplicated", "different", "stuck"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.notes += other.notes

    def fault(self, kind: str, note: str) -> None:
        """Count one."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.notes.append(f"{kind}: {note}")


def numbers(folder: Path) -> pd.DataFrame:
    """All rows but the clock's, in a fixed order, repeats included."""
    frame = run_files.load(folder)
    frame = frame[~frame["metric"].isin(CLOCK)].drop(columns=["seconds", "commit"])
    return frame.sort_values(
        ["run_id", "step", "split", "metric", "at", "value"], kind="stable"
    ).reset_index(drop=True)


@dataclass
class Witness:
    """Remembers, from one look to the next, which runs were finished and how often each had been
    begun by then.
    """

    folder: Path
    files: dict[str, str] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)

    def look(self, verdict: Verdict, where: str) -> set[str]:
        """Compare with the last look; returns the runs that are finished now."""
        starts = _starts(self.folder)
        merged = run_files.merged_ids(self.folder)
        for run_id, digest in self.files.items():
            path = self.folder / "runs" / f"{run_id}.parquet"
            if not path.exists() and run_id not in merged:
                verdict.fault("lost", f"{where}: finished run {run_id} is gone")
            elif path.exists() and _digest(path) != digest:
                verdict.fault(
                    "different", f"{where}: the file of finished run {run_id} has changed"
                )
            if starts[run_id] != self.begun[run_id]:
                verdict.fault("duplicated", f"{where}: finished run {run_id} was trained again")
        for path in run_files.run_files(self.folder):
            self.files.setdefault(path.stem, _digest(path))
            self.begun.setdefault(path.stem, starts[path.stem])
        return set(self.files)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _starts(folder: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for path in (folder / "ledger").glob("*.jsonl"):
        for entry in entries(path):
            if entry is not None and entry.event == "started":
                found.update(entry.run_ids)
    return found


def judge(folder: Path, reference: pd.DataFrame, verdict: Verdict, where: str) -> None:
    """Compare a completed sweep with an undisturbed one."""
    verdict.sweeps += 1
    found: Any = numbers(folder)
    missing = set(reference["run_id"]) - set(found["run_id"])
    for run_id in sorted(missing):
        verdict.fault("lost", f"{where}: run {run_id} has no rows")
    key = ["run_id", "step", "split", "metric", "at"]
    for run_id in sorted(set(found.loc[found.duplicated(key), "run_id"])):
        verdict.fault("duplicated", f"{where}: run {run_id} has rows twice")
    once = found.drop_duplicates(key).reset_index(drop=True)
    for run_id in sorted(set(reference["run_id"]) - missing):
        want, got = (
            frame[frame["run_id"] == run_id].reset_index(drop=True) for frame in (reference, once)
        )
        if not want.equals(got):
            verdict.fault("different", f"{where}: run {run_id} has other numbers than undisturbed")
