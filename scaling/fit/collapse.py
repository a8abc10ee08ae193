"""Do the loss curves of compute-optimal runs fall on one another? A free check of the recipe: an untuned size does not.

With tuned hyper-parameters and data in proportion, (L(t) - E) / (L(T) - E) against the share t / T of a run is one curve for
all sizes, closer than seeds are to each other (Qiu 2025, "supercollapse"). Here t ends before the cooldown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.fit.isoflop import budgets
from scaling.results import Points

SHARES = (0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.65, 0.78)
MIN_RUNS = 3
FLOOR = 0.9  # of the lowest loss: a floor closer than that would divide by next to nothing
OFF = 3.0  # robust standard deviations
SLIGHT = 0.03  # deviations below this are no matter


@dataclass(frozen=True)
class Curve:
    """A run's normalised curve: `y` at each of SHARES; `off` its mean relative distance from the middle of all."""

    run_id: str
    n: float
    d: float
    y: np.ndarray
    off: float = 0.0


def collapse(points: Points, trails: Points, floor: float) -> dict[str, Any] | None:
    """The document's `collapse`: curves of the best run of each budget, their spread, and which lie off; None with fewer than three.

    `trails` holds every evaluation with the run as its group, `floor` the law's E in nats.
    """
    if points.n is None or points.d is None or points.c is None or trails.group is None:
        return None
    best = [index[int(np.argmin(points.loss[index]))] for index in budgets(points.n, points.c)]
    used = float(np.clip(floor, 0.0, FLOOR * points.loss.min())) if np.isfinite(floor) else 0.0
    found = [curve for row in best if (curve := _curve(points, trails, row, used)) is not None]
    if len(found) < MIN_RUNS:
        return None
    y = np.array([curve.y for curve in found])
    middle = np.median(y, 0)
    away = (y / middle - 1).mean(1)
    scale = max(1.4826 * float(np.median(np.abs(away))), SLIGHT / OFF)
    return {
        "floor": used, "shares": list(SHARES), "middle": middle.tolist(), "spread": float(np.sqrt(((y / middle - 1) ** 2).mean())),
        "curves": [
            {"run_id": curve.run_id, "n_params": curve.n, "tokens": curve.d, "y": curve.y.tolist(), "off": float(off), "flagged": bool(abs(off) > OFF * scale)}
            for curve, off in zip(found, away, strict=True)
        ],
    }  # fmt: skip


def _curve(points: Points, trails: Points, row: int, floor: float) -> Curve | None:
    """The normalised curve of the run that a point is the end of, interpolated in log t; None where it was measured too seldom."""
    n, d, loss = float(np.asarray(points.n)[row]), float(np.asarray(points.d)[row]), float(points.loss[row])
    ends = (np.asarray(trails.n) == n) & (np.asarray(trails.d) == d) & (trails.loss == loss)
    if not ends.any():
        return None
    run_id = str(np.asarray(trails.group)[int(np.flatnonzero(ends)[0])])
    mine = np.asarray(trails.group) == run_id
    share, value = np.asarray(trails.d)[mine] / d, trails.loss[mine]
    order = np.argsort(share)
    share, value = share[order], value[order]
    if share[0] > SHARES[0] * 1.5 or len(share) < 5:
        return None
    at = np.interp(np.log(SHARES), np.log(share), np.log(value))
    return Curve(run_id, n, d, (np.exp(at) - floor) / (loss - floor))


def warnings(found: dict[str, Any] | None) -> list[str]:
    """What the collapse says against single runs."""
    off = [curve for curve in (found or {}).get("curves", ()) if curve["flagged"]]
    return [
        f"the curve of run {curve['run_id']} (N = {curve['n_params']:.3g}) lies {100 * curve['off']:+.0f} % off the others': "
        "its size is not tuned as they are" for curve in off
    ]  # fmt: skip
