"""Trains every study's sweep, reports on it, and prints each expected result with what was
measured: `make lab`.

`python benchmarks/laboratory.py [NAME ...]` takes some of them only; `--again` reads existing
results
and trains nothing. A sweep that was killed resumes. The last columns say whether the expectation
holds, and how long the sweep took with its report.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
SWEEPS = (
    "overtrain",
    "attention",
    "positions",
    "norms",
    "context",
    "sampling",
    "emergence",
    "grokking",
    "grokking-laws",
    "induction",
    "regression",
    "kaplan",
    "kaplan-d",
)


def scaling(*words: str) -> None:
    """A command of the program; what it says goes to a log beside the results."""
    with open(ROOT / "results" / "laboratory.log", "a", encoding="utf-8") as log:
        done = subprocess.run(
            [sys.executable, "-m", "scaling", *words], cwd=ROOT, stdout=log, stderr=log, check=False
        )
    if done.returncode:
        raise SystemExit(
            f"scaling {' '.join(words)} ended with {done.returncode}: see results/laboratory.log"
        )


def claims(folder: Path) -> Iterator[dict[str, str]]:
    """The rows of all tables of expected results of a report."""
    for path in sorted((folder / "report" / "tables").glob("expected-*.csv")):
        with open(path, encoding="utf-8", newline="") as handle:
            yield from csv.DictReader(handle)


def main() -> None:
    """Train, report, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(SWEEPS)}")
    parser.add_argument(
        "--again", action="store_true", help="report on what is there; train nothing"
    )
    asked = parser.parse_args()
    unknown = set(asked.names) - set(SWEEPS)
    if unknown:
        parser.error(f"no such sweep: {', '.join(sorted(unknown))}; there are {', '.join(SWEEPS)}")
    shown = Table(
        "sweep", "quantity", "expected", "measured", "holds", "seconds", title="The laboratory"
    )
    (ROOT / "results").mkdir(exist_ok=True)
    for name in asked.names or SWEEPS:
        begun, folder = time.monotonic(), f"results/{name}"
        if not asked.again:
            scaling("run", f"sweeps/{name}.toml", "--out", folder)
        scaling("report", folder)
        seconds = f"{time.monotonic() - begun:.0f}"
        for line in claims(ROOT / folder):
            shown.add_row(
                name, line["quantity"], line["expected"], line["measured"], line["holds"], seconds
            )
            name = seconds = ""
        shown.add_section()
    Console(width=180).print(shown)


if __name__ == "__main__":
    main()
