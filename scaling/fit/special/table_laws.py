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
from scaling.points.columns import column_named, list_names, parse_columns
from scaling.points.readers import IN_MEMORY, source_label, source_name
from scaling.points.row_filter import select
from scaling.points.source import SourceOptions, read_rows, read_source
from scaling.warning import WarningCode, warn

Rows = list[tuple[Path, pd.DataFrame]]
NOT_HERE = (
    "columns",
    "drop_highest",
    "approach",
    "minimum",
    "objective",
    "fix",
    "resample",
    "cluster",
)


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
    changed = options.changed()
    unused = [name.replace("_", "-") for name in NOT_HERE if name in changed and name != used]
    if unused:
        raise ScalingError(
            f"--{', --'.join(unused)} means nothing to the law {options.law}",
            remedy="leave it out; rename columns in the table",
        )


def _tables(paths: Sequence[Path | pd.DataFrame], options: FitOptions) -> tuple[Rows, str]:
    """The tables of all sources after `--where`, and the digest of their bytes.

    Raises ScalingError, also for options that such a table cannot follow.
    """
    _check_options(options)
    ours, rows, digest = read_rows(paths)
    rows += [(IN_MEMORY, table) for table in ours]
    if options.where:
        rows = [
            (file, table[select(options.where, {str(name): table[name] for name in table})])
            for file, table in rows
        ]
    rows = [(file, table) for file, table in rows if len(table)]
    if not rows:
        raise ScalingError(
            "no table, or no row left",
            where=source_label(paths),
            remedy="name tables, or loosen --where",
        )
    return rows, digest


def _column(path: Path, table: pd.DataFrame, names: Sequence[str]) -> str:
    """The first of the names that the table has. Raises ScalingError that lists its columns."""
    column = column_named(table, names)
    if column is None:
        raise ScalingError(
            f"no column {names[0]!r}",
            where=path,
            remedy=f"rename one; columns: {list_names(list(map(str, table.columns)))}",
        )
    return column


def _rows_by_label(path: Path, table: pd.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The rows of each label in the first column so named, or of the whole file."""
    column = column_named(table, names)
    if column is None:
        return {path.stem: np.arange(len(table))}
    labels = table[column].astype(str).to_numpy(str)
    return {str(label): np.flatnonzero(labels == label) for label in dict.fromkeys(labels)}


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
    defaults: dict[str, Any] = {
        "source": SourceInfo(paths=names, digest=digest, columns={}, convention=Convention()),
        "bootstrap": drawn if resampled and options.bootstrap else None,
        "warnings": (),
        "excluded": [],
        "range": {},
    }
    return FitResult(
        schema_version=SCHEMA,
        law=options.law,
        approach="parametric",
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
    tables, digest = _tables(paths, options)
    groups = [
        fit_coverage(*counts, options.bootstrap, options.seed, options.ci)
        for path, table in tables
        for counts in _counts(path, table)
    ]
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


def _counts(path: Path, table: pd.DataFrame) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Each model with the samples n and the right ones c of its problems. Raises ScalingError where
    more are right than were drawn.
    """
    columns = []
    for names in (("n", "samples", "num_samples"), ("c", "correct", "num_correct")):
        column = _column(path, table, names)
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
        if not (np.isfinite(values) & (values >= 0) & (values == np.round(values))).all():
            raise ScalingError(
                f"column {column!r} holds what is not a count",
                where=path,
                remedy="give whole numbers of at least 0",
            )
        columns.append(values.astype(int))
    n, c = columns
    for row in np.flatnonzero((c > n) | (n < 1)):
        what = f"row {row + 1} has {c[row]} right of {n[row]} samples"
        raise ScalingError(what, where=path, remedy="fix the row")
    groups = _rows_by_label(path, table, ["model"])
    return [(model, n[rows], c[rows]) for model, rows in groups.items()]


def annealing(paths: Sequence[Path | pd.DataFrame], options: FitOptions) -> FitResult:
    """The multi-power law of learning-rate schedules, one curve a file (or a `run` column): columns
    step, lr, loss.

    `--holdout` leaves out the K longest curves (1 by default), or those whose names match
    (`constant_72000,wsd_*`).
    """
    tables, digest = _tables(paths, options)
    curves = [curve for path, table in tables for curve in _curves(path, table)]
    out, delta = left_out(curves, options.holdout), options.delta or DELTA
    train = [curve for curve in curves if curve.name not in out]
    test = [curve for curve in curves if curve.name in out]
    values, value, starts = fit_annealing(train, delta)
    errors = {curve.name: goodness([curve], values).to_dict() for curve in curves}
    message = f"{len(train)} curves are too few to resample: no intervals"
    warnings = [warn(WarningCode.NO_INTERVALS, message)]
    if starts.agree < 2:
        warnings.append(starts_disagree(starts))
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


def _curves(path: Path, table: pd.DataFrame) -> list[Curve]:
    aliases = (("step", "steps"), ("lr", "learning_rate"), ("loss", "val_loss", "train_loss"))
    columns = np.array(
        [
            numeric(table, _column(path, table, names), allow_zero=names[0] != "loss")
            for names in aliases
        ]
    )
    measured = np.isfinite(columns).all(0)
    columns, table = columns[:, measured], table[measured]
    groups = _rows_by_label(path, table, ["run", "run_id", "curve"])
    return [Curve(name, *columns[:, rows]) for name, rows in groups.items()]


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
