"""The chaos figures: python -m benchmarks.chaos points | kills | flips | reads | errors."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.chaos import errors, flips, kills, points, reads
from benchmarks.chaos.sweeps import FILES_SWEEP, POINTS_SWEEP, TRAINED_SWEEP
from benchmarks.chaos.verdict import Verdict, numbers
from scaling.config.sweep_file import load_sweep
from scaling.execute.session import origin
from scaling.execute.sweep_folder import SweepFolder
from scaling.plan import plan


def main() -> None:
    """Parse and run."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("what", choices=("points", "kills", "flips", "reads", "errors"))
    asked.add_argument("--stride", type=int, default=1, help="points: every n-th only")
    asked.add_argument("--seeds", type=int, default=10)
    asked.add_argument("--kills", type=int, default=1000, help="kills of all seeds together")
    asked.add_argument("--side-by-side", type=int, default=1, help="seeds at a time")
    asked.add_argument("--flips", type=int, default=1000)
    asked.add_argument("--errors", type=int, default=500)
    asked.add_argument("--reads", type=int, default=100_000)
    asked.add_argument("--json", type=Path)
    given = asked.parse_args()
    scratch, begun = Path(tempfile.mkdtemp(prefix="chaos-")), time.monotonic()
    sweep = scratch / "sweep.toml"
    if given.what == "errors":
        sweep.write_text(FILES_SWEEP, encoding="utf-8")
        count, wrong = errors.inject(sweep, scratch, given.errors)
        print(
            f"{count} errors injected into own files: {len(wrong)} with a traceback, a good file set"
            f" aside or a run trained again; {time.monotonic() - begun:.0f} s"
        )
        for text in wrong[:20]:
            print(" ", text)
        raise SystemExit(bool(wrong))
    if given.what in ("flips", "reads"):
        raise SystemExit(_others(scratch, given, begun))
    sweep.write_text(POINTS_SWEEP if given.what == "points" else TRAINED_SWEEP, encoding="utf-8")
    verdict = (
        _points(sweep, scratch, given) if given.what == "points" else _kills(sweep, scratch, given)
    )
    text = f"{verdict.kills} kills, {verdict.sweeps} sweeps completed: {verdict.lost} lost, {verdict.duplicated} duplicated, "
    print(
        f"{text}{verdict.different} different, {verdict.stuck} stuck; {time.monotonic() - begun:.0f} s"
    )
    for note in verdict.notes[:20]:
        print(" ", note)
    if given.json:
        given.json.write_text(json.dumps(vars(verdict), indent=1) + "\n", encoding="utf-8")
    if not verdict.faults:
        shutil.rmtree(scratch)
    raise SystemExit(bool(verdict.faults))


def _others(scratch: Path, given: argparse.Namespace, begun: float) -> bool:
    """Flipped bits, or readers beside a writer; says whether anything was wrong."""
    sweep = scratch / "sweep.toml"
    sweep.write_text(FILES_SWEEP, encoding="utf-8")
    if given.what == "flips":
        with flips.whole_sweep(sweep, scratch / "out"):
            want, chance = numbers(scratch / "out"), random.Random(0)
            wrong = [
                said
                for _ in range(given.flips)
                if (said := flips.flip(scratch / "out", chance, want))
            ]
        done, count = given.flips, sum(path.is_file() for path in (scratch / "out").rglob("*"))
        print(
            f"{done} flips in {count} files: {len(wrong)} unnoticed or changing a result; {time.monotonic() - begun:.0f} s"
        )
    else:
        loaded = load_sweep(sweep)
        planned = plan(loaded, loaded.base.task, 16, points.LAW)
        SweepFolder(scratch / "out").write_plan(planned, origin(planned, points.LAW))
        done, wrong = reads.read(scratch / "out", planned, given.reads)
        print(
            f"{done} reads beside a writer: {len(wrong)} failed; {time.monotonic() - begun:.0f} s"
        )
    for text in wrong[:20]:
        print(" ", text)
    return bool(wrong)


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
        for found in pool.map(
            lambda seed: kills.torments(sweep, scratch, seed, -(-given.kills // given.seeds)),
            range(given.seeds),
        ):
            verdict.add(found)
            print(
                f"so far: {verdict.kills} kills, {verdict.sweeps} sweeps, {verdict.faults} faults",
                flush=True,
            )
    return verdict


if __name__ == "__main__":
    main()
