"""Laws that are not fitted to one point a run: coverage from counts of right answers, annealing
from whole loss curves, hyper-parameters from grids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import scaling
from scaling.errors import ScalingError
from scaling.fit.document import Estimate, FitStatus
from scaling.fit.estimate import DELTA, starts_disagree
from scaling.fit.fit_options import FitOptions
from scaling.fit.frontier.frontier import Cost
from scaling.fit.result import (
    SCHEMA,
    Bootstrap,
    Convention,
    FitResult,
    Identification,
    Objective,
    SourceInfo,
)
from scaling.fit.special.annealing import NAMES, Curve, fit_annealing, goodness, left_out
from scaling.fit.special.hyper import FORMULA, REFERENCE, fit_hyper, recipe_notes
from scaling.fit.special.pass_at_k import fit_coverage
from scaling.fit.special.results import ScheduleErrors
from scaling.points.cells import numeric
from scaling.points.columns import column_named, list_names
from scaling.points.letters import parse_columns
from scaling.points.points import source_label, source_name
from scaling.points.row_filter import select
from scaling.points.source import SourceOptions, read_rows, read_source
from scaling.warning import WarningCode, warn

COUNTS = (("n", "samples", "num_samples"), ("c", "correct", "num_correct"))
CURVES = (("step", "steps"), ("lr", "learning_rate"), ("loss", "val_loss", "train_loss"))
USED = {"law", "where", "holdout", "delta", "bootstrap", "ci", "seed"}  # options of all these laws


@dataclass(frozen=True)
class Special:
    """A law with a table of its own: what it says, where it comes from, and the function that fits
    it.
    """

    formula: str
    reference: str
    fit: Callable[[Sequence[Path | pd.DataFrame], FitOptions], FitResult]


def _check_options(options: FitOptions, used: str = "") -> None:
    """Raise ScalingError for an option that the law would ignore."""
    unused = [name.replace("_", "-") for name in options.changed() if name not in {*USED, used}]
    if unused:
        raise ScalingError(
            f"--{', --'.join(unused)} means nothing to the law {options.law}",
            remedy="leave it out; rename columns in the table",
        )


def _read(
    paths: Sequence[Path | pd.DataFrame],
    options: FitOptions,
    columns: Sequence[Sequence[str]],
    label: Sequence[str],
) -> tuple[list[tuple[Path, np.ndarray, np.ndarray]], str]:
    """Of each table, after `--where`: its path, the columns (K, n) that go by one of some names
    each, and the label of each row (n,), or else the file's name. And the digest of all bytes.

    Raises ScalingError, also for options that such a table cannot follow.
    """
    _check_options(options)
    ours, foreign, digest = read_rows(paths)
    tables = []
    if ours:
        raise ScalingError(
            f"rows of this program hold no {' and '.join(names[0] for names in columns)}",
            where=source_label(paths),
            remedy=f"give tables with these columns, or a law other than {options.law}",
        )
    for path, table in foreign:
        if options.where:
            table = table[select(options.where, {str(name): table[name] for name in table})]
        if not len(table):
            continue
        values = []
        for names in columns:
            column = column_named(table, names)
            if column is None:
                raise ScalingError(
                    f"no column {names[0]!r}",
                    where=path,
                    remedy=f"rename one; columns: {list_names(list(map(str, table.columns)))}",
                )
            values.append(numeric(table, column, allow_zero=names[0] != "loss"))
        named = column_named(table, label)
        labels = [path.stem] * len(table) if named is None else table[named].astype(str)
        tables.append((path, np.array(values), np.array(labels, str)))
    if not tables:
        raise ScalingError(
            "no table, or no row left",
            where=source_label(paths),
            remedy="name tables, or loosen --where",
        )
    return tables, digest


def _document(
    paths: Sequence[Path | pd.DataFrame],
    digest: str,
    options: FitOptions,
    resampled: str = "",
    **fields: Any,
) -> FitResult:
    """A result with the keys that every fit has, filled where they apply; `resampled` names what
    the bootstrap draws.
    """
    drawn = Bootstrap(
        kind=resampled, resamples=options.bootstrap, seed=options.seed, failed=0, draws={}
    )
    names = list(map(source_name, paths))
    warnings = (*fields.pop("warnings", ()), *(options.interval_warnings() if resampled else ()))
    defaults: dict[str, Any] = {
        "source": SourceInfo(paths=names, digest=digest, columns={}, convention=Convention()),
        "bootstrap": drawn if resampled and options.bootstrap else None,
        "excluded": [],
        "range": {},
    }
    return FitResult(
        schema_version=SCHEMA,
        law=options.law,
        approach="parametric",
        warnings=warnings,
        version=scaling.__version__,
        ci=options.ci,
        cost=Cost(),
        derived={},
        status=FitStatus.OK,
        holdout=None,
        approaches={},
        data={},
        **defaults | fields,
    )


def coverage(paths: Sequence[Path | pd.DataFrame], options: FitOptions) -> FitResult:
    """-log pass@k = a k^-b of each model in tables of counts: columns n (samples) and c (right),
    and model where there are several.
    """
    tables, digest = _read(paths, options, COUNTS, ["model"])
    groups = []
    for path, (n, c), models in tables:
        if not (np.isfinite(n + c) & (n + c == np.round(n) + np.round(c))).all():
            raise ScalingError(
                "a column of counts holds what is not a count",
                where=path,
                remedy="give whole numbers of at least 0 in n and c",
            )
        for row in np.flatnonzero((c > n) | (n < 1)):
            what = f"row {row + 1} has {c[row]:g} right of {n[row]:g} samples"
            raise ScalingError(what, where=path, remedy="fix the row")
        for model in dict.fromkeys(models):
            drawn, right = (each[models == model].astype(int) for each in (n, c))
            fit = fit_coverage(
                str(model), drawn, right, options.bootstrap, options.seed, options.ci
            )
            groups.append(fit)
    params: dict[str, Estimate] = {}
    for group in groups:
        tail = f"[{group.model}]" if len(groups) > 1 else ""
        params |= {f"a{tail}": group.a, f"b{tail}": group.b}
    name = "least squares of log(-log pass@k) on log k"
    return _document(
        paths,
        digest,
        options,
        "problems",
        objective=Objective(name=name, delta=None, value=None),
        params=params,
        n_points=sum(group.problems for group in groups),
        groups=groups,
    )


def annealing(paths: Sequence[Path | pd.DataFrame], options: FitOptions) -> FitResult:
    """The multi-power law of learning-rate schedules, one curve a file (or a `run` column): columns
    step, lr, loss.

    `--holdout` leaves out the K longest curves (1 by default), or those whose names match
    (`constant_72000,wsd_*`).
    """
    tables, digest = _read(paths, options, CURVES, ["run", "run_id", "curve"])
    curves = []
    for _, columns, names in tables:
        measured = np.isfinite(columns).all(0)
        curves += [
            Curve(str(name), *columns[:, measured & (names == name)])
            for name in dict.fromkeys(names[measured])
        ]
    out, delta = left_out(curves, options.holdout), options.delta or DELTA
    train = [curve for curve in curves if curve.name not in out]
    test = [curve for curve in curves if curve.name in out]
    values, value, starts = fit_annealing(train, delta)
    errors = {curve.name: goodness([curve], values).to_dict() for curve in curves}
    message = f"{len(train)} curves are too few to resample: no intervals"
    warnings = [warn(WarningCode.NO_INTERVALS, message)]
    if starts.agree < 2:
        warnings.append(starts_disagree(starts))
    if not test and str(options.holdout or 1).strip().lower() != "none":
        message = f"no hold-out: {len(curves)} curves are too few to leave some out"
        warnings.append(warn(WarningCode.NO_HOLDOUT, message))
    return _document(
        paths,
        digest,
        options,
        objective=Objective(name="huber-log", delta=delta, value=value),
        params={name: Estimate.of(values[name], None, options.ci) for name in NAMES},
        warnings=tuple(warnings),
        n_points=sum(len(curve.loss) for curve in train),
        schedules=[
            ScheduleErrors(name=name, held_out=name in out, **each) for name, each in errors.items()
        ],
        test=goodness(test, values) if test else None,
        identification=Identification(profile={}, starts=starts),
    )


def hyper_parameters(paths: Sequence[Path | pd.DataFrame], options: FitOptions) -> FitResult:
    """lr*(N, D) and B*(N, D) as powers, of runs over learning rates and batches at several N, D."""
    _check_options(options, used="columns")
    columns = parse_columns(options.columns) if options.columns else {}
    wanted = SourceOptions(columns=columns, where=options.where, inputs=("N", "D", "LR", "B"))
    source = read_source(paths, wanted)
    fields = fit_hyper(source, options)
    fields["source"] = SourceInfo(
        paths=source.paths,
        digest=source.digest,
        columns=source.columns,
        convention=Convention(**source.points.convention),
        notes=[*source.notes, *recipe_notes(fields["params"])],
    )
    return _document(paths, source.digest, options, "cells", **fields)


SPECIAL = {
    "hyper": Special(FORMULA, REFERENCE, hyper_parameters),
    "coverage": Special(
        "-log pass@k = a k^-b", "Brown et al. 2024, eq. 1; Schaeffer et al. 2025", coverage
    ),
    "lr-annealing": Special(
        "L = L0 + A S1^-alpha - B sum_k (eta_(k-1) - eta_k) (1 - (1 + C eta_k^-gamma S_k)^-beta)",
        "Luo et al. 2025, eq. 1 to 3",
        annealing,
    ),
}
