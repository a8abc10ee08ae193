"""Points that deserve a second look: named with a reason, never dropped. The fit is shown with and
without them, and where they decide the answer a warning says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.diagnostics.results import FitWithoutFlagged, FlaggedPoint, FlaggedPoints
from scaling.fit.estimate import refit
from scaling.fit.law_fit import LawFit
from scaling.fit.noise import deviates, orthonormal
from scaling.fit.result import BudgetMinimum, MinimumFault
from scaling.fit.significance import f_tail
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray
SAME_RUN = 0.01  # N and D of two runs that count as one
MIN_SIZES = 7  # of a budget, for a cubic to be checked against the runs left out of it
MAX_LEVERAGE = 0.8  # of a run on the cubic: an end decides its own curve
OFF_LAW = 2.0  # noises that a run off its curve is off the law, too
MAX_POINTS = 20_000  # beyond which single ones decide nothing
SHOWN = 50
ROUNDING = 1e-8  # noise of a log loss below which a table is taken to be without noise
FAR_OFF = np.log(2)  # of a log loss: a run so far off a robust fit is a mistake in the table
DECIDES = 0.01  # chance that the fits with and without points differ so much by noise alone


def flags(fit: LawFit, minima: Sequence[BudgetMinimum]) -> dict[str, Array]:
    """The points (mask) that each reason concerns, where it concerns any. `minima` are those of
    approach 2, unavailable ones included.
    """
    data = fit.data
    if not data.has("ND") or len(data) > MAX_POINTS or fit.law.signed:
        return {}
    off_centre = np.zeros(len(data), bool)
    for index, minimum in zip(data.budgets, minima, strict=False):
        if minimum.unavailable in (MinimumFault.BELOW_SIZES, MinimumFault.ABOVE_SIZES):
            off_centre[index] = True
    reasons = {
        "fewer tokens than parameters (D/N below 1)": data.d < data.n,
        "a budget whose minimum lies at the edge of its sizes (off-centre)": off_centre,
        f"near duplicates: all inputs within {SAME_RUN:.0%} of another run's, the loss further "
        "off than noise": _duplicates(fit),
        "off the curve of its budget by more than noise": _off_curve(fit),
        "off the fitted law by more than noise": fit.noise.outliers,
    }
    return {reason: mask for reason, mask in reasons.items() if mask.any()}


def far_off(fit: LawFit) -> Array:
    """The outliers (mask) whose loss is twice, or half, what the law says, or further off."""
    return fit.noise.outliers & (np.abs(fit.residuals) > FAR_OFF)


def _duplicates(fit: LawFit) -> Array:
    """Runs at the N and D of another whose losses differ by more than noise."""
    data, mask = fit.data, np.zeros(len(fit.data), bool)
    columns = [data.n, data.d, *data.points.others.values()]  # unique tokens, steps, ...
    pairs = _close_pairs(np.log(np.maximum(np.stack(columns, 1), 1e-300)), SAME_RUN)
    gaps = np.abs(np.diff(data.log_loss[pairs], axis=1)[:, 0])
    mask[pairs[gaps > max(fit.noise.difference(len(pairs)), 1e-6)].ravel()] = True
    return mask


def _close_pairs(rows: Array, reach: float) -> Array:
    """The pairs (M, 2) of rows (R, K) no two of whose values differ by more than `reach`.

    Sorted along a direction in which no grid is degenerate; scipy's KD tree takes 0.2 s to import.
    """
    direction = np.sqrt(np.arange(1, rows.shape[1] + 1))
    along = rows @ direction
    order = np.argsort(along, kind="stable")
    along = along[order]
    near = np.searchsorted(along, along + reach * direction.sum(), "right") - np.arange(len(rows))
    pairs = [np.empty((0, 2), int)]
    for step in range(1, near.max(initial=1)):
        first = np.flatnonzero(near > step)
        both = np.stack([order[first], order[first + step]], 1)
        pairs.append(both[np.abs(np.diff(rows[both], axis=1)[:, 0]).max(1) <= reach])
    return np.concatenate(pairs)


def _off_curve(fit: LawFit) -> Array:
    """Runs off the cubic through the runs of their budget, and off the law: a cubic is no law."""
    mask = np.zeros(len(fit.data), bool)
    groups = [index for index in fit.data.budgets if len(index) >= MIN_SIZES]
    if not groups:
        return mask
    rows, log_n = np.concatenate(groups), np.log(fit.data.n)
    cubics = [orthonormal(np.vander(log_n[index] - log_n[index].mean(), 4)) for index in groups]
    left = np.cumsum([0, *(cubic.shape[1] for cubic in cubics)])  # one block for each budget
    padded = zip(cubics, left[:-1], left[-1] - left[1:], strict=True)
    basis = np.concatenate([np.pad(cubic, ((0, 0), (lo, hi))) for cubic, lo, hi in padded])
    noise = deviates(fit.data.log_loss[rows], basis, MAX_LEVERAGE)
    mask[rows] = noise.outliers
    return mask & (np.abs(fit.residuals) > OFF_LAW * fit.noise.sd)


def flag_points(
    fit: LawFit, minima: Sequence[BudgetMinimum]
) -> tuple[list[FlaggedPoints], FitWithoutFlagged | None, list[ResultWarning]]:
    """The flagged points by reason, the fit without them, and a warning where they decide it."""
    masks, data, points = flags(fit, minima), fit.data, fit.data.points
    if not masks:
        return [], None, []
    number = points.row_numbers
    entries = [
        FlaggedPoints(
            reason=reason,
            count=int(mask.sum()),
            points=[
                FlaggedPoint(
                    row=number[row], n_params=data.n[row], tokens=data.d[row], loss=points.loss[row]
                )
                for row in np.flatnonzero(mask)[:SHOWN]
            ],
        )
        for reason, mask in masks.items()
    ]
    either = np.logical_or.reduce(list(masks.values()))
    rest, count, warnings = points.take(~either), int(either.sum()), []
    if rows := np.flatnonzero(far_off(fit)).tolist():
        which = "1 loss differs" if len(rows) == 1 else f"{len(rows)} losses differ"
        message = (
            f"{which} from the law by more than a factor of 2, excluded from the combined law: "
            f"{_listed(rows, points)}"
        )
        warnings = [warn(WarningCode.FAR_OFF_LAW, message, rows=number[rows].tolist())]
    try:
        other = refit(fit, rest)
    except ScalingError as error:
        without = FitWithoutFlagged(n_points=len(rest), left_out=count, unavailable=error.what)
        return entries, without, warnings
    a = n_star = None
    if other.optimum is not None and rest.c is not None:
        a, n_star = float(other.optimum.a), float(other.optimum.n_star(float(rest.c.max())))
    without = FitWithoutFlagged(
        n_points=len(rest),
        left_out=count,
        params=other.values,
        status=other.status,
        a=a,
        n_star_at_top=n_star,
    )
    return entries, without, [*warnings, *_deciding(fit, other, np.flatnonzero(either).tolist())]


def _listed(rows: Sequence[int], points: Points) -> str:
    """The first of some rows, by their number in the table, with their losses."""
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return (
        ", ".join(f"row {points.row_numbers[i]} (loss {points.loss[i]:.4g})" for i in rows[:3])
        + more
    )


def _deciding(fit: LawFit, other: LawFit, rows: Sequence[int]) -> list[ResultWarning]:
    """A warning where the fit of all points and the fit of the `other` points predict losses of
    these that differ by more than the noise of the latter (F test).
    """
    moved = fit.predict(other.data.points) - other.predict(other.data.points)
    squares = len(other.data) * np.average(moved**2, weights=other.data.weight)
    ratio = squares / (fit.n_free * max(other.noise.sd, ROUNDING) ** 2)
    if not other.noise.freedom or f_tail(fit.n_free, other.noise.freedom, ratio) > DECIDES:
        return []
    named = {name: (fit.values[name], other.values[name]) for name in fit.law.names}
    if fit.optimum is not None and other.optimum is not None:
        named = {"a": (float(fit.optimum.a), float(other.optimum.a))}
    moves = ", ".join(
        f"{name} = {one:.4g} with them, {two:.4g} without" for name, (one, two) in named.items()
    )
    listed = _listed(rows, fit.data.points)
    which = "1 flagged point decides" if len(rows) == 1 else f"{len(rows)} flagged points decide"
    message = f"{which} the answer: {moves}; flagged: {listed}"
    return [warn(WarningCode.FLAGGED_POINTS_DECIDE, message, count=len(rows), **named)]
