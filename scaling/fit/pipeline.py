"""`scaling fit` as a function: sources and options in, a FitResult out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

import scaling
from scaling.errors import ScalingError
from scaling.fit import formula
from scaling.fit.bootstrap import fit_law
from scaling.fit.combination import Combination
from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics import repeated_data, synthetic_floor
from scaling.fit.diagnostics.diagnostics import Diagnostics, run_diagnostics
from scaling.fit.diagnostics.flagged_points import flag_points
from scaling.fit.diagnostics.holdout import holdout, rollout
from scaling.fit.diagnostics.results import FitWithoutFlagged, FlaggedPoints, Holdout, RolloutStep
from scaling.fit.document import Column, Estimate, FitStatus, estimates, subsample_draws
from scaling.fit.estimate import DELTA
from scaling.fit.frontier.approaches import agreement, estimate_frontiers, frontier_result
from scaling.fit.frontier.frontier import FrontierEstimate, cap_resamples
from scaling.fit.frontier.isoflop import grid_bias
from scaling.fit.law_fit import LawFit, exponents
from scaling.fit.law_weights import weigh_laws
from scaling.fit.laws.laws import LAWS
from scaling.fit.options import TABLE_LAWS, TWO_STAGE, FitOptions
from scaling.fit.profile import profile
from scaling.fit.result import (
    MAX_POINTS,
    SCHEMA,
    AccuracyStage,
    Approach,
    Bootstrap,
    Convention,
    Cost,
    Excluded,
    FitResult,
    Goodness,
    Identification,
    KaplanFit,
    ModelContext,
    Objective,
    ProfileInterval,
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
MAX_FAILED = 0.05  # of the refits, before a warning


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
        if source.points.weight is not None and not source.points.weight.all():
            kept = source.points.take(source.points.weight > 0, "weight 0")
            source = replace(source, points=kept)
        if options.written is not None:
            options, source = formula.with_points(options, source)
        if options.law == "kaplan-ns":
            points, notes, warnings = corrected(source.points)
            source = replace(
                source,
                points=points,
                notes=(*source.notes, *notes),
                warnings=(*warnings, *source.warnings),
            )
        if options.law != TWO_STAGE:
            return _result(source, options)
        from scaling.fit.special.two_stage import second_stage

        accuracy = second_stage(source.points, options)
        return _result(source, replace(options, law="chinchilla"), accuracy)


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


@dataclass(frozen=True)
class _Headline:
    """What the approach that heads the result says of itself."""

    objective: Objective
    params: dict[str, Estimate]
    derived: dict[str, Estimate]
    status: FitStatus
    warnings: Sequence[ResultWarning]
    bootstrap: Bootstrap | None
    identification: Identification | None = None
    goodness: Goodness | None = None


@dataclass(frozen=True)
class _Analyses:
    """What the analyses of a fitted law say."""

    diagnostics: Diagnostics | None = None
    flagged: Sequence[FlaggedPoints] = ()
    fit_without_flagged: FitWithoutFlagged | None = None
    combination: Combination | None = None
    holdout: Holdout | None = None
    rollout: Sequence[RolloutStep] | None = None
    warnings: Sequence[ResultWarning] = ()


def _result(
    source: Source, options: FitOptions, accuracy: AccuracyStage | None = None
) -> FitResult:
    """The result; each analysis is one call with the data and the fitted law."""
    data, approach = Dataset(source.points), cast(Approach, options.approach)
    fit: LawFit | None = None
    try:
        fit, reason = fit_law(data, options.law_named(options.law), options), ""
    except ScalingError as error:  # another approach can head the result
        if approach == "parametric":
            raise
        reason = error.what
    frontiers = estimate_frontiers(data, source.curves, fit or reason, options)
    if approach != "parametric" and frontiers[approach].unavailable:
        raise ScalingError(
            f"approach {approach}: {frontiers[approach].unavailable}",
            remedy="see --approach parametric, or add budgets and sizes",
        )
    if fit is not None and frontiers["isoflop"].frontier:
        bias, isoflop = grid_bias(data.points, fit.law, fit.theta, data.cost), frontiers["isoflop"]
        if bias:
            frontiers["isoflop"] = replace(isoflop, warnings=(*isoflop.warnings, bias))
    if fit is not None and approach == "parametric":
        head = _law_headline(fit, options)
    else:
        head = _frontier_headline(frontiers[approach], options)
    analyses = _analyses(source, fit, frontiers["isoflop"], options) if fit else _Analyses()
    diagnostics = analyses.diagnostics
    kaplan, kaplan_warnings = _kaplan(source, options)
    repeats, repeats_law = repeated_data.repeated_data(data, fit, options)
    entropy = synthetic_floor.known_entropy(source.runs)
    columns, points = _columns(data.points), data.points
    spans = dict(columns)
    if points.n is not None and points.d is not None:
        spans["tokens_per_param"] = points.d / points.n
    return FitResult(
        schema_version=SCHEMA,
        law=options.law,
        approach=approach,
        objective=head.objective,
        goodness=head.goodness,
        params=head.params,
        derived=head.derived,
        status=head.status,
        warnings=(
            *head.warnings,
            *source.warnings,
            *analyses.warnings,
            *repeated_data.uncounted(data, options.law),
            *kaplan_warnings,
        ),
        n_points=len(data),
        excluded=[Excluded(reason=reason, count=count) for reason, count in points.excluded],
        holdout=analyses.holdout,
        source=_source_info(source, options),
        version=scaling.__version__,
        ci=options.ci,
        cost=Cost(c0=data.cost.c0, p=data.cost.p),
        range={name: (float(values.min()), float(values.max())) for name, values in spans.items()},
        data=_data(points, columns),
        approaches={
            name: frontier_result(each, points, options) for name, each in frontiers.items()
        },
        approaches_agree=agreement(frontiers, points, options.ci),
        identification=head.identification,
        bootstrap=head.bootstrap,
        noise=diagnostics.noise if diagnostics else None,
        frontier_gap=diagnostics.frontier_gap if diagnostics else None,
        runs_above_law=diagnostics.runs_above_law if diagnostics else None,
        loss_curve_collapse=diagnostics.loss_curve_collapse if diagnostics else None,
        flagged=list(analyses.flagged),
        fit_without_flagged=analyses.fit_without_flagged,
        repeats=repeats,
        repeats_law=repeats_law,
        known_entropy=synthetic_floor.compare_floor(entropy, head.params.get("E")),
        rollout=None if analyses.rollout is None else list(analyses.rollout),
        kaplan=kaplan,
        combination=analyses.combination,
        accuracy=accuracy,
    )


def _analyses(
    source: Source, fit: LawFit, isoflop: FrontierEstimate, options: FitOptions
) -> _Analyses:
    """Each analysis is one call with the fitted law, which knows its data."""
    diagnostics = run_diagnostics(source, fit, options.ci)
    flagged, without_flagged, deciding = flag_points(fit, isoflop.minima)
    combination, budgets = _combination(fit.data, options), options.n_holdout_budgets()
    held_out, warnings = holdout(fit, budgets, options.ci, options.seed, combination is not None)
    return _Analyses(
        diagnostics=diagnostics,
        flagged=flagged,
        fit_without_flagged=without_flagged,
        combination=combination,
        holdout=held_out,
        rollout=rollout(fit, options.ci, options.seed) if options.rollout else None,
        warnings=[*deciding, *diagnostics.warnings, *warnings],
    )


def _combination(data: Dataset, options: FitOptions) -> Combination | None:
    """The combination of laws, where no law was named and no run repeats its data: the candidates
    do not know of repeats.
    """
    unique, d = data.points.others.get("U"), data.points.d
    repeats = unique is not None and d is not None and bool((d > 1.01 * unique).any())
    if not options.combined or repeats:
        return None
    return weigh_laws(data, options.objective or "huber-log", options.delta or DELTA)


def _law_headline(fit: LawFit, options: FitOptions) -> _Headline:
    """Approach 3: parameters, and how well the data settle them."""
    profiles, draws, warnings = profile(fit, options.ci), fit.draws, list(fit.warnings)
    open_names = [name for name, interval in profiles.items() if not interval.identified]
    params = fit.params(options.ci)
    for name, interval in profiles.items():
        if interval.lo is None or interval.hi is None:  # then a standard error says nothing
            params[name] = params[name].model_copy(update={"se": None})
    codes = {warning.code for warning in fit.warnings}
    if open_names and WarningCode.ILL_CONDITIONED not in codes:
        message = (
            f"not identified by these data: {', '.join(open_names)}: values far outside their "
            "intervals fit about as well"
        )
        warnings.append(warn(WarningCode.NOT_IDENTIFIED, message, params=open_names))
    if draws is not None and draws.failed > MAX_FAILED * draws.resamples:
        message = f"{draws.failed} of {draws.resamples} refits failed: the intervals are too narrow"
        warnings.append(warn(WarningCode.FAILED_RESAMPLES, message, failed=draws.failed))
    bootstrap = None
    if draws is not None:
        bootstrap = Bootstrap(
            kind=draws.kind,
            resamples=draws.resamples,
            seed=draws.seed,
            failed=draws.failed,
            draws=subsample_draws(fit.drawn),
        )
    is_open = open_names and fit.status is FitStatus.OK
    return _Headline(
        objective=fit.objective_result(),
        params=params,
        derived=fit.derived(options.ci),
        status=FitStatus.NOT_IDENTIFIED if is_open else fit.status,
        warnings=warnings,
        bootstrap=bootstrap,
        identification=Identification(
            profile={
                name: ProfileInterval(lo=each.lo, hi=each.hi, identified=each.identified)
                for name, each in profiles.items()
            },
            starts=fit.starts,
        ),
        goodness=fit.goodness(),
    )


def _frontier_headline(estimate: FrontierEstimate, options: FitOptions) -> _Headline:
    """Approach 1 or 2: N* = n_coef C^a, D* = d_coef C^b, L* = E + K C^-gamma."""
    assert estimate.frontier is not None
    drawn = estimate.draws.powers() if estimate.draws else {}
    count = len(drawn["a"]) if drawn else 0
    bootstrap = None
    if count:
        bootstrap = Bootstrap(
            kind="residual" if estimate.name == "isoflop" else "tracks",
            resamples=options.bootstrap,
            seed=options.seed,
            failed=options.bootstrap - count,
            draws=subsample_draws(drawn),
        )
    return _Headline(
        objective=Objective(name="least-squares", delta=None, value=None),
        params=estimates(estimate.frontier.powers(), drawn, options.ci),
        derived=exponents(estimate.frontier, estimate.draws, options.ci),
        status=FitStatus.OK,
        warnings=estimate.warnings,
        bootstrap=bootstrap,
    )


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
    resamples = cap_resamples(KAPLAN_RESAMPLES, len(points))
    try:
        fit = fit_law(Dataset(points), LAWS["kaplan"], options, resamples)
    except ScalingError as error:
        message = f"Kaplan's L(N, D) is not fitted: {error.what}"
        return None, [warn(WarningCode.KAPLAN_UNAVAILABLE, message)]
    return KaplanFit(
        law="kaplan",
        params=fit.params(options.ci),
        convention=Convention(**points.convention),
        objective=fit.objective_result(),
        status=fit.status,
        warnings=fit.warnings,
        goodness=fit.goodness(),
        **exponents(fit.optimum, fit.optimum_draws, options.ci),
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


def _data(points: Points, columns: dict[str, np.ndarray]) -> dict[str, Column | None]:
    """The points fitted, at most 5,000 of them, evenly picked in the order of the source."""
    rows = np.unique(np.linspace(0, len(points) - 1, min(len(points), MAX_POINTS)).astype(int))
    return {
        name: np.asarray(values)[rows].tolist()
        for name, values in {**columns, **points.others}.items()
    }
