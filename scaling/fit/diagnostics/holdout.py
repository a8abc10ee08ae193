"""The honest test of a law: leave out the largest budget, fit the rest, predict what was left out,
compare.
"""

from __future__ import annotations

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.bootstrap import bootstrap
from scaling.fit.combination import Combination
from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics.results import Holdout, HoldoutRow
from scaling.fit.document import FitStatus, evenly
from scaling.fit.estimate import LawFit, refit
from scaling.fit.frontier.isoflop import MIN_BUDGETS
from scaling.fit.law_weights import weigh_laws
from scaling.warning import ResultWarning, WarningCode, warn

Array = np.ndarray

RESAMPLES = 100
TOP = 0.15  # of the range of log C, where a table has no budgets
ROUNDING = 1e-6  # an interval is never narrower than this, relative to the loss
ROWS_KEPT = 200
SIGNIFICANT = 0.01  # level at which the coverage of a hold-out is tested
MIN_MISSES = 3  # of one sign, to be worth a warning


def split(data: Dataset, count: int = 1) -> tuple[Array, float] | None:
    """(points to leave out (mask), their smallest budget), None when too little would be left.

    The `count` largest budgets and all that costs more, of at least `count + 3`; in a table without
    budgets, all runs in the top `count` x 15 % of the range of log C.
    """
    groups = data.budgets
    if not data.has("NC") or len(data) < 2:
        return None
    log_c = np.log(data.c)
    if len(groups) >= count + MIN_BUDGETS:
        least = min(log_c[index].min() for index in groups[-count:])
        budget = float(np.exp(log_c[groups[-count]].mean()))
    elif len(groups) >= MIN_BUDGETS:
        return None
    else:
        least = log_c.max() - count * TOP * np.ptp(log_c)
        budget = float(np.exp(least))
    out = log_c >= least - 1e-12
    enough = (
        count * TOP < 0.5
        and 0 < out.sum() <= len(data) / 2
        and len(np.unique(np.round(log_c[~out], 3))) >= MIN_BUDGETS
    )
    return (out, budget) if enough else None


def holdout(
    fit: LawFit, count: int, ci: float, seed: int, combination: Combination | None = None
) -> tuple[Holdout | None, list[ResultWarning]]:
    """How a fit without the `count` largest budgets predicts them, or a warning that says why there
    is none.

    Intervals include refits of resamples and a residual each; with a `combination` of laws of all
    points they are those of one. The warnings also say where they cover significantly fewer runs
    than they should, or miss on one side only. A `count` of 0 asks for no hold-out.
    """
    if not count:
        return None, []
    parts, points = split(fit.data, count), fit.data.points
    if parts is None:
        message = "no hold-out: too few budgets to leave the largest out"
        return None, [warn(WarningCode.NO_HOLDOUT, message)]
    out, budget = parts
    test = Dataset(points.take(out))
    try:
        near = fit.values if fit.status is FitStatus.OK else None
        fitted = refit(fit, points.take(~out), near)
    except ScalingError as error:
        message = f"no hold-out: without the largest budget {error.what}"
        return None, [warn(WarningCode.NO_HOLDOUT, message)]
    if combination:
        combination = weigh_laws(fitted.data, fit.objective, fit.delta, combination)
    predicted, lo, hi = _predicted(fitted, test, ci, seed, combination)
    loss = test.points.loss
    columns = np.array([test.n, test.d, test.c, loss, predicted, lo, hi])  # as HoldoutRow has them
    kept = columns[:, evenly(len(test), ROWS_KEPT)].T
    return Holdout(
        budget=budget,
        rows=[HoldoutRow(**dict(zip(HoldoutRow.model_fields, row, strict=True))) for row in kept],
        n_train=len(fitted.data),
        n_test=len(test),
        mean_abs_rel_error=np.abs(predicted / loss - 1).mean(),
        covered=float(np.mean((lo <= loss) & (loss <= hi))),
        by="combination" if combination else fit.law.name,
    ), coverage_warnings(loss < lo, loss > hi, ci)


def coverage_warnings(too_high: Array, too_low: Array, ci: float) -> list[ResultWarning]:
    """What hold-out intervals of level `ci` show whose forecast, interval included, lies `too_high`
    or `too_low` (n,): significantly fewer runs inside than `ci`, or misses that all have one sign.
    """
    from scipy.special import bdtr

    high, low, count = int(too_high.sum()), int(too_low.sum()), len(too_high)
    inside, warnings = count - high - low, []
    if bdtr(inside, count, ci) < SIGNIFICANT:
        level = f"{100 * ci:g} %"
        message = f"{inside} of {count} held-out runs lie inside {level} intervals: too narrow"
        data = {"covered": inside / count, "expected": ci, "n_test": count}
        warnings.append(warn(WarningCode.HOLDOUT_COVERAGE, message, **data))
    if max(high, low) >= MIN_MISSES and min(high, low) == 0:
        side = "high" if high else "low"
        missed = f"all {high + low} misses among {count} held-out runs"
        message = f"{missed} have one sign: the loss was predicted too {side}"
        data = {"too_high": high, "too_low": low, "n_test": count}
        warnings.append(warn(WarningCode.HOLDOUT_ONE_SIDED, message, **data))
    return warnings


def _predicted(
    fit: LawFit, test: Dataset, ci: float, seed: int, combination: Combination | None
) -> tuple[Array, Array, Array]:
    """Predicted loss of `test` and the interval of a new run: that of the combination, or the law's
    own uncertainty and the scatter of its residuals.
    """
    if combination:
        predicted, lo, hi = combination.losses(test.n, test.d).ends(ci)
    else:
        rng, count = np.random.default_rng(seed), len(fit.data)
        scatter = fit.residuals * np.sqrt(count / max(1, count - len(fit.theta)))
        draws = bootstrap(fit, RESAMPLES, seed)
        log_loss = fit.predict(test.points, draws.theta if len(draws.theta) else fit.theta[None])
        log_loss = log_loss + rng.choice(scatter, log_loss.shape)
        lo, hi = fit.law.from_log(np.quantile(log_loss, [(1 - ci) / 2, (1 + ci) / 2], axis=0))
        predicted = fit.law.from_log(fit.predict(test.points))
    away = predicted * ROUNDING
    return predicted, np.minimum(lo, predicted - away), np.maximum(hi, predicted + away)
