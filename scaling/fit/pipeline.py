"""`scaling fit`: sources and options in, the fit document out. All three roads, Kaplan's law and the hold-out, side by side."""

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
from scaling.fit.combination import Combination
from scaling.fit.combine import combine
from scaling.fit.diagnostics import flagged_points, repeated_data, synthetic_floor
from scaling.fit.diagnostics.diagnostics import run_diagnostics
from scaling.fit.diagnostics.holdout import holdout, rollout
from scaling.fit.fit_document import KEPT_POINTS, SCHEMA, interval, to_jsonable
from scaling.fit.frontier.approaches import (
    agreement,
    estimate_frontiers,
    frontier_header,
    frontier_to_dict,
)
from scaling.fit.frontier.frontier import cap_resamples, fit_cost
from scaling.fit.frontier.isoflop import grid_bias
from scaling.fit.law_fit import LawFit, exponents, fit_law, parametric_head
from scaling.fit.laws.laws import LAWS
from scaling.fit.options import TABLE_LAWS, TWO_STAGE, FitOptions
from scaling.fit.special.critical_batch import corrected
from scaling.points.comparability import evaluation_of
from scaling.points.points import Points
from scaling.points.readers import source_label
from scaling.points.source import Source, read_source

__all__ = ["FitOptions", "fit"]

BESIDE = 100  # resamples of a law fitted beside the one asked for


def fit(paths: Sequence[Path | pd.DataFrame], options: FitOptions) -> dict[str, Any]:
    """The fit document (DESIGN 8) of sources of one kind: folders, files, or tables in memory. Raises ScalingError that names them when nothing can be fitted."""
    options = options.resolved()
    if options.law in TABLE_LAWS:
        from scaling.fit.special.table_laws import SPECIAL

        with _named(paths):
            return SPECIAL[options.law].fit(paths, options)
    source = read_source(paths, options.source())
    with (
        _named(paths),
        np.errstate(all="ignore"),
    ):  # draws of what is not identified overflow: null in the document
        if options.law == "kaplan-ns":
            points, told = corrected(source.points)
            source = replace(source, points=points, notes=(*source.notes, *told))
        if options.law == TWO_STAGE:
            from scaling.fit.special.two_stage import second_stage

            document = _build_document(source, replace(options, law="chinchilla"))
            return to_jsonable({**document, "accuracy": second_stage(source.points, options)})
        return to_jsonable(_build_document(source, options))


@contextmanager
def _named(paths: Sequence[Path | pd.DataFrame]) -> Iterator[None]:
    """An error without a place is given that of the sources."""
    try:
        yield
    except ScalingError as error:
        where = error.where or source_label(paths)
        raise ScalingError(
            error.what, where=where, remedy=error.remedy, exit_code=error.exit_code
        ) from None


def _build_document(source: Source, options: FitOptions) -> dict[str, Any]:
    points, kind = source.points, options.approach
    fitted, refusal = _parametric(points, options)
    roads = estimate_frontiers(source, fitted, refusal, options)
    if kind != "parametric" and roads[kind].refused:
        raise ScalingError(
            f"approach {kind}: {roads[kind].refused}",
            remedy="see --approach parametric, or add budgets and sizes",
        )
    head = (
        parametric_head(fitted, points, options)
        if kind == "parametric" and fitted
        else frontier_header(roads[kind], kind, options)
    )
    combination = _combination(points, options)
    held, silence = (
        holdout(
            fitted.estimate,
            points,
            options.held_out(),
            options.ci,
            options.seed,
            combination is not None,
        )
        if fitted and options.held_out()
        else (None, "")
    )
    bias = (
        grid_bias(points, options.law, fitted.estimate.values, fitted.cost)
        if fitted and roads["isoflop"].frontier
        else None
    )
    kaplan, unfit = _kaplan(source, options)
    cost = fitted.cost if fitted else fit_cost(points)
    honest, doubts = run_diagnostics(source, fitted, options.ci)
    written = {name: frontier_to_dict(road, points, options) for name, road in roads.items()}
    if bias:
        written["isoflop"]["warnings"].append(bias)
    return {
        "schema": SCHEMA,
        "law": options.law,
        "approach": kind,
        **head,
        "warnings": [
            *head["warnings"],
            *source.warnings,
            *doubts,
            *repeated_data.uncounted(points, options.law),
            *([silence] if silence else []),
            *(each["message"] for each in (held or {}).get("warnings", [])),
            *unfit,
        ],
        "n_points": len(points),
        "excluded": [{"reason": reason, "count": count} for reason, count in points.excluded],
        **honest,
        **(
            flagged_points.report(points, fitted.estimate, roads["isoflop"].minima)
            if fitted
            else {"flagged": []}
        ),
        "holdout": held,
        "combination": combination.model_dump() if combination else None,
        **repeated_data.report(points, fitted, options),
        **(
            {"truth": known}
            if (
                known := synthetic_floor.compare_floor(
                    synthetic_floor.known_entropy(source.runs), head["params"].get("E")
                )
            )
            else {}
        ),
        **(
            {"rollout": rollout(fitted.estimate, points, options.ci, options.seed)}
            if options.rollout and fitted
            else {}
        ),
        "source": _source(source, options),
        "version": scaling.__version__,
        "ci": options.ci,
        "cost": {"c0": cost.c0, "p": cost.p},
        "range": _range(points),
        "data": _data(points),
        "roads": written,
        "agreement": agreement(roads, points, options.ci),
        **kaplan,
    }


def _combination(points: Points, options: FitOptions) -> Combination | None:
    """The combination of laws, where no law was asked for and no run repeats its data (the candidates do not know of repeats)."""
    unique = points.others.get("U")
    repeats = unique is not None and points.d is not None and bool((points.d > 1.01 * unique).any())
    return (
        None
        if not options.combined or repeats
        else combine(points, options.objective, options.delta)
    )


def _parametric(points: Points, options: FitOptions) -> tuple[LawFit | None, str]:
    """The fitted law; when another road heads the document, a refusal is a reason and no error."""
    try:
        return fit_law(points, options.law, options), ""
    except ScalingError as error:
        if options.approach == "parametric":
            raise
        return None, error.what


def _kaplan(source: Source, options: FitOptions) -> tuple[dict[str, Any], list[str]]:
    """Kaplan's L(N, D) on the same runs, counted as he counts where the source allows it; or why there is none."""
    points = source.kaplan or source.points
    if options.law == "kaplan" or not (
        points.n is not None
        and points.d is not None
        and {"N", "D"} <= set(LAWS[options.law].inputs)
    ):
        return {}, []
    try:
        fitted = fit_law(points, "kaplan", options, cap_resamples(BESIDE, len(points)))
    except ScalingError as error:
        return {}, [f"Kaplan's L(N, D) is not fitted: {error.what}"]
    found, drawn = fitted.estimate, fitted.drawn or {}
    return {
        "kaplan": {
            "law": "kaplan",
            "params": {
                name: interval(value, drawn.get(name), options.ci)
                for name, value in found.values.items()
            },
            "convention": dict(points.convention),
            "objective": {"name": found.objective, "delta": found.delta, "value": found.value},
            "status": found.status,
            "warnings": list(found.warnings),
            **exponents(fitted.optimum, fitted.optimum_draws, options.ci),
        }
    }, []


def _source(source: Source, options: FitOptions) -> dict[str, Any]:
    usual = FitOptions()
    names = ("where", "drop_highest", "cluster", "valley", "fix", "one_sided", "resample")
    filters = {
        name: getattr(options, name)
        for name in names
        if getattr(options, name) != getattr(usual, name)
    }
    return {
        "paths": list(source.paths),
        "digest": source.digest,
        "columns": dict(source.columns),
        "convention": dict(source.points.convention),
        "notes": list(source.notes),
        "model": dict(source.model),
        "filters": filters,
        **({"evaluation": known} if (known := evaluation_of(source.runs)) else {}),
    }


def _columns(points: Points) -> dict[str, np.ndarray | None]:
    return {"n_params": points.n, "tokens": points.d, "flops": points.c, "loss": points.loss}


def _range(points: Points) -> dict[str, list[float]]:
    return {
        name: [float(values.min()), float(values.max())]
        for name, values in _columns(points).items()
        if values is not None
    }


def _data(points: Points) -> dict[str, np.ndarray]:
    """The points fitted, at most 5,000 of them, evenly picked in the order of the source."""
    kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), KEPT_POINTS)).astype(int))
    return {
        name: values[kept]
        for name, values in {**_columns(points), **points.others}.items()
        if values is not None
    }
