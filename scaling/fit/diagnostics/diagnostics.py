"""The diagnostics of a sweep: the noise of seeds, runs above the law, the collapse of
loss curves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics import loss_curve_collapse, runs_above_law
from scaling.fit.diagnostics.results import CurveCollapse, FrontierGap, NoiseResult, RunAboveLaw
from scaling.fit.law_fit import LawFit
from scaling.fit.noise import noise_result, noise_warnings
from scaling.points.source import Source
from scaling.warning import ResultWarning


@dataclass(frozen=True)
class Diagnostics:
    """The parts of a FitResult that diagnose the runs, as far as the source allows."""

    noise: NoiseResult
    frontier_gap: list[FrontierGap]
    runs_above_law: list[RunAboveLaw] | None = None
    loss_curve_collapse: CurveCollapse | None = None
    warnings: list[ResultWarning] = field(default_factory=list)


def frontier_gap(data: Dataset, fit: LawFit) -> list[FrontierGap]:
    """For each budget how far its best run lies above the fitted L*(C)."""
    points, gaps = data.points, []
    if fit.optimum is None or points.n is None or points.c is None:
        return []
    for index in data.budgets:
        row = index[int(np.argmin(points.loss[index]))]
        optimal = fit.optimum.loss(float(points.c[row]))
        if optimal is not None:
            gaps.append(
                FrontierGap(
                    flops=float(points.c[row]),
                    n_params=float(points.n[row]),
                    loss=float(points.loss[row]),
                    optimal_loss=float(optimal),
                    excess=float(points.loss[row] / optimal - 1),
                )
            )
    return gaps


def run_diagnostics(source: Source, fit: LawFit, ci: float) -> Diagnostics:
    """All diagnostics that the source allows, with their warnings."""
    noise = noise_result(fit.data, fit.residuals, fit.noise, fit.n_free, ci)
    result = Diagnostics(noise, frontier_gap(fit.data, fit), warnings=noise_warnings(noise))
    if source.runs is None or source.evaluations is None:
        return result
    above = runs_above_law.runs_above_law(fit, source.runs, source.evaluations)
    curves = loss_curve_collapse.collapse(
        fit.data, source.evaluations, float(fit.values.get("E", 0.0))
    )
    diverged = (
        [] if source.diverged is None else runs_above_law.diverged(source.runs, source.diverged)
    )
    warnings = [
        *result.warnings,
        *runs_above_law.warnings(above),
        *loss_curve_collapse.warnings(curves),
    ]
    return Diagnostics(noise, result.frontier_gap, [*diverged, *above], curves, warnings)
