"""How much of its pace a run keeps when its worker, or everything, is killed every 7 seconds:
python -m benchmarks.chaos.goodput.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.chaos.kills import kill, start
from benchmarks.chaos.sweeps import SHARED

SWEEP = f"""{SHARED}
[design]
kind = "grid"
sizes = ["{{size}}"]
tokens = ["{{tokens}}"]
"""
PERIOD = 7.0


def seconds(sweep: Path, folder: Path, target: str | None) -> tuple[float, int]:
    """(seconds from the first step to the end, kills) of a sweep of one run in one worker; `target`
    is what is killed.
    """
    environment = os.environ | {"NPROC": "1"}
    process, kills = start(sweep, folder, environment), 0
    while not any(folder.glob("leases/*.live.json")):
        time.sleep(0.05)
    begin = time.monotonic()
    while True:
        try:
            if process.wait(PERIOD if target else None) == 0:
                return time.monotonic() - begin, kills
            raise RuntimeError("the sweep failed")
        except subprocess.TimeoutExpired:
            assert target is not None
            kills += kill(process, target, random.Random(0))
            if process.poll() is not None:
                process = start(sweep, folder, environment)


def main() -> None:
    """Parse, run, print ratios."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--size", default="50k")
    asked.add_argument("--tokens", default="8M")
    given = asked.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="goodput-"))
    sweep = scratch / "sweep.toml"
    sweep.write_text(SWEEP.format(size=given.size, tokens=given.tokens), encoding="utf-8")
    print("| killed every 7 s | seconds | kills | goodput |\n|---|---|---|---|")
    seconds(sweep, scratch / "warm", None)  # compiled once
    undisturbed = 0.0
    for name in (None, "worker", "everything"):
        took, count = seconds(sweep, scratch / str(name), name)
        undisturbed = undisturbed or took
        print(
            f"| {name or 'nothing'} | {took:.1f} | {count} | {undisturbed / took:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
