"""`scaling fit` as a function: sources and options in, a FitResult out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

import scaling
from scaling.errors import ScalingError, with_location
from scaling.fit.bootstrap import fit_law
from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics import repeated_data
from scaling.fit.diagnostics.flagged_points import flag_points
from scaling.fit.diagnostics.holdout import holdout
from scaling.fit.diagnostics.runs_above_law import runs_above_law
from scaling.fit.document import FitStatus, estimates, evenly, subsample_draws
from scaling.fit.estimate import DELTA, LawFit
from scaling.fit.fit_options import TABLE_LAWS, TWO_STAGE, FitOptions
from scaling.fit.frontier.approaches import agreement, estimate_frontiers
from scaling.fit.frontier.estimate import FrontierEstimate
from scaling.fit.frontier.isoflop import grid_bias
from scaling.fit.law_weights import origin_warnings, weigh_laws
from scaling.fit.laws.formula import AS_WRITTEN, read_formula
from scaling.fit.laws.law import Law
from scaling.fit.laws.laws import LAWS, sum_of_powers
from scaling.fit.noise import noise_result, noise_warnings
from scaling.fit.profile import profile
from scaling.fit.result import (
    MAX_POINTS,
    SCHEMA,
    AccuracyStage,
    Approach,
    Bootstrap,
    Convention,
    Excluded,
    FitResult,
    Identification,
    ModelContext,
    Objective,
    SourceInfo,
)
from scaling.fit.special.critical_batch import corrected
from scaling.points.comparability import evaluation_of
from scaling.points.points import Points, source_label
from scaling.points.run_tables import MIN_PREFIXES
from scaling.points.source import Source, read_rows, read_source
from scaling.warning import ResultWarning, WarningCode, warn

__all__ = ["FitOptions", "FitResult", "fit"]

MAX_FAILED = 0.05  # of the refits, before a warning
# options that a source's filters name
RECORDED = ("minimum", "where", "drop_highest", "fix", "resample", "cluster", "eval_set")
Fields = dict[str, Any]  # of a FitResult, which checks them


def fit(paths: Sequence[Path | pd.DataFrame], options: FitOptions) -> FitResult:
    """The fit of sources of one kind: folders, files, or tables in memory.

    Raises ScalingError that names the source when nothing can be fitted.
    """
    if options.formula is not None:
        rows, tables, _ = read_rows(paths)  # the formula's inputs are columns, or named
        names = {str(name) for table in (*rows, *(part for _, part in tables)) for name in table}
        law = read_formula(options.formula, options.start, options.columns, names)
        options = replace(options, law=law.name, written=law, formula=None, start=None)
    options = options.resolved()
    if options.law in TABLE_LAWS:
        from scaling.fit.special.table_laws import SPECIAL

        with with_location(source_label(paths)):
            return SPECIAL[options.law].fit(paths, options)
    source = read_source(paths, options.source())
    # draws of what is not identified overflow: null in the document
    with with_location(source_label(paths)), np.errstate(all="ignore"):
        weight = source.points.weight
        if weight is not None and not weight.all():
            source = replace(source, points=source.points.take(weight > 0, "weight 0"))
        if options.written is not None:
            options, source = _with_points(options, source)
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


def _with_points(options: FitOptions, source: Source) -> tuple[FitOptions, Source]:
    """The inputs that a results folder's runs hold; the law as a sum of powers where it is one of
    positive terms, inputs and losses; and where losses are negative, the objective of losses in
    the place of that of their logs.
    """
    law, points, notes, runs = options.written, source.points, source.notes, source.runs
    assert law is not None
    if runs is not None:
        names = [
            name for name in law.inputs if name in runs.columns and name not in ("N", "D", "C")
        ]
        measured = {name: runs[name].to_numpy(float) for name in names}
        points = replace(points, others={**points.others, **measured})
    if (points.loss <= 0).any():
        objective = options.objective or law.default_objective
        objective = objective.removesuffix("-log").replace("lad", "huber")
        options = replace(options, objective=objective)
        law = replace(law, signed=True)
        notes = (*notes, f"losses below zero: the objective is {objective}, of losses")
    if powers := sum_of_powers(law):
        is_bounded = np.isfinite([param.bounds for param in law.params]).any()
        columns = points.inputs(law.inputs).values()
        if law.signed or is_bounded or any((column <= 0).any() for column in columns):
            law = replace(law, name=AS_WRITTEN + law.name[1:])
        else:
            law = powers
    options = replace(options, law=law.name, written=law)
    return options, replace(source, points=points, notes=notes)


def _result(
    source: Source, options: FitOptions, accuracy: AccuracyStage | None = None
) -> FitResult:
    """The result; each analysis is one call with the data and the fitted law."""
    data, approach = Dataset(source.points), cast(Approach, options.approach)
    law, fit = options.written or LAWS[options.law], None
    _check_values(law, data.points, options)
    is_fixed = set(law.names) <= options.fixed().keys()  # nothing is left that could vary
    try:
        fit, reason = fit_law(data, law, replace(options, bootstrap=0) if is_fixed else options), ""
    except ScalingError as error:  # another approach can head the result
        if approach == "parametric":
            raise
        reason = error.what
    frontiers = estimate_frontiers(data, source.curves, fit or reason, options)
    isoflop = frontiers["isoflop"]
    if fit and isoflop.frontier and (bias := grid_bias(data.points, fit.law, fit.theta, data.cost)):
        frontiers["isoflop"] = replace(isoflop, warnings=[*isoflop.warnings, bias])
    if fit is not None and approach == "parametric":
        headline, warnings = _law_headline(fit, options)
    else:
        headline, warnings = _frontier_headline(approach, frontiers[approach], options)
    warnings += source.warnings
    analyses: Fields = {"holdout": None}
    if fit is not None:
        analyses, more = _analyses(source, fit, isoflop, options)
        warnings += more
    if source.runs is not None:
        from scaling.fit.diagnostics.synthetic_floor import known_entropy
        from scaling.fit.frontier.planned_cost import planned_cost

        cost = planned_cost(data.cost, data.points, source.folders, source.model)
        entropy = known_entropy(source.runs, headline["params"].get("E"))
        analyses |= {"cost": cost, "known_entropy": entropy}
    r_d = fit.values.get("R_D") if fit else None
    content: Fields = {
        "law": options.law,
        "approach": approach,
        **headline,
        **_of_points(data.points),
        "warnings": (*warnings, *repeated_data.repeat_warning(data, options.law)),
        "source": SourceInfo(
            paths=source.paths,
            digest=source.digest,
            columns=source.columns,
            convention=Convention(**source.points.convention),
            notes=source.notes,
            model=ModelContext(**source.model),
            filters={name: x for name, x in options.changed().items() if name in RECORDED},
            evaluation=evaluation_of(source.runs, options.eval_set) or None,
        ),
        "ci": options.ci,
        "cost": data.cost,
        "approaches": {
            name: each.result(options.ci, options.bootstrap) for name, each in frontiers.items()
        },
        "approaches_agree": agreement(frontiers, data.points, options.ci),
        "repeats": repeated_data.repeated_runs(data, options.ci, r_d) or None,
        "accuracy": accuracy,
    }
    return FitResult(schema_version=SCHEMA, version=scaling.__version__, **content | analyses)


def _check_values(law: Law, points: Points, options: FitOptions) -> None:
    """Raise ScalingError for losses that say nothing of a law, for one group where groups are
    resampled, and for parameters fixed where the law has none or where most losses lie below.
    """
    loss, group, fixed = points.loss, points.group, options.fixed()
    if len(loss) > len(law.names) and np.ptp(loss) == 0:
        what = f"all {len(loss)} losses are {loss[0]:g}: no law follows from them"
        raise ScalingError(what, remedy='name the column of losses: --columns "L=..."')
    if options.cluster and group is not None and len(set(group)) == 1:
        what = f"all runs are one group of {options.cluster!r}: there is nothing to resample"
        raise ScalingError(what, where="--cluster", remedy="name another column, or leave it out")
    for param in law.params:
        low, high = (0.0, np.inf) if param.log else param.bounds
        if param.name == law.floor and np.isinf(high):  # a floor of losses, not of accuracies
            high = float(np.median(loss))
        value = fixed.get(param.name, high)
        if not low <= value <= high or (param.log and not value):
            what = f"{param.name} = {value:g} is not between {low:.4g} and {high:.4g}"
            raise ScalingError(what, where="--fix", remedy="fix it there, or leave it free")


def _law_headline(fit: LawFit, options: FitOptions) -> tuple[Fields, list[ResultWarning]]:
    """Approach 3: parameters, and which of them are identified."""
    profiles, warnings = profile(fit, options.ci), list(fit.warnings)
    open_names = [name for name, interval in profiles.items() if not interval.identified]
    params, bootstrap = fit.params(options.ci), None
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
    if fit.draws is not None:
        bootstrap = _bootstrap(fit.draws.kind, len(fit.draws.theta), fit.drawn, options)
        warnings += _interval_warnings(fit, bootstrap.failed, options)
    is_open = open_names and fit.status is FitStatus.OK
    return {
        "objective": Objective(
            name=fit.objective,
            delta=fit.delta,
            value=fit.value,
            delta_from_noise=fit.delta_from_noise,
        ),
        "goodness": fit.goodness(),
        "params": params,
        "derived": fit.derived(options.ci),
        "status": FitStatus.NOT_IDENTIFIED if is_open else fit.status,
        "identification": Identification(profile=profiles, starts=fit.starts),
        "bootstrap": bootstrap,
    }, warnings


def _interval_warnings(fit: LawFit, failed: int, options: FitOptions) -> list[ResultWarning]:
    """What makes bootstrap intervals too narrow: failed refits, few of them, few groups."""
    warnings, group = options.interval_warnings(), fit.data.points.group
    if failed > MAX_FAILED * options.bootstrap:
        result = "the intervals are too narrow" if fit.drawn else "no intervals"
        message = f"{failed} of {options.bootstrap} refits failed: {result}"
        warnings.append(warn(WarningCode.FAILED_RESAMPLES, message, failed=failed))
    if options.cluster and group is not None and (count := len(set(group))) < MIN_PREFIXES:
        message = (
            f"{options.cluster!r} has {count} groups, too few to resample whole: intervals may be "
            "too narrow"
        )
        warnings.append(warn(WarningCode.FEW_PREFIXES, message, prefixes=count))
    return warnings


def _frontier_headline(
    approach: Approach, estimate: FrontierEstimate, options: FitOptions
) -> tuple[Fields, list[ResultWarning]]:
    """Approach 1 or 2: N* = n_coef C^a, D* = d_coef C^b, L* = E + K C^-gamma."""
    if estimate.frontier is None:
        raise ScalingError(
            f"approach {approach}: {estimate.unavailable}",
            remedy="see --approach parametric, or add budgets and sizes",
        )
    drawn = estimate.draws.powers() if estimate.draws else {}
    count, kind = len(drawn.get("a", ())), "residual" if approach == "isoflop" else "tracks"
    warnings = estimate.result(options.ci, options.bootstrap).warnings
    return {
        "objective": Objective(name="least-squares", delta=None, value=None),
        "params": estimates(estimate.frontier.powers(), drawn, options.ci),
        "derived": estimate.exponents(options.ci),
        "status": FitStatus.OK,
        "bootstrap": _bootstrap(kind, count, drawn, options) if count else None,
    }, [*warnings, *options.interval_warnings()]


def _bootstrap(
    kind: str, count: int, drawn: Mapping[str, np.ndarray], options: FitOptions
) -> Bootstrap:
    """The draws of parameters, of which `count` succeeded."""
    return Bootstrap(
        kind=kind,
        resamples=options.bootstrap,
        seed=options.seed,
        failed=options.bootstrap - count,
        draws=subsample_draws(drawn),
    )


def _analyses(
    source: Source, fit: LawFit, isoflop: FrontierEstimate, options: FitOptions
) -> tuple[Fields, list[ResultWarning]]:
    """What is said of the runs by a fitted law, which knows its data."""
    data, ci, above, combination = fit.data, options.ci, None, None
    above_warnings: list[ResultWarning] = []
    noise = noise_result(data, fit.residuals, fit.noise, fit.n_free, ci)
    if source.runs is not None and source.evaluations is not None:
        above, above_warnings = runs_above_law(fit, source.runs, source.evaluations)
    if options.combined and not repeated_data.is_repeated(data).any():
        combination = weigh_laws(data, options.objective or "huber-log", options.delta or DELTA)
    is_combined = combination is not None
    flagged, without_flagged, deciding = flag_points(fit, isoflop.minima, is_combined)
    budgets = options.n_holdout_budgets()
    held_out, out_warnings = holdout(fit, budgets, ci, options.seed, combination)
    return {
        "noise": noise,
        "runs_above_law": above,
        "flagged": flagged,
        "fit_without_flagged": without_flagged,
        "combination": combination,
        "holdout": held_out,
    }, [
        *deciding,
        *noise_warnings(noise),
        *above_warnings,
        *out_warnings,
        *origin_warnings(combination),
    ]


def _of_points(points: Points) -> Fields:
    """What was fitted: the range of each column, and at most 5,000 points, evenly picked in the
    order of the source.
    """
    known = {"n_params": points.n, "tokens": points.d, "flops": points.c, "loss": points.loss}
    known |= points.others
    columns = {name: each for name, each in known.items() if each is not None}
    ranges = {name: (each.min(), each.max()) for name, each in columns.items()}
    if points.n is not None and points.d is not None:
        ratio = points.d / points.n
        ranges["tokens_per_param"] = ratio.min(), ratio.max()
    rows = evenly(len(points), MAX_POINTS)
    return {
        "n_points": len(points),
        "excluded": [Excluded(reason=reason, count=count) for reason, count in points.excluded],
        "range": ranges,
        "data": {name: each[rows] for name, each in columns.items()},
    }
