"""What many answers to each of many problems are worth.

Pass@k, the majority vote, the answer that the model itself likes best.

Answers are rows of tokens. A problem's `samples` are independent draws, so any k of them are k
draws.
"""

from __future__ import annotations

import bisect

import numpy as np

Array = np.ndarray
POINTS = 40


def ks(most: int, points: int = POINTS) -> Array:
    """Distinct numbers of samples, log-spaced from 1 to `most`."""
    return np.unique(np.round(np.geomspace(1, most, points)).astype(int))


def pass_at_k(n: Array, c: Array, k: Array) -> Array:
    """Unbiased pass@k (P, K) of c right in n samples.

    1 - C(n - c, k) / C(n, k), NaN where k > n (Chen et al. 2021, eq. 1).
    """
    from scipy.stats import hypergeom

    missed = hypergeom.logpmf(0, n[:, None], c[:, None], k[None])
    return np.asarray(-np.expm1(np.minimum(missed, 0.0)))


def exact_pass_at_k(nll: Array, k: Array) -> Array:
    """The chance (P, K) that one of k draws is right where a right one has the likelihood
    exp(-nll): 1 - (1 - p)^k.
    """
    missed = np.log1p(-np.minimum(np.exp(-np.asarray(nll, np.float64)), 1.0 - 1e-16))
    return np.asarray(-np.expm1(missed[:, None] * np.asarray(k, np.float64)[None]))


def coverage(nll: Array, k: int) -> float:
    """The exact share of problems that k samples solve."""
    return float(exact_pass_at_k(nll, np.array([k])).mean())


def samples_needed(nll: Array, target: float, most: int) -> int | None:
    """The least k whose coverage is at least the target; None where `most` do not reach it."""
    tried = range(1, most + 1)
    index = bisect.bisect_left(tried, target, key=lambda k: coverage(nll, k))
    return tried[index] if index < most else None


def edit_distance(written: Array, right: Array) -> Array:
    """Insertions, deletions and replacements (n,) that turn each row of `written` into that of
    `right` (Levenshtein 1966).
    """
    before = np.tile(np.arange(right.shape[1] + 1), (len(right), 1))
    for i in range(written.shape[1]):
        now = np.empty_like(before)
        now[:, 0] = i + 1
        for j in range(right.shape[1]):
            replaced = before[:, j] + (written[:, i] != right[:, j])
            now[:, j + 1] = np.minimum(np.minimum(now[:, j], before[:, j + 1]) + 1, replaced)
        before = now
    return before[:, -1]


def label_answers(samples_PSA: Array, right_PA: Array) -> Array:
    """A label of each sample (P, S), equal for equal answers; the right answer is 0."""
    P, S, A = samples_PSA.shape
    together = np.concatenate([right_PA[:, None], samples_PSA], axis=1).reshape(-1, A)
    labels = np.unique(together, axis=0, return_inverse=True)[1].reshape(P, S + 1)
    return np.where(labels[:, 1:] == labels[:, :1], 0, labels[:, 1:] + 1)


def majority_at_k(labels_PS: Array, k: int) -> Array:
    """How often (P,) the most frequent of k samples is right (label 0), as a mean over disjoint
    groups of k (Wang 2023, self-consistency).

    Among answers that are equally frequent one is chosen by lot: m of them with the right one among
    them count 1 / m.
    """
    grouped = np.sort(_groups(labels_PS, k), axis=-1)
    place, begins = np.arange(k), np.ones_like(grouped, bool)
    begins[..., 1:] = grouped[..., 1:] != grouped[..., :-1]
    # how many equal ones so far
    run = place - np.maximum.accumulate(np.where(begins, place, 0), axis=-1) + 1
    most = run.max(axis=-1)
    tied = (run == most[..., None]).sum(axis=-1)
    won = (grouped == 0).sum(axis=-1) == most
    return np.asarray((won / tied).mean(axis=1))


def best_of_k(labels_PS: Array, likelihood_PS: Array, k: int) -> Array:
    """How often (P,) the likeliest of k samples in the model's own view is right, as a mean over
    disjoint groups of k.
    """
    groups, likelihood = _groups(labels_PS, k), _groups(likelihood_PS, k)
    best = np.take_along_axis(groups, likelihood.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    return np.asarray((best == 0).mean(axis=1))


def _groups(values_PS: Array, k: int) -> Array:
    """(P, S // k, k)."""
    P, S = values_PS.shape
    return values_PS[:, : S // k * k].reshape(P, S // k, k)
