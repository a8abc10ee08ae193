"""What a fit minimises: the sum over points of weight x rho(residual), residual = predicted -
observed, of logs or of losses.

The Huber objectives are r^2/2 within delta and delta (|r| - delta/2) beyond; `mse` objectives are
sums of squares, r^2. Least absolute deviations has no second derivative: it is approached by Huber
objectives of ever smaller delta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.errors import unknown_choice

Array = np.ndarray
SHARP = 1e-9  # the last delta of a lad fit: that far it may stay off the optimum
NARROWING = 4.0
# below it a lad fit passes through as many points as it has parameters, whatever delta, unless
# these are
VERTEX = 1e-5
MANY = 20_000  # or more: then the points within VERTEX settle the fit already


@dataclass(frozen=True)
class Objective:
    """`kind` huber | lad | mse, of the residuals of log losses where `log`, else of losses."""

    name: str
    kind: str
    log: bool

    def residual(self, log_predicted: Array, loss: Array, log_loss: Array) -> Array:
        """Predicted minus observed (..., n)."""
        return log_predicted - log_loss if self.log else np.exp(log_predicted) - loss

    def path(self, delta: float, spread: float, count: int) -> tuple[float, ...]:
        """The deltas to pass through for `count` points, from one as wide as the residuals
        (`spread`) to the objective's own.
        """
        if self.kind == "mse":
            return (delta,)
        last, tail = (
            (VERTEX, (1e-7, SHARP) if count < MANY else ()) if self.kind == "lad" else (delta, ())
        )
        steps = int(np.ceil(np.log(spread / last) / np.log(NARROWING))) if spread > last else 0
        return (*(last * NARROWING**k for k in range(steps, -1, -1)), *tail)

    def smooth(self, residual: Array, delta: float) -> tuple[Array, Array, Array, Array]:
        """Penalty, its first and second derivative in the residual, and the curvature of the
        parabola that touches it at the residual and lies above it everywhere else. Of least
        absolute deviations: at smoothing `delta`.
        """
        scale = {"huber": 1.0, "lad": 1 / delta, "mse": 2.0}[self.kind]
        width = 1e300 if self.kind == "mse" else delta
        inner, size = np.minimum(np.maximum(residual, -width), width), np.abs(residual)
        slope = scale * inner
        curve, above = scale * (size <= width), scale * width / np.maximum(size, width)
        return slope * (residual - inner / 2), slope, curve, above


OBJECTIVES: dict[str, Objective] = {
    one.name: one
    for one in (
        Objective("huber-log", "huber", log=True),
        Objective("lad-log", "lad", log=True),
        Objective("mse-log", "mse", log=True),
        Objective("huber", "huber", log=False),
        Objective("mse", "mse", log=False),
    )
}


def objective(name: str) -> Objective:
    """The objective of a name. Raises ScalingError that lists the known ones."""
    if name not in OBJECTIVES:
        raise unknown_choice("objective", name, OBJECTIVES)
    return OBJECTIVES[name]
