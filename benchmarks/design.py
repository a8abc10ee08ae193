"""What does a chosen design cost against an isoFLOP grid, at equal error of N*(C) at ten times the
largest budget trained?

    python -m benchmarks.design [--trials 60]

Simulated. The grid: 5 budgets over two decades, 7 sizes from a quarter to four times the optimum,
every run alone (cosine),
centred on the true optimum. The design: a cheap pilot, `estimate`, `designed` (what `scaling next`
runs), and a refit of all
runs, with the pilot's cost counted; no run is dearer than the grid's dearest. Both are fitted by
the same law and objective.
With prefixes the runs of one size share cooldown branches (20 %) and half of the variance of their
noise. "oracle" places the
same money by the true law. Cheap runs tell nearly as much as dear ones as long as the law is exact:
the pilots reach four, three
and a bit over two decades below the largest budget, and the last truth is one that the law misses
by 0.3 %. The factor at equal error is read off a line through (log cost, log RMSE) of three amounts
of money.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.simulated_sweeps import SURFACES, Surface
from scaling.fit.estimate import LawFit, estimate, refit
from scaling.fit.frontier.frontier import Cost
from scaling.fit.laws.laws import LAWS
from scaling.points.points import Points
from scaling.predict.design.law_model import RHO, LinearizedLaw, Runs
from scaling.predict.design.next_runs import candidates, designed

COOLDOWN = 0.2  # a branch's share of its own cost
LARGEST = 1e21
TARGET = 10 * LARGEST
PILOTS = {  # largest budget, decades, budgets, sizes of each
    "far": (
        LARGEST / 100,
        2.0,
        5,
        7,
    ),  # the grid again, two decades cheaper: cheapest where the law holds over four decades
    "middle": (LARGEST / 100, 1.0, 4, 7),
    "near": (LARGEST / 20, 1.0, 3, 5),
}
SHARES = (1 / 8, 1 / 5, 1 / 2.5)  # of the grid's cost, pilot included
OBJECTIVE = "mse-log"


@dataclass(frozen=True)
class Cells:
    """Runs to simulate: N, D, and the prefix that each branches off (m,)."""

    n: np.ndarray
    d: np.ndarray
    prefix: np.ndarray

    def cost(self, shared: bool) -> float:
        """FLOPs of all: alone, or the longest of each prefix and the cooldowns of the others."""
        price = 6 * self.n * self.d
        if not shared:
            return float(price.sum())
        longest = sum(price[self.prefix == label].max() for label in np.unique(self.prefix))
        return float(COOLDOWN * price.sum() + (1 - COOLDOWN) * longest)

    def runs(self, shared: bool) -> Runs:
        """The same as runs of a design."""
        prefix = self.prefix if shared else np.arange(len(self.n))
        return Runs(self.n, self.d, 6 * self.n * self.d, prefix)

    def joined(self, other: Cells) -> Cells:
        """These and others, which share no prefix with them."""
        prefix = np.concatenate([self.prefix, other.prefix + self.prefix.max() + 1])
        return Cells(np.concatenate([self.n, other.n]), np.concatenate([self.d, other.d]), prefix)


def isoflop(surface: Surface, largest: float, decades: float, budgets: int, sizes: int) -> Cells:
    """Budgets by sizes about the true optimum of each."""
    c = np.repeat(np.geomspace(largest / 10**decades, largest, budgets), sizes)
    n = surface.frontier().n_star(c) * np.tile(np.geomspace(0.25, 4, sizes), budgets)
    return Cells(n, c / (6 * n), np.arange(len(n)))


def pilot(surface: Surface, kind: str = "far") -> Cells:
    """A cheap grid whose budgets share their sizes, so that these can share prefixes."""
    largest, decades, budgets, sizes = PILOTS[kind]
    c = np.geomspace(largest / 10**decades, largest, budgets)
    best = surface.frontier().n_star(c)
    step = 16 ** (1 / (sizes - 1))
    ladder = best[0] / 4 * step ** np.arange(200)
    cells = [
        (n, flops / (6 * n), place)
        for flops, at in zip(c, best, strict=True)
        for place, n in enumerate(ladder)
        if at / 4.3 <= n <= at * 4.3
    ]
    return Cells(*(np.array(column) for column in zip(*cells, strict=True)))


@dataclass(frozen=True)
class Bent(Surface):
    """A truth that no law here holds: `bend` of the loss is added at both ends of the sizes,
    quadratically in log N.
    """

    bend: float = 0.0


TRUTHS = (
    *SURFACES,
    Bent("chinchilla, bent by 0.3 %", SURFACES[0].law, SURFACES[0].values, bend=0.003),
)


def log_loss(surface: Surface, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The noiseless log loss (m,)."""
    law = LAWS[surface.law]
    plain = law.log_predict(law.theta(surface.values), {"N": n, "D": d})
    if not isinstance(surface, Bent):
        return plain
    ends = np.log(surface.frontier().n_star(np.array([LARGEST / 1e4, LARGEST])))
    return plain + surface.bend * ((np.log(n) - ends.mean()) / (np.ptp(ends) / 2)) ** 2


def truth(surface: Surface) -> tuple[float, float]:
    """log N* and log L* at the target, searched on a fine line of sizes."""
    n = surface.frontier().n_star(TARGET) * np.exp(np.linspace(-2, 2, 40_001))
    loss = log_loss(surface, n, TARGET / (6 * n))
    return float(np.log(n[loss.argmin()])), float(loss.min())


def losses(surface: Surface, cells: Cells, shared: bool, rng: np.random.Generator) -> np.ndarray:
    """Noisy losses (m,): with prefixes a share RHO of the variance is common to
    the branches of one.
    """
    own = rng.standard_normal(len(cells.n))
    if shared:
        own = (
            np.sqrt(1 - RHO) * own
            + np.sqrt(RHO) * rng.standard_normal(int(cells.prefix.max()) + 1)[cells.prefix]
        )
    return np.exp(log_loss(surface, cells.n, cells.d) + surface.noise * own)


def points(cells: Cells, loss: np.ndarray) -> Points:
    """As a fit takes them."""
    return Points(loss=loss, n=cells.n, d=cells.d, c=6 * cells.n * cells.d)


def errors(surface: Surface, found: LawFit) -> tuple[float, float]:
    """Errors of log N* and log L* at the target."""
    here, (log_n, log_l) = LinearizedLaw(found.law, found.theta, Cost()).optimum(), truth(surface)
    loss = here.loss(TARGET)
    assert loss is not None  # the laws here all have one
    return float(np.log(here.n_star(TARGET)) - log_n), float(np.log(loss) - log_l)


def by_grid(surface: Surface, rng: np.random.Generator) -> tuple[float, float]:
    """Errors of the grid."""
    cells = isoflop(surface, LARGEST, 2, 5, 7)
    return errors(
        surface,
        estimate(LAWS[surface.law], points(cells, losses(surface, cells, False, rng)), OBJECTIVE),
    )


@dataclass(frozen=True)
class Pilot:
    """The pilot of one trial: its runs, their losses, and the law fitted to them."""

    cells: Cells
    loss: np.ndarray
    found: LawFit

    def runs(self, shared: bool) -> tuple[Runs, float]:
        """As `designed` takes them, with the noise that the residuals show."""
        residual = np.log(self.loss) - self.found.law.log_predict(
            self.found.theta, {"N": self.cells.n, "D": self.cells.d}
        )
        noise = float(np.sqrt(np.sum(residual**2) / (len(residual) - len(self.found.theta))))
        return self.cells.runs(shared), noise


def by_pilot(surface: Surface, shared: bool, rng: np.random.Generator, kind: str = "far") -> Pilot:
    """Train (simulated) and fit a pilot."""
    cells = pilot(surface, kind)
    loss = losses(surface, cells, shared, rng)
    return Pilot(cells, loss, estimate(LAWS[surface.law], points(cells, loss), OBJECTIVE))


def by_design(
    surface: Surface,
    first: Pilot,
    money: float,
    shared: bool,
    oracle: bool,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Errors of a pilot, `designed` and a refit, for `money` FLOPs altogether."""
    law = LAWS[surface.law]
    theta = np.asarray(law.theta(surface.values), float) if oracle else first.found.theta
    left = money - first.cells.cost(shared)
    pool = candidates(first.cells.n, first.cells.d, Cost())
    if not shared:
        pool = replace(pool, prefix=np.arange(len(pool.n)))
    cooldown = COOLDOWN if shared else 1.0
    believed = LinearizedLaw(law, theta, Cost())
    chosen = designed(believed, *first.runs(shared), pool, left, TARGET, LARGEST, cooldown).runs
    then = Cells(chosen.n, chosen.d, np.unique(chosen.prefix, return_inverse=True)[1])
    both = first.cells.joined(then)
    if both.cost(shared) > money * 1.001 or (6 * both.n * both.d).max() > LARGEST * 1.001:
        raise AssertionError("the design costs more than it may")
    return errors(
        surface,
        refit(
            first.found,
            points(both, np.concatenate([first.loss, losses(surface, then, shared, rng)])),
            first.found.values,
        ),
    )


def rmse(pairs: Iterator[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squares (2,) of errors, and the Monte Carlo standard error of each."""
    squares = np.square(list(pairs))
    root = np.sqrt(squares.mean(0))
    return root, squares.std(0) / np.sqrt(len(squares)) / (2 * root)


def factor(shares: np.ndarray, roots: np.ndarray, aim: float) -> tuple[float, bool]:
    """By how much cheaper a design reaches `aim`, and whether that lies within the amounts of money
    tried (else it is a bound).
    """
    slope, level = np.polyfit(np.log(shares), np.log(roots), 1)
    needed = float(np.exp((np.log(aim) - level) / min(slope, -0.05)))
    inside = shares.min() <= needed <= shares.max()
    return 1 / float(np.clip(needed, shares.min(), shares.max())), bool(inside)


def compare(surface: Surface, trials: int) -> Iterator[str]:
    """The lines of one surface: the grid, and designs of both kinds of cost, by the pilot's law and
    by the true one.
    """
    cost = isoflop(surface, LARGEST, 2, 5, 7).cost(False)
    aim, wrong = rmse(by_grid(surface, np.random.default_rng([1, k])) for k in range(trials))
    yield (
        f"{surface.name}: grid of 35 runs, {cost:.3g} FLOPs: RMSE log N* {aim[0]:.4f} +- "
        f"{wrong[0]:.4f}, log L* {aim[1]:.5f} +- {wrong[1]:.5f}"
    )
    for shared, kind in itertools.product((False, True), PILOTS):
        pilots = [
            by_pilot(surface, shared, np.random.default_rng([2, k]), kind) for k in range(trials)
        ]
        for oracle in (False, True) if kind == "far" else (False,):
            found = [
                rmse(_errors(surface, pilots, share * cost, shared, oracle)) for share in SHARES
            ]
            prefix = "shared" if shared else "alone"
            label = f"{kind} pilot, {prefix}" + (", oracle" if oracle else "")
            yield f"  {label:26} {_told(found, aim)}"


def _errors(
    surface: Surface, pilots: list[Pilot], money: float, shared: bool, oracle: bool
) -> Iterator[tuple[float, float]]:
    for k, first in enumerate(pilots):
        yield by_design(surface, first, money, shared, oracle, np.random.default_rng([3, k]))


def _told(found: list[tuple[np.ndarray, np.ndarray]], aim: np.ndarray) -> str:
    roots = np.array([root for root, _ in found])
    ratios = [factor(np.array(SHARES), roots[:, place], aim[place]) for place in (0, 1)]
    shown = [
        f"{'' if inside else '> ' if ratio > 4 else '< '}{ratio:.1f}x" for ratio, inside in ratios
    ]
    told = "; ".join(
        f"1/{1 / share:.3g}: {root[0]:.4f} +- {mc[0]:.4f}, {root[1]:.5f} +- {mc[1]:.5f}"
        for share, (root, mc) in zip(SHARES, found, strict=True)
    )
    return f"cheaper at equal error of N* {shown[0]:7} of L* {shown[1]:7} RMSE at {told}"


def main() -> None:
    """Print the table of all surfaces."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=60)
    trials = parser.parse_args().trials
    for surface in TRUTHS:
        for line in compare(surface, trials):
            print(line, flush=True)


if __name__ == "__main__":
    main()
