"""Does the test of a difference between two sweeps hold its level, and what does it see? `python -m
benchmarks.compare [--pairs 200]`.

Simulated pairs of isoFLOP sweeps, each fitted and bootstrapped as `scaling fit` does it. Twins
follow one law: a 5 % test may call
5 % of them apart. Others differ: in the compute that one needs for the loss of the other, or in an
exponent.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from benchmarks.simulated_sweeps import DESIGNS, SURFACES, Surface
from benchmarks.twins import trials


def cheaper(surface: Surface, factor: float) -> Surface:
    """A sweep of the same law that needs `factor` times the compute for the same loss: both gaps
    shrink alike.
    """
    values = dict(surface.values)
    alpha, beta = values["alpha"], values["beta"]
    gap = factor ** (alpha * beta / (alpha + beta))  # L* - E falls as C^-gamma
    return replace(
        surface,
        name=f"needs {factor:g} times",
        values=values | {"A": values["A"] * gap, "B": values["B"] * gap},
    )


def steeper(surface: Surface, by: float) -> Surface:
    """The same law with a larger alpha, and as good at the middle of the budgets' sizes."""
    middle = float(surface.frontier().n_star(3e19))
    values = dict(surface.values)
    return replace(
        surface,
        name=f"alpha + {by:g}",
        values=values | {"alpha": values["alpha"] + by, "A": values["A"] * middle**by},
    )


def main() -> None:
    """Print the table."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument(
        "--pairs",
        type=int,
        default=200,
        help="pairs of equal twins; of pairs that differ a quarter as many",
    )
    ask.add_argument("--resamples", type=int, default=200)
    ask.add_argument("--runs", type=int, nargs="*", default=[*DESIGNS])
    given = ask.parse_args()
    begun = time.perf_counter()
    chinchilla, asymmetric = SURFACES[:2]
    pairs = [
        ("equal", chinchilla, chinchilla),
        ("equal, asymmetric", asymmetric, asymmetric),
        *(
            (other.name, chinchilla, other)
            for other in (
                cheaper(chinchilla, 0.8),
                cheaper(chinchilla, 0.5),
                steeper(chinchilla, 0.1),
            )
        ),
    ]
    print(
        "Share of pairs called apart at 5 %, each test by itself, then any of them after Holm; "
        "share: how often its 95 % interval holds the truth"
    )
    header = False
    for runs in given.runs:
        for name, one, two in pairs:
            count = given.pairs if one is two else max(1, given.pairs // 4)
            found = list(trials(one, two, runs, count, given.resamples))
            asked = [test["quantity"] for test in found[0]["tests"]]
            if not header:
                print(f"| pair | runs each | {' | '.join(asked)} | any, Holm | share holds |")
                print("|---" * (len(asked) + 4) + "|")
                header = True
            alone = [
                np.mean([pair["tests"][place]["p"] < pair["level"] for pair in found])
                for place in range(len(asked))
            ]
            any_of = np.mean([any(test["significant"] for test in pair["tests"]) for pair in found])
            cells = " | ".join(
                f"{100 * share:.1f}" for share in [*alone, any_of, _held(one, two, found)]
            )
            print(f"| {name} | {runs} | {cells} |", flush=True)
    print(
        f"Monte Carlo error of 5 %: {100 * np.sqrt(0.05 * 0.95 / given.pairs):.1f} points; "
        f"{time.perf_counter() - begun:.0f} s"
    )


def _held(one: Surface, two: Surface, found: list[dict]) -> float:
    """How often the interval of C_B / C_A at the largest budget holds the true share."""
    flops = found[0]["multipliers"]["two"]["at_top"]["flops"]
    truth = float(two.frontier().flops_of("L", float(one.frontier().loss(flops))) / flops)
    ends = [pair["multipliers"]["two"]["at_top"]["share"] for pair in found]
    return float(np.mean([(end["lo"] or 0) <= truth <= (end["hi"] or np.inf) for end in ends]))


if __name__ == "__main__":
    main()
