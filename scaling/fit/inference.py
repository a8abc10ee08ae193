"""Training and inference together: the size that costs least when a model of a given quality must also be run.

Sardana et al. 2024 (Beyond Chinchilla-Optimal): a smaller model trained longer reaches the same loss and is cheaper to use.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scaling.fit.equal_loss import cheapest, equal_loss
from scaling.fit.frontier import Cost

FORWARD = 2.0  # FLOPs a parameter and token when a model is used


def with_demand(law: str, values: Mapping[str, float], cost: Cost, n: float, d: float, demand: float) -> dict[str, float]:
    """Minimise c0 N^p D + 2 N `demand` over N at the loss of (n, d); D follows from the law (Sardana 2024, eq. 3).

    Raises ScalingError for a law that does not say which N and D have one loss.
    """
    same = equal_loss(law, values, n, d)

    def total(size: np.ndarray) -> np.ndarray:
        return np.asarray(cost.flops(size, same.tokens(size)) + FORWARD * size * demand)

    best = cheapest(total, n)
    base, least = float(total(np.asarray(n))), float(total(np.asarray(best)))
    return {"demand_tokens": demand, "n_params": best, "tokens": float(same.tokens(best)), "flops_total": least,
            "flops_total_without": base, "flops_saved": base - least, "saved_fraction": 1 - least / base}  # fmt: skip
