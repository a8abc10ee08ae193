"""The chaos figures: python -m benchmarks.chaos points | kills [--seeds 10 --kills 1000] [--write docs/reliability.md]."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.chaos import kills, points
from benchmarks.chaos.sweeps import POINTS_SWEEP, TRAINED_SWEEP
from benchmarks.chaos.verdict import Verdict


def main() -> None:
    """Parse and run."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("what", choices=("points", "kills"))
    asked.add_argument("--stride", type=int, default=1, help="points: every n-th only")
    asked.add_argument("--seeds", type=int, default=10)
    asked.add_argument("--kills", type=int, default=1000, help="kills of all seeds together")
    asked.add_argument("--side-by-side", type=int, default=1, help="seeds at a time")
    asked.add_argument("--json", type=Path)
    given = asked.parse_args()
    scratch, begun = Path(tempfile.mkdtemp(prefix="chaos-")), time.monotonic()
    sweep = scratch / "sweep.toml"
    sweep.write_text(POINTS_SWEEP if given.what == "points" else TRAINED_SWEEP, encoding="utf-8")
    verdict = _points(sweep, scratch, given) if given.what == "points" else _kills(sweep, scratch, given)
    text = f"{verdict.kills} kills, {verdict.sweeps} sweeps completed: {verdict.lost} lost, {verdict.duplicated} duplicated, "
    print(f"{text}{verdict.different} different, {verdict.stuck} stuck; {time.monotonic() - begun:.0f} s")
    for note in verdict.notes[:20]:
        print(" ", note)
    if given.json:
        given.json.write_text(json.dumps(vars(verdict), indent=1) + "\n", encoding="utf-8")
    if not verdict.faults:
        shutil.rmtree(scratch)
    raise SystemExit(bool(verdict.faults))


def _points(sweep: Path, scratch: Path, given: argparse.Namespace) -> Verdict:
    want, verdict = points.reference(sweep, scratch), Verdict()
    found = points.enumerate_points(sweep, scratch)
    print(f"{len(found)} points: {', '.join(sorted({point.call for point in found}))}")
    for point in found[:: given.stride]:
        verdict.add(points.try_point(sweep, scratch, point, want))
    return verdict


def _kills(sweep: Path, scratch: Path, given: argparse.Namespace) -> Verdict:
    verdict = Verdict()
    with ThreadPoolExecutor(given.side_by_side) as pool:
        for found in pool.map(lambda seed: kills.torments(sweep, scratch, seed, -(-given.kills // given.seeds)), range(given.seeds)):
            verdict.add(found)
            print(f"so far: {verdict.kills} kills, {verdict.sweeps} sweeps, {verdict.faults} faults", flush=True)
    return verdict


if __name__ == "__main__":
    main()
