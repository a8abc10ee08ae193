"""What a sweep survives: python -m benchmarks.chaos [points kills flips reads errors].

Prints a table: what was done to a sweep's folder how often, and what came of it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos import errors, flips, kills, points, reads
from benchmarks.chaos.sweeps import FILES_SWEEP, POINTS_SWEEP, TRAINED_SWEEP
from benchmarks.chaos.verdict import Verdict, numbers
from scaling.config.sweep_file import load_sweep
from scaling.execute.prepare_folder import origin
from scaling.execute.sweep_folder import SweepFolder
from scaling.plan import plan


@dataclass
class Result:
    """What was done, and each fault in a line."""

    done: str
    looked_for: str
    faults: list[str] = field(default_factory=list)


def crash_points(scratch: Path, given: argparse.Namespace) -> Result:
    """SIGKILL at each call that touches the folder."""
    sweep = _sweep(scratch, POINTS_SWEEP)
    want, verdict = points.reference(sweep, scratch), Verdict()
    chosen = points.enumerate_points(sweep, scratch)[:: given.stride]
    for point in chosen:
        verdict.add(points.try_point(sweep, scratch, point, want))
    done = f"{len(chosen)} crash points, {verdict.sweeps} sweeps completed"
    return Result(done, "lost, duplicated, different, stuck", verdict.notes)


def random_kills(scratch: Path, given: argparse.Namespace) -> Result:
    """SIGKILL of the coordinator, a worker or everything, at random times."""
    sweep, verdict = _sweep(scratch, TRAINED_SWEEP), Verdict()
    each, want = -(-given.kills // given.seeds), kills.undisturbed(sweep, scratch / "undisturbed")
    with ThreadPoolExecutor(given.side_by_side) as pool:
        for part in pool.map(
            lambda seed: kills.torments(sweep, scratch, want, seed, each), range(given.seeds)
        ):
            verdict.add(part)
    done = f"{verdict.kills} kills, {verdict.sweeps} sweeps completed"
    return Result(done, "lost, duplicated, different, stuck", verdict.notes)


def flipped_bits(scratch: Path, given: argparse.Namespace) -> Result:
    """One bit of one byte of a random file."""
    folder = scratch / "out"
    with flips.whole_sweep(_sweep(scratch, FILES_SWEEP), folder):
        want, chance = numbers(folder), random.Random(0)
        faults = [text for _ in range(given.flips) if (text := flips.flip(folder, chance, want))]
        count = sum(path.is_file() for path in folder.rglob("*"))
    return Result(f"{given.flips} bits in {count} files", "unnoticed, changing a result", faults)


def reads_during_writes(scratch: Path, given: argparse.Namespace) -> Result:
    """Reads of a folder in which runs are published and compacted without a pause."""
    loaded = load_sweep(_sweep(scratch, FILES_SWEEP))
    planned = plan(loaded, loaded.base.task, 16, points.LAW)
    SweepFolder(scratch / "out").write_plan(planned, origin(planned, points.LAW))
    faults = reads.read(scratch / "out", planned, given.reads)
    return Result(f"{given.reads} reads", "failed, a run missing", faults)


def file_errors(scratch: Path, given: argparse.Namespace) -> Result:
    """Errors of the file system at calls on own files."""
    sweep = _sweep(scratch, FILES_SWEEP)
    count, faults = errors.inject(sweep, scratch, given.errors)
    return Result(f"{count} errors", "traceback, good file set aside, run retrained", faults)


FAULTS: dict[str, Callable[[Path, argparse.Namespace], Result]] = {
    "points": crash_points,
    "kills": random_kills,
    "flips": flipped_bits,
    "reads": reads_during_writes,
    "errors": file_errors,
}


def _sweep(scratch: Path, text: str) -> Path:
    path = scratch / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return path


def main() -> None:
    """Parse, run, print the table; exit 1 where there is a fault, whose folder is then kept."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("kinds", nargs="*", help=" ".join(FAULTS))
    asked.add_argument("--stride", type=int, default=1, help="points: every n-th only")
    asked.add_argument("--seeds", type=int, default=2)
    asked.add_argument("--kills", type=int, default=100, help="of all seeds together")
    asked.add_argument("--side-by-side", type=int, default=1, help="seeds at a time")
    asked.add_argument("--flips", type=int, default=1000)
    asked.add_argument("--errors", type=int, default=500)
    asked.add_argument("--reads", type=int, default=10_000)
    given = asked.parse_args()
    unknown = set(given.kinds) - FAULTS.keys()
    if unknown:
        asked.error(f"unknown: {', '.join(sorted(unknown))}")
    print("| kind | done | looked for | faults | seconds |\n|---|---|---|---|---|", flush=True)
    faults: list[str] = []
    for name in given.kinds or FAULTS:
        scratch, began = Path(tempfile.mkdtemp(prefix=f"chaos-{name}-")), time.monotonic()
        result = FAULTS[name](scratch, given)
        seconds = time.monotonic() - began
        cells = (name, result.done, result.looked_for, len(result.faults), f"{seconds:.0f}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        if not result.faults:
            shutil.rmtree(scratch)
        faults += [f"{name}: {text}" for text in result.faults[:20]]
    print(*faults, sep="\n")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
