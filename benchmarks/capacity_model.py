"""The analytic twin of the synthetic language: what a learner loses that can hold m facts and has
seen n of them.

A learner that fails nowhere else: its losses follow the same two powers as those of models, with
exponents that can be
derived. So a fit can be tried on points whose E, alpha and beta are known, without training (Hutter
2021, section 3).
"""

from __future__ import annotations

import math

import numpy as np

from scaling.tasks.synthetic import Synthetic


def excess(task: Synthetic, held: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Nats per token above the entropy, shape (n,), with room for `held` facts (n,) after `seen`
    facts (n,) of the stream.

    ln M [sum_{k > m} p_k + sum_{k <= m} p_k (1 - p_k)^n] / period: a value that is not known costs
    ln M, and it is not known
    where the memory is too small for its key (the m likeliest are held) or where the key has not
    occurred yet.
    """
    p = task.probabilities
    total, log_miss, found = p.sum(), np.log1p(-p), np.empty(len(held))
    room = np.minimum(held, len(p)).astype(np.int64)
    known = np.r_[0.0, np.cumsum(p)]
    for n in np.unique(seen):
        unseen = np.r_[0.0, np.cumsum(p * np.exp(n * log_miss))]
        rows = seen == n
        found[rows] = total - known[room[rows]] + unseen[room[rows]]
    return math.log(task.config.n_symbols) * found / task.period


def limits(task: Synthetic) -> dict[str, float]:
    """The powers that `excess` tends to: A / m^alpha alone for endless data, B / D^beta for endless
    memory; D = n x period tokens.

    With p_k = c k^-(1 + a): sum_{k > m} p_k -> c m^-a / a, so alpha = a. sum p_k exp(-n p_k) is, by
    u = n p_k, the integral
    c^(1/(1+a)) n^(-a/(1+a)) Gamma(a/(1+a)) / (1+a), so beta = a / (1 + a). Both hold far below
    n_facts.
    """
    a, c, scale = (
        task.config.zipf,
        float(task.probabilities[0]),
        math.log(task.config.n_symbols) / task.period,
    )
    beta = a / (1 + a)
    per_fact = scale * c ** (1 / (1 + a)) * math.gamma(beta) / (1 + a)
    return {"alpha": a, "beta": beta, "A": scale * c / a, "B": per_fact * task.period**beta}
