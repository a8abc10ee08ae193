"""Which candidates to train: V-optimal (Fedorov 1972), greedily, most variance a FLOP first, guarded against a law that is not exact.

The criterion is var(log N*) + var(log L*), each as a share of what it is before: neither unit nor size of the two decides,
and a design that knows N* but not the loss there, or the reverse, is not good. A purely optimal design for five parameters
puts all runs at few corners, where a law that is slightly wrong goes unseen; quadratic terms in log N and log D with a prior
of mean 0 (DuMouchel and Jones 1994) are therefore unknowns too, and pull runs into the middle.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scaling.fit.design.pool import Pool

MISFIT = 0.01  # prior sd of the quadratic terms, in log loss at the end of the range where each is largest
MOST_RUNS = 64
MOST_COPIES = 2  # more seeds of one cell would trust its size to be typical; a neighbour says as much, and of the law's form too
ANCHOR = 0.5  # the largest run costs up to this part of the money, unless such a run exists or another limit is set
SIMILAR = 0.5  # a run that cost this part of the anchor before makes another one needless
NEARLY = 0.7  # a run this near to the largest cost counts as the largest
AROUND = np.log(2.5)  # in log N: the anchor lies this near to the optimum of its cost
REPEATED = 0.05  # the cell with two seeds costs at most this part of the money a run
RIDGE = 1e-10


def guarded(seen: np.ndarray, offered: np.ndarray, shape_seen: np.ndarray, shape_offered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with the potential terms beside them, (n, P + 3) and (K, P + 3), from rows (n, P), (K, P) and log N, log D (n, 2), (K, 2).

    A quadratic is taken less what the law itself can follow of it, and scaled to 1 where it is largest.
    """
    x = np.concatenate([shape_seen, shape_offered])
    low, high = x.min(0), x.max(0)
    u, v = ((2 * x - low - high) / np.where(high > low, high - low, 1.0)).T
    primary = np.concatenate([seen, offered])
    unit = primary / np.maximum(np.linalg.norm(primary, axis=0), 1e-300)
    terms = np.stack([u**2, v**2, u * v], 1)
    left = terms - unit @ np.linalg.lstsq(unit, terms, rcond=1e-9)[0]
    left /= np.maximum(np.abs(left).max(0), 1e-6)
    return np.concatenate([seen, left[: len(seen)]], 1), np.concatenate([offered, left[len(seen) :]], 1)


@dataclass
class _Trunk:
    """The branches of one trunk that have been chosen: how many, the sum of their rows, the cost of the longest."""

    count: int
    total: np.ndarray
    longest: float


@dataclass
class Chosen:
    """A design in the making: `information` (Q, Q) with what was known before, and how often each candidate was taken (K,).

    The k-th copy of a candidate has the k-th seed, and so the k-th trunk of its size.
    """

    pool: Pool
    rows: np.ndarray
    gradients: np.ndarray
    information: np.ndarray
    rho: float
    before: np.ndarray = field(init=False)
    copies: np.ndarray = field(init=False)
    spent: float = 0.0
    _trunks: dict[tuple[int, int], _Trunk] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.copies = np.zeros(len(self.rows), int)
        self._rows, self._cost = self.rows.copy(), self.pool.price.copy()
        self.before = self.variances()

    @property
    def value(self) -> float:
        """The criterion: 2 before a run was chosen."""
        return float(np.sum(self.variances() / self.before))

    def variances(self) -> np.ndarray:
        """Variances (T,) of what is asked, with the guard, in units of the noise's."""
        return np.asarray(np.einsum("pt,pt->t", self.gradients, np.linalg.solve(self.information, self.gradients)))

    def offers(self) -> tuple[np.ndarray, np.ndarray]:
        """What each candidate would add now: its row (K, Q) given the branches of its trunk, of unit noise; and its cost (K,)."""
        return self._rows, self._cost

    def _renew(self, trunk: int) -> None:
        """The offers of one trunk's candidates after one of them was taken."""
        mine = self.pool.trunk == trunk
        self._rows[mine], self._cost[mine] = self.rows[mine], self.pool.price[mine]
        for seed in range(int(self.copies[mine].max()) + 1):
            held, here = self._trunks.get((trunk, seed)), mine & (self.copies == seed)
            if held is not None and here.any():
                self._rows[here], self._cost[here] = self._given(held, here), self._branch(held, here)

    def _given(self, held: _Trunk, here: np.ndarray) -> np.ndarray:
        """Rows less what the trunk's other branches say, over the noise left: equal correlation, one observation after the other."""
        whole = 1 + (held.count - 1) * self.rho
        left = 1 - self.rho**2 * held.count / whole
        return np.asarray((self.rows[here] - self.rho / whole * held.total) / np.sqrt(left))

    def _branch(self, held: _Trunk, here: np.ndarray) -> np.ndarray:
        price, share = self.pool.price[here], self.pool.cooldown
        return np.where(price > held.longest, price - (1 - share) * held.longest, share * price)

    def gains(self, rows: np.ndarray) -> np.ndarray:
        """What each row (K, Q) takes off the criterion: (g'M^-1 j)^2 / (1 + j'M^-1 j), summed over what is asked."""
        inverse = np.linalg.inv(self.information)
        moved = rows @ inverse
        return np.asarray(((moved @ self.gradients) ** 2 / self.before).sum(1) / (1 + np.einsum("kp,kp->k", moved, rows)))

    def add(self, index: int) -> None:
        """Take a candidate (once more)."""
        rows, cost = self.offers()
        self.information = self.information + np.outer(rows[index], rows[index])
        self.spent += float(cost[index])
        key = (int(self.pool.trunk[index]), int(self.copies[index]))
        held = self._trunks.setdefault(key, _Trunk(0, np.zeros(rows.shape[1]), 0.0))
        held.count, held.total = held.count + 1, held.total + self.rows[index]
        held.longest = max(held.longest, float(self.pool.price[index]))
        self.copies[index] += 1
        if self.pool.shared:
            self._renew(key[0])

    def fill(self, money: float) -> None:
        """Add the best a FLOP until the money or the runs are spent."""
        while self.copies.sum() < MOST_RUNS:
            rows, cost = self.offers()
            held = (cost <= money - self.spent) & (self.copies < MOST_COPIES)
            if not held.any():
                return
            self.add(int(np.argmax(np.where(held, self.gains(rows) / cost, -np.inf))))


@dataclass(frozen=True)
class Known:
    """What is known beforehand: the gradients of the runs so far (n, P), less what their noise has in common; their log N and
    log D (n, 2); the sd of a run's log loss.
    """

    rows: np.ndarray
    logs: np.ndarray
    noise: float


def start(pool: Pool, offered: np.ndarray, logs: np.ndarray, before: Known, gradients: np.ndarray, rho: float) -> Chosen:
    """A design without runs: what is known, the potential terms, and the candidates' gradients (K, P), log N and log D (K, 2).

    `gradients` (P, T) are of what is asked.
    """
    known, rows = guarded(before.rows, offered, before.logs, logs)
    scale = np.maximum(np.linalg.norm(known, axis=0), 1e-3)
    known, rows = known / scale, rows / scale
    extra = known.shape[1] - offered.shape[1]
    prior = np.diag(np.r_[np.full(offered.shape[1], RIDGE), (before.noise / MISFIT / scale[-extra:]) ** 2])
    asked = np.concatenate([gradients, np.zeros((extra, gradients.shape[1]))]) / scale[:, None]
    return Chosen(pool, rows, asked, known.T @ known + prior, rho if pool.shared else 0.0)


def choose(design: Chosen, money: float, anchor: float, optimum: np.ndarray) -> Chosen:
    """Spend the money: an anchor of about `anchor` FLOPs (0: none is needed) near the `optimum` (K,) N of each candidate's cost,
    a cheap cell twice, and then greedily.
    """
    pool = design.pool
    if anchor > 0:
        near = np.abs(np.log(pool.n / optimum)) <= AROUND
        large = (pool.price <= anchor * (1 + 1e-9)) & (pool.price >= NEARLY * anchor) & near
        if large.any():
            design.add(int(np.argmax(np.where(large, design.gains(design.rows), -np.inf))))
    cheap = pool.price <= REPEATED * money
    if cheap.any() and design.spent + 2 * pool.price[cheap].max() <= money:
        best = int(np.argmax(np.where(cheap, design.gains(design.rows) / pool.price, -np.inf)))
        design.add(best)
        design.add(best)
    design.fill(money)
    return design
