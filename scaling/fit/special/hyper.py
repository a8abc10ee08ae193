"""lr*(N, D) and B*(N, D) of a table of runs over learning rates and batches, as powers.

In each cell (one N and D) the log of the loss over the best of the cell is a parabola in log lr and
log B near its minimum. One curvature for all cells and a minimum that moves with log N and log D
make the whole a linear regression; what a grid's own points miss (its ends, its steps, the noise of
the best of many runs) is then averaged over. Cells are resampled whole.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    params, rmse = _minima(logs, sizes, target, label, options)
    warnings = [*source.warnings, *_at_ends(points, cell, kept, varied)]
    if len(sizes) < 2:
        message = f"{' and '.join({'N', 'D'} - set(sizes))} takes one value: no power of it"
        warnings.append(warn(WarningCode.NOT_IDENTIFIED, message))
    name = "least squares of log loss about a moving minimum"
    reason = f"more than {100 * NEAR_BEST:g} % above the best of their N and D"
    excluded = [*points.excluded, (reason, len(points) - len(rows))]
    return {
        "objective": Objective(name=name, delta=None, value=rmse),
        "params": params,
        "n_points": len(rows),
        "excluded": [Excluded(reason=why, count=count) for why, count in excluded if count],
        "warnings": tuple(warnings),
        "range": {name: (each.min(), each.max()) for name, each in counts.items()},
    }


def _minima(
    logs: dict[str, Array],
    sizes: dict[str, Array],
    target: Array,
    label: Array,
    options: FitOptions,
) -> tuple[dict[str, Estimate], float]:
    """The moving minimum of one parabola, each cell with a level of its own: the coefficient and
    the powers of each letter, with intervals of cells resampled; and the root mean square that the
    parabola leaves.
    """
    means = {name: values.mean() for name, values in (logs | sizes).items()}
    x = [values - means[name] for name, values in logs.items()]
    z = [np.ones(len(target)), *(values - means[name] for name, values in sizes.items())]
    count, n_cells = len(x), int(label.max()) + 1
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    squares = [x[i] * x[j] for i, j in pairs]
    features = pd.DataFrame([*squares, *(each * by for each in x for by in z), target]).T
    columns = (features - features.groupby(label).transform("mean")).to_numpy()

    def solve(weight: Array) -> tuple[Array, Array | None]:
        """The coefficients of the parabola, and the minimum (letters, 1 + sizes) of one that has
        one.
        """
        weighted = columns * np.sqrt(weight[label, None])
        solution, *_ = np.linalg.lstsq(weighted[:, :-1], weighted[:, -1], rcond=None)
        curvature = np.zeros((count, count))
        for (i, j), square in zip(pairs, solution, strict=False):
            curvature[i, j] += square
            curvature[j, i] += square
        slopes = solution[len(pairs) :].reshape(count, len(z))
        is_convex = bool((np.linalg.eigvalsh(curvature) > 0).all())
        return solution, -np.linalg.solve(curvature, slopes) if is_convex else None

    solution, minimum = solve(np.ones(n_cells))
    if minimum is None:
        raise ScalingError(
            f"the loss has no minimum in {' and '.join(LETTERS[each] for each in logs)} near the "
            "best runs",
            remedy="widen the grid, so that both ends are worse than the middle",
        )
    weights = np.random.default_rng(options.seed).multinomial(
        n_cells, np.full(n_cells, 1 / n_cells), size=options.bootstrap
    )
    refits = [refit for weight in weights if (refit := solve(weight)[1]) is not None]
    draws = np.array([minimum, *refits])
    draws[:, :, 0] += [means[name] for name in logs]
    draws[:, :, 0] -= draws[:, :, 1:] @ np.array([means[name] for name in sizes])
    params = {}
    for index, letter in enumerate(logs):
        values, name = draws[:, index].T, LETTERS[letter]
        log_coef = Estimate.of(float(values[0, 0]), values[0, 1:], options.ci)
        ends = (log_coef.value, log_coef.lo, log_coef.hi)
        value, lo, hi = (None if end is None else float(np.exp(end)) for end in ends)
        params[f"{name}_coef"] = Estimate(value=value, se=None, lo=lo, hi=hi)
        for size, power in zip(sizes, values[1:], strict=True):
            params[f"{name}_{size}"] = Estimate.of(float(power[0]), power[1:], options.ci)
    left = columns[:, -1] - columns[:, :-1] @ solution
    freedom = max(1, len(target) - n_cells - len(solution))
    return params, float(np.sqrt(left @ left / freedom))


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
