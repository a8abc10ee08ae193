"""Training and serving together: the size that costs least when a model of a given quality must also be run.

Sardana et al. 2024 (Beyond Chinchilla-Optimal): a smaller model trained longer reaches the same loss and is cheaper to use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.frontier import Cost

FORWARD = 2.0  # FLOPs a parameter and token when a model is used
SPAN = np.log(1e4)


def with_demand(law: str, values: Mapping[str, float], cost: Cost, n: float, d: float, demand: float) -> dict[str, float]:
    """Minimise c0 N^p D + 2 N `demand` over N at the loss of (n, d); D follows from the law (Sardana 2024, eq. 3).

    Raises ScalingError for a law that is not Chinchilla's in form.
    """
    if law not in ("chinchilla", "chinchilla-tied", "data-constrained"):
        raise ScalingError(f"inference demand is not known for the law {law}", remedy="use a chinchilla fit")
    alpha, beta = values["alpha"], values.get("beta", values["alpha"])
    gap = values["A"] * n**-alpha + values["B"] * d**-beta

    def tokens(size: np.ndarray) -> np.ndarray:
        rest = gap - values["A"] * size**-alpha
        return np.where(rest > 0, np.where(rest > 0, rest, 1.0) / values["B"], np.nan) ** (-1 / beta)

    def total(size: np.ndarray) -> np.ndarray:
        return np.nan_to_num(cost.flops(size, tokens(size)) + FORWARD * size * demand, nan=np.inf)

    centre, span = np.log(n), SPAN
    for _ in range(8):  # each pass narrows the bracket 50 times
        grid = np.exp(centre + np.linspace(-span, span, 401))
        centre, span = float(np.log(grid[np.argmin(total(grid))])), span / 50
    best = np.exp(np.array([centre]))
    base, least = float(total(np.array([n]))[0]), float(total(best)[0])
    found: dict[str, Any] = {"demand_tokens": demand, "n_params": best[0], "tokens": tokens(best)[0], "flops_total": least,
                             "flops_total_without": base, "flops_saved": base - least, "saved_fraction": 1 - least / base}  # fmt: skip
    return {name: float(value) for name, value in found.items()}
