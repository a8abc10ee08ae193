"""lr*(N, D) and B*(N, D) of a table of runs over learning rates and batches, as powers.

In each cell (one N and D) the log of the loss over the best of the cell is a parabola in log lr and
log B near its minimum. One curvature for all cells and a minimum that moves with log N and log D
make the whole a linear regression; what a grid's own points miss (its ends, its steps, the noise of
the best of many runs) is then averaged over. Cells are resampled whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.fit.document import Estimate
from scaling.fit.fit_options import FitOptions
from scaling.fit.result import Excluded, Objective
from scaling.points.points import Points, Source
from scaling.points.repeated_rows import group_within_1_percent
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray

NEAR_BEST = 0.005  # of the lowest loss of its cell: where a parabola holds
MIN_CELLS, MIN_ROWS = 3, 4
LETTERS = {"LR": "lr", "B": "B"}  # that are optimised, as parameters name them
FORMULA = "lr* = lr_coef N^lr_N D^lr_D, B* = B_coef N^B_N D^B_D"
REFERENCE = "Li et al. 2025, Step Law, eq. 1; Bjorck et al. 2024"


def fit_hyper(source: Source, options: FitOptions) -> dict[str, Any]:
    """The powers of lr* and B*, as fields of a FitResult. Raises ScalingError for a grid that holds
    no minimum.
    """
    points = source.points
    if points.n is None or points.d is None:
        raise ScalingError("the table has no N and D", remedy='name them: --columns "N=...,D=..."')
    if not set(LETTERS) & set(points.others):
        raise ScalingError(
            "the table has no column of learning rates or batches",
            remedy='name them: --columns "lr=...,B=...,N=...,D=...,L=loss"',
        )
    counts = {"n_params": points.n, "tokens": points.d}
    keys = pd.DataFrame({name: group_within_1_percent(each) for name, each in counts.items()})
    cell = np.asarray(keys.groupby(list(counts), sort=False).ngroup())
    best = pd.Series(points.loss).groupby(cell).transform("min").to_numpy()
    varied = [
        letter
        for letter in LETTERS
        if letter in points.others
        and pd.Series(points.others[letter]).groupby(cell).nunique().max() > 2
    ]
    if not varied:
        raise ScalingError(
            "no cell of one N and D holds three learning rates or batches",
            remedy="give the runs of a grid: several lr or B at each N and D",
        )
    near = pd.Series(points.loss <= best * (1 + NEAR_BEST))
    rows = np.flatnonzero(near & (near.groupby(cell).transform("sum") >= MIN_ROWS))
    kept, label = np.unique(cell[rows], return_inverse=True)
    if len(kept) < MIN_CELLS:
        raise ScalingError(
            f"{len(kept)} cells of one N and D hold {MIN_ROWS} runs within "
            f"{100 * NEAR_BEST:g} % of their best",
            remedy=f"{MIN_CELLS} are needed: train finer grids near the best settings",
        )
    logs = {letter: np.log(points.others[letter][rows]) for letter in varied}
    sizes = {
        name: np.log(values[rows])
        for name, values in zip("ND", counts.values(), strict=True)
        if len(np.unique(group_within_1_percent(values[rows]))) > 1
    }
    target = np.log(points.loss[rows] / best[rows])
    powers, rmse = _minima(logs, sizes, target, label, options.bootstrap, options.seed)
    warnings = [*source.warnings, *_at_ends(points, cell, kept, varied)]
    if len(sizes) < 2:
        message = f"{' and '.join({'N', 'D'} - set(sizes))} takes one value: no power of it"
        warnings.append(warn(WarningCode.NOT_IDENTIFIED, message))
    name = "least squares of log loss about a moving minimum"
    reason = f"more than {100 * NEAR_BEST:g} % above the best of their N and D"
    excluded = [*points.excluded, (reason, len(points) - len(rows))]
    return {
        "objective": Objective(name=name, delta=None, value=rmse),
        "params": _estimates(powers, sizes, options.ci),
        "n_points": len(rows),
        "excluded": [Excluded(reason=why, count=count) for why, count in excluded if count],
        "warnings": tuple(warnings),
        "range": {name: (each.min(), each.max()) for name, each in counts.items()},
    }


def _estimates(
    powers: Mapping[str, tuple[Array, Array]], sizes: Iterable[str], ci: float
) -> dict[str, Estimate]:
    """The coefficient and the powers of each hyper-parameter, with intervals of their draws."""
    params = {}
    for letter, (values, draws) in powers.items():
        name = LETTERS[letter]
        log_coef = Estimate.of(values[0], draws[:, 0], ci)
        ends = (log_coef.value, log_coef.lo, log_coef.hi)
        value, lo, hi = (None if end is None else float(np.exp(end)) for end in ends)
        params[f"{name}_coef"] = Estimate(value=value, se=None, lo=lo, hi=hi)
        for index, size in enumerate(sizes, start=1):
            params[f"{name}_{size}"] = Estimate.of(values[index], draws[:, index], ci)
    return params


def _minima(
    logs: dict[str, Array],
    sizes: dict[str, Array],
    target: Array,
    label: Array,
    resamples: int,
    seed: int,
) -> tuple[dict[str, tuple[Array, Array]], float]:
    """The moving minimum of one parabola, each cell with a level of its own; cells resampled.

    By letter the log coefficient and powers, and their draws (R, 1 + sizes); and the root mean
    square that the parabolas leave.
    """
    means = {name: values.mean() for name, values in (logs | sizes).items()}
    x = [values - means[name] for name, values in logs.items()]
    z = [np.ones(len(target)), *(values - means[name] for name, values in sizes.items())]
    count, width = len(x), len(z)
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    squares = [x[i] * x[j] for i, j in pairs]
    features = np.column_stack([*squares, *(each * by for each in x for by in z), target])
    n_cells = int(label.max()) + 1
    sums = np.zeros((n_cells, features.shape[1]))
    np.add.at(sums, label, features)
    features = features - (sums / np.bincount(label)[:, None])[label]
    products = np.zeros((n_cells, features.shape[1], features.shape[1]))
    np.add.at(products, label, features[:, :, None] * features[:, None, :])
    random = np.random.default_rng(seed)
    weights = random.multinomial(n_cells, np.full(n_cells, 1 / n_cells), size=resamples)
    weights = np.concatenate([np.ones((1, n_cells)), weights])
    normal = np.einsum("rc,cij->rij", weights, products)
    ridge = 1e-12 * np.eye(features.shape[1] - 1) * np.trace(normal[0]) / features.shape[1]
    solved = np.linalg.solve(normal[:, :-1, :-1] + ridge, normal[:, :-1, -1:])[..., 0]
    curvature = np.empty((len(solved), count, count))
    for place, (i, j) in enumerate(pairs):
        share = 2.0 if i == j else 1.0
        curvature[:, i, j] = curvature[:, j, i] = share * solved[:, place]
    slopes = solved[:, len(squares) :].reshape(len(solved), count, width)
    is_convex = np.asarray((np.linalg.eigvalsh(curvature) > 0).all(axis=1))
    if not is_convex[0]:
        raise ScalingError(
            f"the loss has no minimum in {' and '.join(LETTERS[each] for each in logs)} near the "
            "best runs",
            remedy="widen the grid, so that both ends are worse than the middle",
        )
    minima = -np.linalg.solve(curvature[is_convex], slopes[is_convex])
    powers = {}
    for index, letter in enumerate(logs):
        rows = minima[:, index, :].copy()
        rows[:, 0] += means[letter] - rows[:, 1:] @ np.array([means[name] for name in sizes])
        powers[letter] = (rows[0], rows[1:])
    left = normal[0, -1, -1] - solved[0] @ normal[0, :-1, -1]
    freedom = max(1, len(target) - n_cells - solved.shape[1])
    return powers, float(np.sqrt(max(left, 0.0) / freedom))


def _at_ends(points: Points, cell: Array, kept: Array, varied: list[str]) -> list[ResultWarning]:
    """A warning for each hyper-parameter whose best value lies at the end of most cells' grids."""
    frame = pd.DataFrame({"cell": cell, "loss": points.loss})
    best = frame.loc[frame["cell"].isin(kept)].groupby("cell")["loss"].idxmin()
    warnings = []
    for letter in varied:
        values = pd.Series(points.others[letter])
        ends = values.groupby(cell).agg(["min", "max"]).loc[best.index]
        chosen = values.loc[best].to_numpy()
        at_end = int(((chosen == ends["min"]) | (chosen == ends["max"])).sum())
        if 4 * at_end > len(best):
            message = (
                f"the best {LETTERS[letter]} lies at the end of its grid in {at_end} of "
                f"{len(best)} cells: widen the grid"
            )
            warnings.append(
                warn(WarningCode.GRID_EDGE, message, field=LETTERS[letter], at_edge=at_end)
            )
    return warnings


def recipe_notes(params: Mapping[str, Estimate]) -> list[str]:
    """The lines of a sweep file's [recipe] that follow these powers."""
    lines = []
    for name, key in (("lr", "lr_rule"), ("B", "batch_rule")):
        if f"{name}_coef" in params:
            values = [params.get(f"{name}_{part}") for part in ("coef", "N", "D")]
            coef, n, d = (0.0 if each is None else each.value for each in values)
            powers = f"n_power = {n:.4g}, d_power = {d:.4g}"
            lines.append(f"[recipe] {key} = {{coef = {coef:.4g}, {powers}}}")
    return lines
