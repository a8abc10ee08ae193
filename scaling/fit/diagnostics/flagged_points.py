"""Points that deserve a second look: named with a reason, never dropped. The fit is shown with and
without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.diagnostics.results import FitWithoutFlagged, FlaggedPoint, FlaggedPoints
from scaling.fit.diagnostics.seed_noise import ROBUST
from scaling.fit.estimate import PointEstimate, estimate
from scaling.fit.frontier.budgets import budgets
from scaling.fit.frontier.frontier import AT_EDGE, Minimum, fit_cost
from scaling.points.points import Points

NEAR = 0.01  # N and D of two runs that count as one
FAR = 5.0  # robust standard deviations
MIN_SIZES = 7  # of a budget, for a cubic to be checked against the runs left out of it
MOST = 20_000  # points beyond which single ones decide nothing
SHOWN = 50


@dataclass(frozen=True)
class Flag:
    """A reason and the points (mask) that it concerns."""

    reason: str
    mask: np.ndarray


def flags(points: Points, fitted: PointEstimate, minima: Sequence[Minimum]) -> list[Flag]:
    """All flags that concern at least one point. `minima` are those of approach 2, refused ones
    included.
    """
    if points.n is None or points.d is None or len(points) > MOST or fitted.law.signed:
        return []
    residual = fitted.residuals(points)
    noise = _robust(residual)
    listed = [
        Flag(
            "fewer tokens than parameters (D/N below 1)",
            np.asarray(points.d) < np.asarray(points.n),
        ),
        Flag(
            "a budget whose minimum lies at the edge of its sizes (off-centre)",
            _off_centre(points, minima),
        ),
        Flag(
            (
                f"near duplicates: all inputs within {NEAR:.0%} of another run's, the loss "
                "further off than noise"
            ),
            _duplicates(points, noise),
        ),
        Flag(
            f"off the curve of its budget by more than {FAR:g} robust standard deviations",
            _off_curve(points),
        ),
        Flag(
            f"off the fitted law by more than {FAR:g} robust standard deviations",
            np.abs(residual) > FAR * noise if noise else _none(points),
        ),
    ]
    return [flag for flag in listed if flag.mask.any()]


def _none(points: Points) -> np.ndarray:
    return np.zeros(len(points), bool)


def _robust(residual: np.ndarray) -> float:
    """A standard deviation that outliers do not move: from the median distance from the median."""
    sd = ROBUST * float(np.median(np.abs(residual - np.median(residual))))
    return sd if sd > 1e-9 else 0.0


def _off_centre(points: Points, minima: Sequence[Minimum]) -> np.ndarray:
    mask = _none(points)
    for minimum in minima:
        if minimum.fault in AT_EDGE and minimum.index is not None:
            mask[minimum.index] = True
    return mask


def _duplicates(points: Points, noise: float) -> np.ndarray:
    """Runs at the N and D of another whose losses differ by more than FAR times the noise of a
    difference.
    """
    mask = _none(points)
    log_n, log_d, log_loss = (
        np.log(np.asarray(points.n)),
        np.log(np.asarray(points.d)),
        np.log(points.loss),
    )
    others = [
        np.log(np.maximum(column, 1e-300)) for column in points.others.values()
    ]  # unique tokens, steps, ...
    order = np.argsort(log_n, kind="stable")
    for place, row in enumerate(order):
        for other in order[place + 1 :]:
            if log_n[other] - log_n[row] > NEAR:
                break
            same = all(abs(column[other] - column[row]) <= NEAR for column in (log_d, *others))
            if same and abs(log_loss[other] - log_loss[row]) > max(FAR * np.sqrt(2) * noise, 1e-6):
                mask[[row, other]] = True
    return mask


def _off_curve(points: Points) -> np.ndarray:
    """Runs that the cubic through the other runs of their budget misses by more than FAR times the
    scatter of all such misses.
    """
    mask = _none(points)
    if points.c is None:
        return mask
    rows, misses = [], []
    for index in budgets(np.asarray(points.n), points.c, points.budget):
        if len(index) < MIN_SIZES:
            continue
        x = np.log(np.asarray(points.n)[index])
        design = np.vander(x - x.mean(), 4)
        hat = design @ np.linalg.pinv(design)
        left = 1 - np.diag(hat)
        inside = left > 0.2  # an end decides its own curve
        rows.append(index[inside])
        misses.append(
            ((np.eye(len(x)) - hat) @ np.log(points.loss[index]) / np.sqrt(np.maximum(left, 0.2)))[
                inside
            ]
        )
    if rows:
        miss = np.concatenate(misses)
        noise = _robust(miss)
        mask[np.concatenate(rows)[np.abs(miss) > FAR * noise]] = noise > 0
    return mask


def report(points: Points, fitted: PointEstimate, minima: Sequence[Minimum]) -> dict[str, Any]:
    """The fields `flagged` and `fit_without_flagged` of a FitResult."""
    listed = flags(points, fitted, minima)
    if not listed:
        return {"flagged": []}
    either = np.logical_or.reduce([flag.mask for flag in listed])
    entries = [
        FlaggedPoints(
            reason=flag.reason,
            count=int(flag.mask.sum()),
            points=[_point(points, row) for row in np.flatnonzero(flag.mask)[:SHOWN]],
        )
        for flag in listed
    ]
    return {
        "flagged": entries,
        "fit_without_flagged": _without(points.take(~either), fitted, int(either.sum())),
    }


def _point(points: Points, row: int) -> FlaggedPoint:
    return FlaggedPoint(
        row=int(row) + 1,
        n_params=float(np.asarray(points.n)[row]),
        tokens=float(np.asarray(points.d)[row]),
        loss=float(points.loss[row]),
    )


def _without(rest: Points, fitted: PointEstimate, count: int) -> FitWithoutFlagged:
    """The fit without the flagged points, or why there is none."""
    try:
        again = estimate(
            fitted.law,
            rest,
            fitted.objective,
            fitted.delta,
            fixed=fitted.fixed,
            one_sided=fitted.one_sided,
        )
    except ScalingError as error:
        return FitWithoutFlagged(n_points=len(rest), left_out=count, unavailable=error.what)
    a = n_star = None
    if fitted.law.closed_frontier is not None and rest.c is not None:
        optimum = fitted.law.frontier(again.values, fit_cost(rest))
        a, n_star = float(optimum.a), float(optimum.n_star(float(rest.c.max())))
    return FitWithoutFlagged(
        n_points=len(rest),
        left_out=count,
        params=again.values,
        status=again.status,
        a=a,
        n_star_at_top=n_star,
    )
