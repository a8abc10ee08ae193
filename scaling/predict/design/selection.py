"""Which candidates to train: V-optimal (Fedorov 1972), greedily, most variance a FLOP first,
guarded against a law that is not exact.

The criterion is var(log N*) + var(log L*), each as a share of what it is before: neither unit nor
size of the two decides, and a design that knows N* but not the loss there, or the reverse, is not
good. A purely optimal design for five parameters puts all runs at few corners, where a law that is
slightly wrong goes unseen; quadratic terms in log N and log D with a prior of mean 0 (DuMouchel and
Jones 1994) are therefore unknowns too, and pull runs into the middle.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scaling.predict.design.candidates import Candidates
from scaling.predict.design.law_model import shared_covariance

# prior sd of the quadratic terms, in log loss at the end of the range where each is largest
MISFIT = 0.01
MOST_RUNS = 64
# more seeds of one cell would trust its size to be typical; a neighbour says as much, and of the
# law's form too
MOST_COPIES = 2
# the largest run costs up to this part of the money, unless such a run exists or another limit is
# set
ANCHOR = 0.5
SIMILAR = 0.5  # a run that cost this part of the anchor before makes another one needless
NEARLY = 0.7  # a run this near to the largest cost counts as the largest
AROUND = np.log(2.5)  # in log N: the anchor lies this near to the optimum of its cost
REPEATED = 0.05  # the cell with two seeds costs at most this part of the money a run
RIDGE = 1e-10


def with_misspecification_terms(
    seen: np.ndarray, offered: np.ndarray, shape_seen: np.ndarray, shape_offered: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows with the potential terms appended, (n, P + 3) and (K, P + 3), from rows (n, P), (K,
    P) and log N, log D (n, 2), (K, 2).

    A quadratic is taken less what the law itself can follow of it, and scaled to 1 where it is
    largest.
    """
    x = np.concatenate([shape_seen, shape_offered])
    low, high = x.min(0), x.max(0)
    u, v = ((2 * x - low - high) / np.where(high > low, high - low, 1.0)).T
    primary = np.concatenate([seen, offered])
    unit = primary / np.maximum(np.linalg.norm(primary, axis=0), 1e-300)
    terms = np.stack([u**2, v**2, u * v], 1)
    left = terms - unit @ np.linalg.lstsq(unit, terms, rcond=1e-9)[0]
    left /= np.maximum(np.abs(left).max(0), 1e-6)
    return np.concatenate([seen, left[: len(seen)]], 1), np.concatenate(
        [offered, left[len(seen) :]], 1
    )


@dataclass
class _SharedPrefix:
    """The branches of one prefix that have been chosen: the sum of their rows, the cost of the
    longest.
    """

    total: np.ndarray
    longest: float


@dataclass
class DesignState:
    """A design in the making: how often each candidate was taken (K,), and what a fit of all runs
    will know.

    A fit weighs all runs alike, so its variance is g' M^-1 V M^-1 g: `information` M (Q, Q) as if
    noise were independent, `noise` V (Q, Q) the covariance of the sums in the fit, of which
    branches of one prefix share a part `rho`; both hold the prior. The k-th copy of a candidate has
    the k-th seed, and so the k-th prefix of its size.
    """

    pool: Candidates
    rows: np.ndarray
    gradients: np.ndarray
    information: np.ndarray
    noise: np.ndarray
    rho: float
    before: np.ndarray = field(init=False)
    copies: np.ndarray = field(init=False)
    spent: float = 0.0
    _prefixes: dict[tuple[int, int], _SharedPrefix] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.copies = np.zeros(len(self.rows), int)
        self.cost = self.pool.price.copy()  # of each candidate, were it taken now
        self._sums = np.zeros_like(self.rows)  # of the rows of the prefix that it would join
        self.before = self.variances()

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
        denominator = 1 + np.einsum("kp,kp->k", moved, self.rows)
        left = np.zeros(len(self.rows))
        for column, before in zip(asked.T, self.before, strict=True):
            then = column - moved * ((self.rows @ column) / denominator)[:, None]
            own, common = (
                np.einsum("kp,kp->k", self.rows, then),
                np.einsum("kp,kp->k", self._sums, then),
            )
            left += (
                np.einsum("kp,kp->k", then @ self.noise, then)
                + own**2
                + 2 * self.rho * own * common
            ) / before
        return np.asarray(np.sum(self.variances() / self.before) - left)

    def add(self, index: int) -> None:
        """Take a candidate (once more)."""
        row, common = self.rows[index], self._sums[index]
        self.information = self.information + np.outer(row, row)
        self.noise = (
            self.noise
            + np.outer(row, row)
            + self.rho * (np.outer(row, common) + np.outer(common, row))
        )
        self.spent += float(self.cost[index])
        prefix, seed = int(self.pool.prefix[index]), int(self.copies[index])
        branches = self._prefixes.setdefault((prefix, seed), _SharedPrefix(np.zeros_like(row), 0.0))
        branches.total, branches.longest = (
            branches.total + row,
            max(branches.longest, float(self.pool.price[index])),
        )
        self.copies[index] += 1
        if self.pool.shared:
            self._renew(prefix)

    def _renew(self, prefix: int) -> None:
        """The costs and companions of one prefix's candidates after one of them was taken."""
        mine, price = self.pool.prefix == prefix, self.pool.price
        self._sums[mine], self.cost[mine] = 0.0, price[mine]
        for seed in range(int(self.copies[mine].max()) + 1):
            branches, here = self._prefixes.get((prefix, seed)), mine & (self.copies == seed)
            if branches is not None:
                longer, share = price[here] > branches.longest, self.pool.cooldown
                self._sums[here] = branches.total
                self.cost[here] = np.where(
                    longer, price[here] - (1 - share) * branches.longest, share * price[here]
                )

    def best(self, among: np.ndarray, a_flop: bool = True) -> int:
        """The candidate of a mask (K,) that takes most off the criterion, a FLOP or at all."""
        return int(
            np.argmax(np.where(among, self.gains() / (self.cost if a_flop else 1.0), -np.inf))
        )

    def fill(self, money: float) -> None:
        """Add the best a FLOP until the money or the runs are spent, or no run helps any more."""
        while self.copies.sum() < MOST_RUNS:
            gains = self.gains()
            eligible = (self.cost <= money - self.spent) & (self.copies < MOST_COPIES) & (gains > 0)
            if not eligible.any():
                return
            self.add(int(np.argmax(np.where(eligible, gains / self.cost, -np.inf))))


@dataclass(frozen=True)
class PriorRuns:
    """What is known beforehand: the gradients of the runs so far (n, P), their log N and log D (n,
    2), the prefix of each (None: none is shared), the sd of a run's log loss.
    """

    rows: np.ndarray
    logs: np.ndarray
    prefix: np.ndarray | None
    noise: float


def start(
    pool: Candidates,
    offered: np.ndarray,
    logs: np.ndarray,
    before: PriorRuns,
    gradients: np.ndarray,
    rho: float,
) -> DesignState:
    """A design without runs: what is known, the potential terms, and the candidates' gradients (K,
    P), log N and log D (K, 2).

    `gradients` (P, T) are of what is asked.
    """
    prior_rows, rows = with_misspecification_terms(before.rows, offered, before.logs, logs)
    scale = np.maximum(np.linalg.norm(prior_rows, axis=0), 1e-3)
    prior_rows, rows = prior_rows / scale, rows / scale
    extra = prior_rows.shape[1] - offered.shape[1]
    prior = np.diag(
        np.r_[np.full(offered.shape[1], RIDGE), (before.noise / MISFIT / scale[-extra:]) ** 2]
    )
    asked = np.concatenate([gradients, np.zeros((extra, gradients.shape[1]))]) / scale[:, None]
    return DesignState(
        pool,
        rows,
        asked,
        prior_rows.T @ prior_rows + prior,
        shared_covariance(prior_rows, before.prefix, rho) + prior,
        rho,
    )


def choose(design: DesignState, money: float, anchor: float, optimum: np.ndarray) -> DesignState:
    """Spend the money: an anchor of about `anchor` FLOPs (0: none is needed) near the `optimum`
    (K,) N of each candidate's cost, a cheap cell twice, and then greedily.
    """
    pool = design.pool
    if anchor > 0:
        near = np.abs(np.log(pool.n / optimum)) <= AROUND
        large = (pool.price <= anchor * (1 + 1e-9)) & (pool.price >= NEARLY * anchor) & near
        if large.any():
            design.add(design.best(large, a_flop=False))
    cheap = pool.price <= REPEATED * money
    if cheap.any() and design.spent + 2 * pool.price[cheap].max() <= money:
        best = design.best(cheap)
        design.add(best)
        design.add(best)
    design.fill(money)
    return design
