"""Which candidates to train: V-optimal (Fedorov 1972), greedily, most variance a FLOP first,
as_disk_error against a law that is not exact.

The criterion is var(log N*) + var(log L*), each as a share of what it is before: neither unit nor
size of the two decides, and a design that knows N* but not the loss there, or the reverse, is not
good. A purely optimal design for five parameters puts all runs at few corners, where a law that is
slightly wrong goes unseen; quadratic terms in log N and log D with a prior of mean 0 (DuMouchel and
Jones 1994) are therefore unknowns too, and pull runs into the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.predict.design.law_model import RIDGE, LinearizedLaw, Runs, shared_covariance

# prior sd of the quadratic terms, in log loss at the end of the range where each is largest
MISFIT = 0.01
MOST_RUNS = 64
# more seeds of one cell would trust its size to be typical; a neighbour says as much, and of the
# law's form too
MOST_COPIES = 2
NEARLY = 0.7  # a run this near to the largest cost counts as the largest
AROUND = np.log(2.5)  # in log N: the anchor lies this near to the optimum of its cost
REPEATED = 0.05  # the cell with two seeds costs at most this part of the money a run


def quadratic_terms(slopes: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Quadratic terms (n, 3) of log N and log D at runs with slopes (n, P), less what the law can
    follow of them, each scaled to 1 where it is largest.
    """
    x = np.log([n, d])
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    u, v = (2 * x - low - high) / np.where(high > low, high - low, 1.0)
    unit = slopes / np.maximum(np.linalg.norm(slopes, axis=0), 1e-300)
    terms = np.stack([u**2, v**2, u * v], 1)
    left = terms - unit @ np.linalg.lstsq(unit, terms, rcond=1e-9)[0]
    return np.asarray(left / np.maximum(np.abs(left).max(0), 1e-6))


@dataclass
class DesignState:
    """A design in the making: which candidates (K,) were taken, each with its seed, and what a fit
    of all runs will know.

    A fit weighs all runs alike, so its variance is g' M^-1 V M^-1 g: `information` M (Q, Q) as if
    noise were independent, `noise` V (Q, Q) the covariance of the sums in the fit, of which
    branches of one prefix share a part `rho`; both hold the prior. `cooldown` is a branch's share
    of its own cost. The k-th copy of a candidate has the k-th seed, and so the k-th prefix of its
    size. `rows` are (K, Q), `gradients` (Q, T).
    """

    pool: Runs
    cooldown: float
    rows: np.ndarray
    gradients: np.ndarray
    information: np.ndarray
    noise: np.ndarray
    rho: float

    def __post_init__(self) -> None:
        self.copies = np.zeros(len(self.rows), int)
        self.taken: list[tuple[int, int]] = []  # candidate and seed
        self.spent = 0.0
        self.cost = self.pool.flops  # of each candidate, were it taken now
        self.mates = np.zeros_like(self.rows)  # sum of the rows of the prefix that it would join
        self.before = self.variances()

    @classmethod
    def start(
        cls,
        pool: Runs,
        cooldown: float,
        law: LinearizedLaw,
        runs: Runs,
        noise: float,
        gradients: np.ndarray,
        rho: float,
    ) -> DesignState:
        """A design without candidates, after `runs` whose log losses have the sd `noise`;
        `gradients` (P, T) are of what is asked.
        """
        n, d, seen = np.r_[runs.n, pool.n], np.r_[runs.d, pool.d], len(runs.n)
        slopes = law.rows(n, d)
        rows = np.concatenate([slopes, quadratic_terms(slopes, n, d)], 1)
        scale = np.maximum(np.linalg.norm(rows[:seen], axis=0), 1e-3)
        rows = rows / scale
        extra = rows.shape[1] - len(gradients)
        misfit = (noise / MISFIT / scale[-extra:]) ** 2
        prior = np.diag(np.r_[np.full(len(gradients), RIDGE), misfit])
        asked = np.concatenate([gradients, np.zeros((extra, gradients.shape[1]))]) / scale[:, None]
        known = rows[:seen]
        covariance = shared_covariance(known, runs.prefix, rho)
        information = known.T @ known + prior
        return cls(pool, cooldown, rows[seen:], asked, information, covariance + prior, rho)

    def variances(self) -> np.ndarray:
        """Variances (T,) of what is asked, with the guard, in units of the noise's."""
        moved = np.linalg.solve(self.information, self.gradients)
        return np.asarray(np.einsum("pt,pq,qt->t", moved, self.noise, moved))

    def gains(self) -> np.ndarray:
        """What each candidate (K,) would take off the criterion: both matrices with it, the inverse
        by Sherman and Morrison.
        """
        inverse = np.linalg.inv(self.information)
        moved, asked = self.rows @ inverse, inverse @ self.gradients
        share = (self.rows @ asked).T / (1 + (moved * self.rows).sum(1))
        then = asked.T[:, None] - moved * share[:, :, None]  # (T, K, Q)
        own, common = (then * self.rows).sum(2), (then * self.mates).sum(2)
        after = ((then @ self.noise) * then).sum(2) + own**2 + 2 * self.rho * own * common
        return np.asarray((self.variances() / self.before).sum() - (1 / self.before) @ after)

    def add(self, index: int) -> None:
        """Take a candidate (once more); what it costs and means to take another changes with it."""
        row = self.rows[index]
        common = self.rho * np.outer(row, self.mates[index])
        self.information = self.information + np.outer(row, row)
        self.noise = self.noise + np.outer(row, row) + common + common.T
        self.spent += float(self.cost[index])
        self.taken.append((index, int(self.copies[index])))
        self.copies[index] += 1
        taken, seeds = np.array(self.taken).T
        label, price = self.pool.prefix, self.pool.flops
        assert label is not None
        joined = (label[:, None] == label[taken]) & (self.copies[:, None] == seeds)
        self.mates = joined @ self.rows[taken]
        longest = np.where(joined, price[taken], 0.0).max(1)
        longer = price - (1 - self.cooldown) * longest
        self.cost = np.where(
            price > longest, np.where(longest > 0, longer, price), self.cooldown * price
        )

    def add_best(self, eligible: np.ndarray, per_flop: bool = True) -> int:
        """Take the candidate of a mask (K,) that takes most off the criterion, a FLOP or at all."""
        worth = self.gains() / (self.cost if per_flop else 1.0)
        best = int(np.argmax(np.where(eligible, worth, -np.inf)))
        self.add(best)
        return best


def choose(design: DesignState, money: float, anchor: float, optimum: np.ndarray) -> None:
    """Spend the money: an anchor of about `anchor` FLOPs (0: none is needed) near the `optimum`
    (K,) N of each candidate's cost, a cheap cell twice, and then the best a FLOP until the money
    or the runs are spent, or no run helps any more.
    """
    pool = design.pool
    near = np.abs(np.log(pool.n / optimum)) <= AROUND
    large = (pool.flops <= anchor * (1 + 1e-9)) & (pool.flops >= NEARLY * anchor) & near
    if large.any():
        design.add_best(large, per_flop=False)
    cheap = pool.flops <= REPEATED * money
    if cheap.any() and design.spent + 2 * pool.flops[cheap].max() <= money:
        design.add(design.add_best(cheap))
    while design.copies.sum() < MOST_RUNS:
        is_open = (design.cost <= money - design.spent) & (design.copies < MOST_COPIES)
        eligible = is_open & (design.gains() > 0)
        if not eligible.any():
            return
        design.add_best(eligible)
