"""The diagnostics of a sweep: the noise of seeds, runs above the law, the collapse of
loss curves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scaling.fit.diagnostics import loss_curve_collapse, runs_above_law, seed_noise
from scaling.fit.diagnostics.results import FrontierGap
from scaling.fit.frontier.budgets import budgets
from scaling.fit.law_fit import LawFit
from scaling.points.points import Points
from scaling.points.source import Source
from scaling.warning import ResultWarning


def frontier_gap(points: Points, fitted: LawFit) -> list[FrontierGap]:
    """For each budget how far its best run lies above the fitted L*(C)."""
    if fitted.optimum is None or points.n is None or points.c is None:
        return []
    gaps = []
    for index in budgets(points.n, points.c, points.budget):
        row = index[int(np.argmin(points.loss[index]))]
        best = fitted.optimum.loss(float(points.c[row]))
        if best is not None:
            loss, least = float(points.loss[row]), float(best)
            gaps.append(
                FrontierGap(
                    flops=float(points.c[row]),
                    n_params=float(points.n[row]),
                    loss=loss,
                    optimal_loss=least,
                    excess=loss / least - 1,
                )
            )
    return gaps


def run_diagnostics(
    source: Source, fitted: LawFit, ci: float
) -> tuple[dict[str, Any], list[ResultWarning]]:
    """The fields of a FitResult that diagnostics fill, as far as the source allows, and their
    warnings.
    """
    spread = seed_noise.report(source.points, fitted.estimate, ci)
    fields: dict[str, Any] = {
        "noise": spread,
        "frontier_gap": frontier_gap(source.points, fitted),
    }
    warnings = seed_noise.warnings(spread)
    if source.runs is not None and source.evaluations is not None:
        above = runs_above_law.runs_above_law(
            source.points, source.runs, source.evaluations, fitted.estimate, spread.sd or 0.0
        )
        curves = loss_curve_collapse.collapse(
            source.points, source.evaluations, float(fitted.estimate.values.get("E", 0.0))
        )
        diverged = (
            runs_above_law.diverged(source.runs, source.diverged)
            if source.diverged is not None
            else []
        )
        fields |= {"runs_above_law": [*diverged, *above], "loss_curve_collapse": curves}
        warnings += [*runs_above_law.warnings(above), *loss_curve_collapse.warnings(curves)]
    return fields, warnings
