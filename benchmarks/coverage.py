"""Do intervals hold the truth as often as they say? `python benchmarks/coverage.py [--sweeps 400]
[--write docs/coverage.md]`.

Simulated sweeps of known laws, each fitted and bootstrapped as `scaling fit` does it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.simulated_sweeps import DESIGNS, SURFACES, trials

HEAD = """# Coverage: do the intervals hold the truth?

`make coverage` simulates {sweeps} isoFLOP sweeps of each law and size, fits each (huber-log,
delta 1e-3) and bootstraps it ({resamples} refits, the default kind: errors below 100 runs, pairs
from there on), and counts how often the interval that claims {ci:.0%} holds the true value.
Noise: {noise:.1%} of the loss, log-normal. Sizes reach 4 times the optimum to both sides, budgets
from 1e18 to 1e21 FLOPs; N*, D*, L* and D/N are asked at the largest budget and at 10 times as
much. The Monte Carlo error of a cell is {error:.1f} points. Laws: `chinchilla` with the constants
of Besiroglu et al. 2024, `asymmetric` with alpha .465 and beta .155, `kaplan` with those of
Kaplan et al. 2020, table 2.

"""


def main() -> None:
    """Print (or write) the table."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--sweeps", type=int, default=400)
    ask.add_argument("--resamples", type=int, default=200)
    ask.add_argument("--write", type=Path)
    given = ask.parse_args()
    ci, begun, lines = 0.9, time.perf_counter(), []
    for surface in SURFACES:
        for runs in DESIGNS:
            hits = list(trials(surface, runs, given.sweeps, given.resamples, ci))
            names = list(hits[0])
            cells = [f"{100 * np.mean([hit[name] for hit in hits]):.1f}" for name in names]
            if not lines:
                lines = [f"| law | runs | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
            lines.append(f"| {surface.name} | {runs} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    error = 100 * np.sqrt(ci * (1 - ci) / given.sweeps)
    head = HEAD.format(
        sweeps=given.sweeps, resamples=given.resamples, ci=ci, noise=SURFACES[0].noise, error=error
    )
    if given.write:
        given.write.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
