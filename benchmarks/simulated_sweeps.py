"""Simulated sweeps of a known law: how often do the intervals hold the truth? (Efron and Tibshirani
1993, section 14.3.)

An interval that claims 90 % is measured on sweeps whose law, noise and optimum are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from scaling.fit.bootstrap import bootstrap
from scaling.fit.document import estimates
from scaling.fit.estimate import estimate
from scaling.fit.frontier.frontier import Cost, Frontier
from scaling.fit.laws.laws import LAWS
from scaling.points.points import Points

BUDGETS = (1e18, 1e21)
SPREAD = 4.0  # sizes reach this many times the optimum to both sides
BEYOND = 10.0  # predictions are judged at the largest budget and this many times beyond


@dataclass(frozen=True)
class Surface:
    """A law with its parameters, and the noise of a run's log loss."""

    name: str
    law: str
    values: Mapping[str, float]
    noise: float = 0.005

    def frontier(self) -> Frontier:
        """The true optimum at C = 6 N D."""
        return LAWS[self.law].frontier(self.values, Cost())


SURFACES = (
    Surface(
        "chinchilla",
        "chinchilla",
        {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
    ),
    Surface(
        "asymmetric",
        "chinchilla",
        {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.465, "beta": 0.155},
    ),
    Surface("kaplan", "kaplan", {"alpha_N": 0.076, "alpha_D": 0.103, "N_c": 6.4e13, "D_c": 1.8e13}),
)
DESIGNS = {20: (4, 5), 50: (5, 10), 200: (10, 20)}  # runs: (budgets, sizes of each)


def sweep(surface: Surface, runs: int, rng: np.random.Generator) -> Points:
    """An isoFLOP sweep about the surface's own optimum, with log-normal noise."""
    count, sizes = DESIGNS[runs]
    c = np.repeat(np.geomspace(*BUDGETS, count), sizes)
    n = surface.frontier().n_star(c) * np.tile(np.geomspace(1 / SPREAD, SPREAD, sizes), count)
    d = c / (6 * n)
    law = LAWS[surface.law]
    log_loss = law.log_predict(law.theta(surface.values), {"N": n, "D": d})
    return Points(
        loss=np.exp(log_loss + surface.noise * rng.standard_normal(len(n))), n=n, d=d, c=c
    )


def answers(found: Frontier) -> dict[str, np.ndarray]:
    """What is asked of a frontier: exponents, and N*, D*, L*, D/N at and beyond
    the largest budget.
    """
    asked = {"a": found.a, "b": found.b}
    for label, flops in (("", BUDGETS[1]), (" at 10x", BEYOND * BUDGETS[1])):
        n, d, loss = found.n_star(flops), found.d_star(flops), found.loss(flops)
        assert loss is not None
        asked |= {f"N*{label}": n, f"D*{label}": d, f"L*{label}": loss, f"D/N{label}": d / n}
    return asked


def trials(
    surface: Surface, runs: int, count: int, resamples: int, ci: float, seed: int = 0
) -> Iterator[dict[str, bool]]:
    """For each of `count` simulated sweeps, which intervals hold the truth."""
    truth = {name: float(value) for name, value in answers(surface.frontier()).items()}
    law = LAWS[surface.law]
    for trial in range(count):
        points = sweep(surface, runs, np.random.default_rng([seed, trial]))
        found = estimate(law, points)
        draws = bootstrap(found, resamples, trial)
        values = {name: np.asarray(value) for name, value in found.values.items()}
        here, drawn = (
            answers(LAWS[law.name].frontier(values, Cost())),
            answers(LAWS[law.name].frontier(law.values(draws.theta), Cost())),
        )
        ends = estimates({name: here[name] for name in truth}, drawn, ci)
        yield {
            name: bool((ends[name].lo or -np.inf) <= value <= (ends[name].hi or np.inf))
            for name, value in truth.items()
        }
