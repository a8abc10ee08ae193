"""lr*(N, D) and B*(N, D) of a table of runs over learning rates and batches, as powers.

In each cell (one N and D) the log of the loss over the best of the cell is a parabola in log lr and
log B near its minimum. One curvature for all cells and a minimum that moves with log N and log D
make the whole a linear regression; what a grid's own points miss (its ends, its steps, the noise of
the best of many runs) is then averaged over. Cells are resampled whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.fit.document import Estimate
from scaling.fit.fit_options import FitOptions
from scaling.fit.result import Excluded, Objective
from scaling.points.points import Source
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
    letters = [letter for letter in LETTERS if letter in points.others]
    if points.n is None or points.d is None or not letters:
        missing = "column of learning rates or batches" if not letters else "N and D"
        raise ScalingError(
            f"the table has no {missing}",
            remedy='name them: --columns "lr=...,B=...,N=...,D=...,L=loss"',
        )
    columns = {"N": points.n, "D": points.d, **{name: points.others[name] for name in letters}}
    runs = pd.DataFrame({**columns, "loss": points.loss})
    by_cell = runs.groupby([group_within_1_percent(points.n), group_within_1_percent(points.d)])
    runs["cell"] = by_cell.ngroup()
    runs["above_best"] = runs["loss"] / by_cell["loss"].transform("min")
    varied = [letter for letter in letters if by_cell[letter].nunique().max() > 2]
    if not varied:
        raise ScalingError(
            "no cell of one N and D holds three learning rates or batches",
            remedy="give the runs of a grid: several lr or B at each N and D",
        )
    near = runs[runs["above_best"] <= 1 + NEAR_BEST]
    near = near[near.groupby("cell")["loss"].transform("size") >= MIN_ROWS]
    if (n_cells := near["cell"].nunique()) < MIN_CELLS:
        raise ScalingError(
            f"{n_cells} cells of one N and D hold {MIN_ROWS} runs within "
            f"{100 * NEAR_BEST:g} % of their best",
            remedy=f"{MIN_CELLS} are needed: train finer grids near the best settings",
        )
    sizes = [
        name for name in "ND" if len(np.unique(group_within_1_percent(near[name].to_numpy()))) > 1
    ]
    draws, rmse = _minima(near, varied, sizes, options)
    params = {}
    for letter, draws_of_letter in zip(varied, draws, strict=True):
        log_coef, *powers = (
            Estimate.of(float(each[0]), each[1:], options.ci) for each in draws_of_letter
        )
        ends = (log_coef.value, log_coef.lo, log_coef.hi)
        value, lo, hi = (None if end is None else float(np.exp(end)) for end in ends)
        name = LETTERS[letter]
        params[f"{name}_coef"] = Estimate(value=value, se=None, lo=lo, hi=hi)
        params |= {f"{name}_{size}": power for size, power in zip(sizes, powers, strict=True)}
    warnings = [*source.warnings, *_at_ends(runs[runs["cell"].isin(near["cell"])], varied)]
    if len(sizes) < 2:
        message = f"{' and '.join({'N', 'D'} - set(sizes))} takes one value: no power of it"
        warnings.append(warn(WarningCode.NOT_IDENTIFIED, message))
    name = "least squares of log loss about a moving minimum"
    reason = f"more than {100 * NEAR_BEST:g} % above the best of their N and D"
    excluded = [*points.excluded, (reason, len(runs) - len(near))]
    spans = {"n_params": points.n, "tokens": points.d}
    return {
        "objective": Objective(name=name, delta=None, value=rmse),
        "params": params,
        "n_points": len(near),
        "excluded": [Excluded(reason=why, count=count) for why, count in excluded if count],
        "warnings": tuple(warnings),
        "range": {name: (each.min(), each.max()) for name, each in spans.items()},
    }


def _minima(
    near: pd.DataFrame, varied: Sequence[str], sizes: Sequence[str], options: FitOptions
) -> tuple[Array, float]:
    """The moving minimum of one parabola, each cell with a level of its own: the log coefficient
    and the powers of each letter (K, 1 + sizes, 1 + R), as fitted and with cells resampled; and the
    root mean square that the parabola leaves.
    """
    x = np.log(near[varied].to_numpy())
    z = np.column_stack([np.ones(len(near)), np.log(near[sizes].to_numpy())])
    products = [(x[:, :, None] * each[:, None]).reshape(len(near), -1) for each in (x, z)]
    label, cells = pd.factorize(near["cell"])
    features = pd.DataFrame(np.column_stack([*products, np.log(near["above_best"])]))
    columns = (features - features.groupby(label).transform("mean")).to_numpy()
    count, n_cells = len(varied), len(cells)

    def minimum(weight: Array) -> tuple[Array | None, float, int]:
        """The minimum (K, 1 + sizes) where there is one, the squares left, and the rank."""
        scaled = columns * np.sqrt(weight[label, None])
        solution, _, rank, _ = np.linalg.lstsq(scaled[:, :-1], scaled[:, -1], rcond=None)
        left = scaled[:, -1] - scaled[:, :-1] @ solution
        curvature = 2 * solution[: count**2].reshape(count, count)
        slopes = solution[count**2 :].reshape(count, -1)
        is_convex = bool((np.linalg.eigvalsh(curvature) > 0).all())
        return -np.linalg.solve(curvature, slopes) if is_convex else None, left @ left, rank

    fitted, squares, rank = minimum(np.ones(n_cells))
    if fitted is None:
        raise ScalingError(
            f"the loss has no minimum in {' and '.join(LETTERS[each] for each in varied)} near the "
            "best runs",
            remedy="widen the grid, so that both ends are worse than the middle",
        )
    weights = np.random.default_rng(options.seed).multinomial(
        n_cells, np.full(n_cells, 1 / n_cells), size=options.bootstrap
    )
    refits = [refit for weight in weights if (refit := minimum(weight)[0]) is not None]
    rmse = np.sqrt(squares / max(1, len(near) - n_cells - rank))
    return np.stack([fitted, *refits], -1), float(rmse)


def _at_ends(runs: pd.DataFrame, varied: Sequence[str]) -> list[ResultWarning]:
    """A warning for each hyper-parameter whose best value lies at the end of most cells' grids."""
    by_cell, warnings = runs.groupby("cell"), []
    best = runs.loc[by_cell["loss"].idxmin()].set_index("cell")
    for letter in varied:
        ends, name = by_cell[letter].agg(["min", "max"]), LETTERS[letter]
        at_end = int((ends.eq(best[letter], axis=0)).any(axis=1).sum())
        if 4 * at_end > len(best):
            message = (
                f"the best {name} lies at the end of its grid in {at_end} of {len(best)} cells: "
                "widen the grid"
            )
            warnings.append(warn(WarningCode.GRID_EDGE, message, field=name, at_edge=at_end))
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
