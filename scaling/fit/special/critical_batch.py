"""Kaplan's L(N, S): steps at a finite batch, counted as the least steps that would have done
(Kaplan 2020, section 5.1).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scaling.errors import ScalingError
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

B_STAR = 2e8  # tokens
ALPHA_B = 0.21


def critical_batch(loss: np.ndarray) -> np.ndarray:
    """B_crit(L) = B* / L^(1/alpha_B) in tokens, L in nats a token (Kaplan 2020, eq. 1.4)."""
    return B_STAR * loss ** (-1 / ALPHA_B)


def least_steps(steps: np.ndarray, batch: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """S_min = S / (1 + B_crit(L) / B) of S steps at batch B tokens (Kaplan 2020, eq. 5.4)."""
    return steps / (1 + critical_batch(loss) / batch)


def corrected(points: Points) -> tuple[Points, list[str], list[ResultWarning]]:
    """Points whose S is S_min, where the table holds a batch size B; and what to note and to warn
    of.

    Raises ScalingError for a table without steps.
    """
    if "S" not in points.others:
        raise ScalingError(
            "the table has no steps S",
            remedy='name their column: --columns "N=...,S=...,L=..." (and B, batch in tokens)',
        )
    if "B" not in points.others:
        return points, ["no batch size B: S is taken to be S_min, the least number of steps"], []
    batch = points.others["B"]
    steps = least_steps(points.others["S"], batch, points.loss)
    notes = [
        f"S is corrected to S_min with B_crit = {B_STAR:.3g} / L^{1 / ALPHA_B:.2f} tokens "
        "(Kaplan 2020; of their tokeniser)"
    ]
    warnings, small = [], float(np.mean(batch < critical_batch(points.loss)))
    if small > 0.5:
        message = (
            f"{100 * small:.0f} % of the runs lie below the critical batch: S_min rests on the "
            "correction"
        )
        warnings.append(warn(WarningCode.CRITICAL_BATCH, message))
    return replace(points, others={**points.others, "S": steps}), notes, warnings
