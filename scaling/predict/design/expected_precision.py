"""What a plan will be able to tell, before a run is trained: the expected intervals of the exponent
and of N* and L* at a target.

The runs' N, D and prefixes are known, and so is the design matrix under an assumed law; the losses
are not needed (`law_model`). Without a law of one's own, one is assumed whose optimum passes
through the middle of the grid: where it truly lies decides what is off-centre, but hardly how well
the runs tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from scaling.config import IsoflopDesign
from scaling.errors import ScalingError
from scaling.fit import identifiability
from scaling.fit.dataset import Dataset
from scaling.fit.document import Document, Interval, Real
from scaling.fit.frontier.budgets import MIN_SIZES, SAME_SIZE, WINDOW, distinct, groups_by_gap
from scaling.fit.frontier.frontier import Cost, fit_cost
from scaling.fit.frontier.isoflop import grid_bias
from scaling.fit.laws.laws import LAWS
from scaling.fit.laws.published import published
from scaling.formatting import format_count, format_flops
from scaling.plan import Plan
from scaling.points.points import Points
from scaling.predict.design.law_model import (
    NOISE,
    RHO,
    LinearizedLaw,
    Runs,
    inflation,
    standard_errors,
)
from scaling.predict.law_source import load_law
from scaling.warning import ResultWarning, WarningCode, warn

LEAST_NOISE = 1e-9
CI = 0.95
OBJECTIVE, DELTA = "huber-log", 1e-3
DEFAULT_TARGET_FACTOR = 10.0  # the target, unless said otherwise, in largest budgets
MIN_BUDGETS = 4
NARROW = 4.0  # a range of D/N below which the two powers are hardly separable
SHAPE = "besiroglu2024"
# of the loss that is not yet E, at the middle of an assumed law: small models' is larger, and tells
# more
LARGEST_SHARE = 0.5


class Expectation(Document):
    """What a parametric fit to the runs of a plan is expected to tell, or why it is `unavailable`.

    `n_star` is under the assumed law; the loss of a law assumed here has no value. Standard errors
    are those of log N* and log L* at the target, and of the exponent a.
    """

    law: str
    target: Real
    noise: Real
    rho: Real
    ci: Real
    unavailable: str | None
    a: Interval | None = None
    n_star: Interval | None = None
    loss: Interval | None = None
    sd_log_n_star: Real | None = None
    sd_log_loss: Real | None = None
    sd_a: Real | None = None
    grid_bias: str | None
    warnings: list[ResultWarning]


def expected_of_plan(
    plan: Plan, target: float | None, law_from: str | None, noise: float | None
) -> Expectation:
    """`expected` of the runs of a plan."""
    is_isoflop = isinstance(plan.sweep.design, IsoflopDesign)
    return expected(Runs.of_plan(plan), target, law_from, noise, is_isoflop)


@np.errstate(all="ignore")  # what is no number is refused by name
def expected(
    runs: Runs,
    target: float | None = None,
    law_from: str | None = None,
    noise: float | None = None,
    is_isoflop: bool = False,
) -> Expectation:
    """What a parametric fit to planned runs, budgets by sizes if `is_isoflop`, will tell with the
    default objective.

    `law_from` is a fit or published:NAME, `noise` the sd of a run's log loss. Raises ScalingError
    for a bad option or law.
    """
    if noise is not None and not LEAST_NOISE <= noise <= 1:
        raise ScalingError(
            f"must be from {LEAST_NOISE:g} to 1, not {noise:g}",
            where="--noise",
            remedy="two seeds of a small model differ by about 0.007",
        )
    points, budgets = Points(np.ones(len(runs.n)), runs.n, runs.d, runs.flops), []
    if is_isoflop:
        labels = groups_by_gap(np.log(runs.flops), WINDOW)
        budgets = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    cost, goal = fit_cost(points), target or DEFAULT_TARGET_FACTOR * float(runs.flops.max())
    if law_from is None:
        law, words = _law_centred_on_plan(runs, budgets, cost)
        warnings = _warnings(runs, budgets, None)
    else:
        fit = load_law(law_from)
        law, words, noise = (
            LinearizedLaw.of_fit(fit),
            f"{fit.law} of {law_from}",
            noise or fit.noise,
        )
        if not Path(law_from).is_file():
            law = replace(law, cost=cost)
        warnings = _warnings(runs, budgets, law)
    sd_run, unavailable, bias = noise or NOISE, None, None
    try:
        checked = identifiability.check(law.law, Dataset(points))
        if any(warning.code is WarningCode.ONE_RATIO for warning in checked):
            unavailable = "one ratio D/N only: the two powers cannot be separated"
    except ScalingError as error:
        unavailable = error.what
    intervals: dict[str, Any] = {}
    if unavailable is None:
        intervals = _intervals(runs, law, goal, sd_run, law_from is not None)
        bias = grid_bias(points, law.law, law.theta, law.cost) if budgets else None
        if intervals["sd_log_n_star"] > 1:
            message = (
                "N* at the target will be unknown by more than a factor of e: train larger "
                "budgets, or more sizes per budget"
            )
            warnings.append(warn(WarningCode.IMPRECISE_TARGET, message))
    return Expectation(
        law=words,
        target=goal,
        noise=sd_run,
        rho=RHO,
        ci=CI,
        unavailable=unavailable,
        grid_bias=bias.message if bias else None,
        warnings=warnings,
        **intervals,
    )


def _intervals(
    runs: Runs, law: LinearizedLaw, goal: float, noise: float, loss_is_known: bool
) -> dict[str, Any]:
    """The expected intervals of a, N* and L*, and their standard errors, as the document names
    them.
    """
    errors = standard_errors(law.rows(runs), law.gradients(goal), noise, runs.prefix)
    sd_n, sd_loss, sd_a = (inflation(OBJECTIVE, DELTA, noise) * errors).tolist()
    z, optimum = float(ndtri((1 + CI) / 2)), law.optimum()

    def around(value: Any, sd: float) -> Interval:
        return Interval(value=value, lo=value * np.exp(-z * sd), hi=value * np.exp(z * sd))

    a, unknown = float(optimum.a), Interval(value=None, lo=None, hi=None)
    return {
        "a": Interval(value=a, lo=a - z * sd_a, hi=a + z * sd_a),
        "n_star": around(optimum.n_star(goal), sd_n),
        "loss": around(optimum.loss(goal), sd_loss) if loss_is_known else unknown,
        "sd_log_n_star": sd_n,
        "sd_log_loss": sd_loss,
        "sd_a": sd_a,
    }


def _law_centred_on_plan(
    runs: Runs, budgets: Sequence[np.ndarray], cost: Cost
) -> tuple[LinearizedLaw, str]:
    """The exponents of SHAPE, with A and B such that the optimum of the middle budget is the middle
    size: of budgets the mean over their middle sizes, else the mean over runs. The loss there is 1.
    Also the same in words.
    """
    shape, log_n, log_c = published(SHAPE), np.log(runs.n), np.log(runs.flops)
    if budgets:
        log_n = np.array([(log_n[row].min() + log_n[row].max()) / 2 for row in budgets])
        log_c = np.array([log_c[row].mean() for row in budgets])
    n, c = np.exp(log_n.mean()), np.exp(log_c.mean())
    alpha, beta, floor = (shape.values[name] for name in ("alpha", "beta", "E"))
    reducible = float(np.asarray(shape.frontier().loss(c))) - floor
    share = min(LARGEST_SHARE, reducible / (reducible + floor))
    part = cost.p * beta / (alpha + cost.p * beta)  # of the reducible loss in A N^-alpha there
    values = {
        "E": 1 - share,
        "A": share * part * n**alpha,
        "B": share * (1 - part) * float(cost.tokens(n, c)) ** beta,
        "alpha": alpha,
        "beta": beta,
    }
    words = (
        f"assumed: exponents of {SHAPE}, optimum through the middle of the plan, "
        f"{100 * share:.0f} % of the loss there reducible"
    )
    law = LAWS["chinchilla"]
    return LinearizedLaw(law, np.asarray(law.theta(values), float), cost), words


def _warnings(
    runs: Runs, budgets: Sequence[np.ndarray], law: LinearizedLaw | None
) -> list[ResultWarning]:
    """What is wrong with the grid wherever its optimum lies; and by a law of one's own, budgets
    whose optimum lies beyond their sizes or in the outer quarter of them.
    """
    ratio, warnings, few, off_centre = np.ptp(np.log(runs.d / runs.n)), [], [], []
    if ratio < np.log(NARROW):
        message = (
            f"D/N varies by a factor of {np.exp(ratio):.2g} only: the powers of N and D "
            "will hardly be separable"
        )
        warnings.append(warn(WarningCode.NARROW_RATIO, message))
    if 0 < len(budgets) < MIN_BUDGETS:
        message = (
            f"{len(budgets)} budget{'s' * (len(budgets) > 1)}: an exponent with an honest interval "
            f"needs {MIN_BUDGETS} or more"
        )
        warnings.append(warn(WarningCode.FEW_BUDGETS, message, budgets=len(budgets)))
    for row in budgets:
        sizes, flops = runs.n[row], float(runs.flops[row].mean())
        if distinct(sizes) < MIN_SIZES:
            few.append(format_flops(flops))
        if law is None:
            continue
        low, high, best = sizes.min(), sizes.max(), float(law.optimum().n_star(flops))
        place = np.log(best / low) / max(np.log(high / low), SAME_SIZE)
        if not 0.25 <= place <= 0.75:
            where = "in the outer quarter of the sizes" if 0 <= place <= 1 else "beyond the sizes"
            message = (
                f"off-centre at {format_flops(flops)} FLOPs: N* = {format_count(best)} lies "
                f"{where} ({format_count(low)} to {format_count(high)})"
            )
            off_centre.append(warn(WarningCode.OFF_CENTRE, message, flops=flops))
    if few:
        message = (
            f"fewer than {MIN_SIZES} sizes at {', '.join(few)} FLOPs: no minimum can be fitted"
        )
        warnings.append(warn(WarningCode.FEW_SIZES, message))
    return [*warnings, *off_centre]
