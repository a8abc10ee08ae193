"""Points that deserve a second look: named with a reason, never dropped. The fit is shown with and
without them, and where they decide the answer a warning says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.diagnostics.results import FitWithoutFlagged, FlaggedPoint, FlaggedPoints
from scaling.fit.estimate import LawFit, refit
from scaling.fit.result import BudgetMinimum, MinimumFault
from scaling.fit.significance import f_tail
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray
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
        "off the fitted law by more than noise": fit.noise.outliers,
    }
    return {reason: mask for reason, mask in reasons.items() if mask.any()}


def far_off(fit: LawFit) -> Array:
    """The outliers (mask) whose loss is twice, or half, what the law says, or further off."""
    return fit.noise.outliers & (np.abs(fit.residuals) > FAR_OFF)


def flag_points(
    fit: LawFit, minima: Sequence[BudgetMinimum], combined: bool = True
) -> tuple[list[FlaggedPoints], FitWithoutFlagged | None, list[ResultWarning]]:
    """The flagged points by reason, the fit without them, and a warning where they decide it or lie
    far off, as the law `combined` with others leaves out.
    """
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
            f"{which} from the law by more than a factor of 2"
            f"{', excluded from the combined law' * combined}: {_listed(rows, points)}"
        )
        warnings = [warn(WarningCode.FAR_OFF_LAW, message, rows=number[rows].tolist())]
    without = FitWithoutFlagged(n_points=len(rest), left_out=count)
    try:
        other = refit(fit, rest)
    except ScalingError as error:
        return entries, without.model_copy(update={"unavailable": error.what}), warnings
    a = float(other.optimum.a) if other.optimum is not None and rest.c is not None else None
    without = without.model_copy(update={"params": other.values, "status": other.status, "a": a})
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
