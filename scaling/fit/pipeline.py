"""`scaling fit` as a function: sources and options in, a FitResult out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import scaling
from scaling.errors import ScalingError
from scaling.fit import formula
from scaling.fit.combination import Combination
from scaling.fit.combine import combine
from scaling.fit.diagnostics import flagged_points, repeated_data, synthetic_floor
from scaling.fit.diagnostics.diagnostics import run_diagnostics
from scaling.fit.diagnostics.holdout import holdout, rollout
from scaling.fit.document import FitStatus, estimates
from scaling.fit.frontier.approaches import (
    agreement,
    estimate_frontiers,
    frontier_result,
    powers,
)
from scaling.fit.frontier.frontier import FrontierEstimate, cap_resamples, fit_cost
from scaling.fit.frontier.isoflop import grid_bias
from scaling.fit.law_fit import bootstrap_result, exponents, fit_law, parametric_fields
from scaling.fit.laws.laws import LAWS
from scaling.fit.options import TABLE_LAWS, TWO_STAGE, FitOptions
from scaling.fit.result import (
    MAX_POINTS,
    SCHEMA,
    Convention,
    Cost,
    Excluded,
    FitResult,
    KaplanFit,
    ModelContext,
    Objective,
    SourceInfo,
)
from scaling.fit.special.critical_batch import corrected
from scaling.points.comparability import evaluation_of
from scaling.points.points import Points
from scaling.points.readers import source_label
from scaling.points.source import Source, read_source
from scaling.warning import ResultWarning, WarningCode, warn

__all__ = ["FitOptions", "FitResult", "fit"]

KAPLAN_RESAMPLES = 100


def fit(paths: Sequence[Path | pd.DataFrame], options: FitOptions) -> FitResult:
    """The fit of sources of one kind: folders, files, or tables in memory.

    Raises ScalingError that names the source when nothing can be fitted.
    """
    if options.formula is not None:
        options = formula.with_law(options, paths)
    options = options.resolved()
    if options.law in TABLE_LAWS:
        from scaling.fit.special.table_laws import SPECIAL

        with _errors_name(paths):
            return SPECIAL[options.law].fit(paths, options)
    source = read_source(paths, options.source())
    # draws of what is not identified overflow: null in the document
    with _errors_name(paths), np.errstate(all="ignore"):
        warnings: list[ResultWarning] = []
        if options.written is not None:
            options, source = formula.with_points(options, source)
        if options.law == "kaplan-ns":
            points, notes, warnings = corrected(source.points)
            source = replace(source, points=points, notes=(*source.notes, *notes))
        if options.law != TWO_STAGE:
            return FitResult(**_fields(source, options, warnings))
        from scaling.fit.special.two_stage import second_stage

        fields = _fields(source, replace(options, law="chinchilla"), warnings)
        return FitResult(**fields, accuracy=second_stage(source.points, options))


@contextmanager
def _errors_name(paths: Sequence[Path | pd.DataFrame]) -> Iterator[None]:
    """Give an error without a place that of the sources."""
    try:
        yield
    except ScalingError as error:
        where = error.where or source_label(paths)
        raise ScalingError(
            error.what, where=where, remedy=error.remedy, exit_code=error.exit_code
        ) from None


def _fields(
    source: Source, options: FitOptions, warnings: Sequence[ResultWarning]
) -> dict[str, Any]:
    """The fields of a FitResult; each analysis is one call with the points and the fitted law."""
    points, approach = source.points, options.approach
    try:
        law_fit, reason = fit_law(points, options.law, options), ""
    except ScalingError as error:  # another approach can head the result
        if approach == "parametric":
            raise
        law_fit, reason = None, error.what
    frontiers = estimate_frontiers(source, law_fit, reason, options)
    if approach != "parametric" and frontiers[approach].unavailable:
        raise ScalingError(
            f"approach {approach}: {frontiers[approach].unavailable}",
            remedy="see --approach parametric, or add budgets and sizes",
        )
    if law_fit is not None and approach == "parametric":
        fields = parametric_fields(law_fit, points, options)
    else:
        fields = _frontier_fields(frontiers[approach], options)
    approaches = {name: frontier_result(each, points, options) for name, each in frontiers.items()}
    analysis_warnings: list[ResultWarning] = []
    if law_fit is not None:
        fitted = law_fit.estimate
        if frontiers["isoflop"].frontier and (
            bias := grid_bias(points, options.law, fitted.values, law_fit.cost)
        ):
            isoflop = approaches["isoflop"]
            update = {"warnings": (*isoflop.warnings, bias)}
            approaches["isoflop"] = isoflop.model_copy(update=update)
        diagnostics, analysis_warnings = run_diagnostics(source, law_fit, options.ci)
        fields |= diagnostics
        fields |= flagged_points.report(points, fitted, frontiers["isoflop"].minima)
        if options.rollout:
            fields["rollout"] = rollout(fitted, points, options.ci, options.seed)
        combination = _combination(points, options)
        fields["combination"] = combination
        held_out, holdout_warnings = holdout(
            fitted,
            points,
            options.n_holdout_budgets(),
            options.ci,
            options.seed,
            combination is not None,
        )
        fields["holdout"] = held_out
        analysis_warnings = [
            *analysis_warnings,
            *repeated_data.uncounted(points, options.law),
            *holdout_warnings,
        ]
    else:
        analysis_warnings = repeated_data.uncounted(points, options.law)
    kaplan, no_kaplan = _kaplan(source, options)
    cost = law_fit.cost if law_fit else fit_cost(points)
    entropy = synthetic_floor.known_entropy(source.runs)
    return {
        "schema_version": SCHEMA,
        "law": options.law,
        "approach": approach,
        "holdout": None,
        **fields,
        "warnings": (
            *warnings,
            *fields["warnings"],
            *source.warnings,
            *analysis_warnings,
            *no_kaplan,
        ),
        "n_points": len(points),
        "excluded": [Excluded(reason=reason, count=count) for reason, count in points.excluded],
        **repeated_data.report(points, law_fit, options),
        "known_entropy": synthetic_floor.compare_floor(entropy, fields["params"].get("E")),
        "source": _source_info(source, options),
        "version": scaling.__version__,
        "ci": options.ci,
        "cost": Cost(c0=cost.c0, p=cost.p),
        "range": _ranges(points),
        "data": _data(points),
        "approaches": approaches,
        "approaches_agree": agreement(frontiers, points, options.ci),
        "kaplan": kaplan,
    }


def _combination(points: Points, options: FitOptions) -> Combination | None:
    """The combination of laws, where no law was named and no run repeats its data: the candidates
    do not know of repeats.
    """
    unique = points.others.get("U")
    repeats = unique is not None and points.d is not None and bool((points.d > 1.01 * unique).any())
    if not options.combined or repeats:
        return None
    return combine(points, options.objective, options.delta)


def _frontier_fields(estimate: FrontierEstimate, options: FitOptions) -> dict[str, Any]:
    """The fields that approach 1 or 2 fills: N* = n_coef C^a, D* = d_coef C^b, L* = E +
    K C^-gamma.
    """
    assert estimate.frontier is not None
    drawn = powers(estimate.draws) if estimate.draws else {}
    count = len(drawn["a"]) if drawn else 0
    kind = "residual" if estimate.name == "isoflop" else "tracks"
    failed = options.bootstrap - count
    return {
        "objective": Objective(name="least-squares", delta=None, value=None),
        "params": estimates(powers(estimate.frontier), drawn, options.ci),
        "derived": exponents(estimate.frontier, estimate.draws, options.ci),
        "status": FitStatus.OK,
        "warnings": estimate.warnings,
        "bootstrap": bootstrap_result(kind, options.bootstrap, failed, options, drawn)
        if count
        else None,
    }


def _kaplan(source: Source, options: FitOptions) -> tuple[KaplanFit | None, list[ResultWarning]]:
    """Kaplan's L(N, D) on the same runs, by Kaplan's counting where the source allows it; or why
    there is none.
    """
    points = source.kaplan or source.points
    if (
        options.law == "kaplan"
        or points.n is None
        or points.d is None
        or not {"N", "D"} <= set(LAWS[options.law].inputs)
    ):
        return None, []
    try:
        law_fit = fit_law(points, "kaplan", options, cap_resamples(KAPLAN_RESAMPLES, len(points)))
    except ScalingError as error:
        message = f"Kaplan's L(N, D) is not fitted: {error.what}"
        return None, [warn(WarningCode.KAPLAN_UNAVAILABLE, message)]
    return KaplanFit(
        law="kaplan",
        params=law_fit.params(options.ci),
        convention=Convention(**points.convention),
        objective=law_fit.objective(),
        status=law_fit.estimate.status,
        warnings=law_fit.estimate.warnings,
        **exponents(law_fit.optimum, law_fit.optimum_draws, options.ci),
    ), []


def _source_info(source: Source, options: FitOptions) -> SourceInfo:
    defaults = FitOptions()
    names = ("where", "drop_highest", "cluster", "minimum", "fix", "one_sided", "resample")
    return SourceInfo(
        paths=list(source.paths),
        digest=source.digest,
        columns=dict(source.columns),
        convention=Convention(**source.points.convention),
        notes=list(source.notes),
        model=ModelContext(**source.model),
        filters={
            name: getattr(options, name)
            for name in names
            if getattr(options, name) != getattr(defaults, name)
        },
        evaluation=evaluation_of(source.runs) or None,
    )


def _columns(points: Points) -> dict[str, np.ndarray]:
    columns = {"n_params": points.n, "tokens": points.d, "flops": points.c, "loss": points.loss}
    return {name: values for name, values in columns.items() if values is not None}


def _ranges(points: Points) -> dict[str, tuple[float, float]]:
    """The least and largest of each column, and of tokens per parameter."""
    columns = _columns(points)
    if points.n is not None and points.d is not None:
        columns["tokens_per_param"] = points.d / points.n
    return {name: (float(values.min()), float(values.max())) for name, values in columns.items()}


def _data(points: Points) -> dict[str, list[float | None]]:
    """The points fitted, at most 5,000 of them, evenly picked in the order of the source."""
    rows = np.unique(np.linspace(0, len(points) - 1, min(len(points), MAX_POINTS)).astype(int))
    return {
        name: np.asarray(values)[rows].tolist()
        for name, values in {**_columns(points), **points.others}.items()
    }
