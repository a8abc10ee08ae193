"""A sweep of 100,000 runs: seconds and memory to plan it, to find that all is done, to say how it
stands, and to read it.

python -m benchmarks.scale [--runs 100000] [--keep DIR]; the runs are simulated, and their files
merged as the sweep goes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEP = """
name = "scale"
seeds = [{seeds}]

[design]
kind = "grid"
sizes = [{sizes}]
tokens = [{tokens}]

[base.task]
kind = "synthetic"
n_facts = 64
seq_len = 60

[evals]
points = 3
"""


READ = """
import json, sys
from pathlib import Path
from scaling.points.run_tables import points
from scaling.store import run_files
frame = run_files.load(Path(sys.argv[1]))
print(json.dumps({"rows": len(frame), "points": len(points(frame))}))
"""


def sweep_file(path: Path, runs: int) -> None:
    """20 sizes, 50 numbers of tokens, and as many seeds as it takes."""
    sizes = ", ".join(f"{1e6 * 1.25**i:.0f}" for i in range(20))
    tokens = ", ".join(f"{1e9 * 1.1**i:.0f}" for i in range(50))
    path.write_text(
        SWEEP.format(seeds=", ".join(map(str, range(runs // 1000))), sizes=sizes, tokens=tokens),
        encoding="utf-8",
    )


def timed(*arguments: object) -> tuple[float, float, float, str]:
    """(seconds, of them seconds of a processor, peak GiB, stdout) of a command; the command as a
    user calls it, from its start.
    """
    begin = time.monotonic()
    with subprocess.Popen(
        [
            sys.executable,
            *(["-m", "scaling"] if arguments[0] != "-c" else []),
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, code, usage = _wait(process)
    if code not in (0, 3 << 8):
        raise RuntimeError(f"{arguments} ended with {code}")
    cpu = usage.ru_utime + usage.ru_stime
    return time.monotonic() - begin, cpu, usage.ru_maxrss / 2**20, said


def _wait(process: subprocess.Popen[str]) -> tuple[int, int, resource.struct_rusage]:
    import os

    pid, code, usage = os.wait4(process.pid, 0)
    process.returncode = code
    return pid, code, usage


def main() -> None:
    """Parse, run, print a table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--runs", type=int, default=100_000)
    asked.add_argument("--keep", type=Path)
    given = asked.parse_args()
    scratch = given.keep or Path(tempfile.mkdtemp(prefix="scale-"))
    scratch.mkdir(parents=True, exist_ok=True)
    sweep, folder = scratch / "scale.toml", scratch / "scale"
    sweep_file(sweep, given.runs)
    law = ("--simulate", "published:hoffmann2022")
    steps = {
        "make it": ("run", sweep, "--out", folder, *law, "--json"),
        "merge the rest": ("results", "compact", folder, "--json"),
        "plan": ("plan", sweep, "--no-probe", "--json"),
        "resume (all is done)": ("run", sweep, "--out", folder, *law, "--json"),
        "status": ("status", folder, "--json"),
        "check every file": ("results", "check", folder, "--json"),
        "read all rows as points": ("-c", READ, folder),
    }
    if (folder / "plan.json").exists():  # made before, with --keep
        del steps["make it"]
    print("| step | seconds | CPU seconds | peak GiB |\n|---|---|---|---|")
    for name, command in steps.items():
        seconds, cpu, peak, said = timed(*command)
        json.loads(said)
        print(f"| {name} | {seconds:.1f} | {cpu:.1f} | {peak:.2f} |", flush=True)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(
        f"\n{given.runs:,} runs, {size / 2**20:.0f} MiB in "
        f"{sum(path.is_file() for path in folder.rglob('*'))} files"
    )


if __name__ == "__main__":
    main()
