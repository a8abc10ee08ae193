"""What speaks for and against a sweep's honesty: the noise of seeds, runs above the law with their cause, curves that collapse."""

from __future__ import annotations

from typing import Any

import numpy as np

from scaling.fit.diagnostics import loss_curve_collapse, runs_above_law, seed_noise
from scaling.fit.frontier.isoflop import budgets
from scaling.fit.law_fit import LawFit
from scaling.points.points import Points
from scaling.points.source import Source


def frontier_gap(points: Points, fitted: LawFit) -> list[dict[str, float]]:
    """For each budget how far its best run lies above the fitted L*(C): {flops, n_params, loss, optimal_loss, excess} (relative)."""
    if fitted.optimum is None or points.n is None or points.c is None:
        return []
    found = []
    for index in budgets(points.n, points.c):
        row = index[int(np.argmin(points.loss[index]))]
        best = fitted.optimum.loss(float(points.c[row]))
        if best is not None:
            loss, least = float(points.loss[row]), float(best)
            found.append(
                {
                    "flops": float(points.c[row]),
                    "n_params": float(points.n[row]),
                    "loss": loss,
                    "optimal_loss": least,
                    "excess": loss / least - 1,
                }
            )
    return found


def run_diagnostics(
    source: Source, fitted: LawFit | None, ci: float
) -> tuple[dict[str, Any], list[str]]:
    """The document's `noise`, `over_frontier`, `above` and `collapse`, as far as the source allows them, and their warnings."""
    if fitted is None:
        return {}, []
    spread = seed_noise.report(source.points, fitted.estimate, ci)
    found: dict[str, Any] = {"noise": spread, "over_frontier": frontier_gap(source.points, fitted)}
    told = seed_noise.warnings(spread)
    if source.runs is not None and source.trails is not None:
        above = runs_above_law.runs_above_law(
            source.points, source.runs, source.trails, fitted.estimate, spread["sd"]
        )
        curves = loss_curve_collapse.collapse(
            source.points, source.trails, float(fitted.estimate.values.get("E", 0.0))
        )
        gone = (
            runs_above_law.diverged(source.runs, source.diverged)
            if source.diverged is not None
            else []
        )
        found |= {"above": [*gone, *above], **({"collapse": curves} if curves else {})}
        told += [*runs_above_law.warnings(above), *loss_curve_collapse.warnings(curves)]
    return found, told
