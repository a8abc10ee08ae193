"""What a plan will be able to tell, before a run is trained: the expected intervals of the exponent
and of N* and L* at a target.

The runs' N, D and prefixes are known, and so is the design matrix under an assumed law; the losses
are not needed (`law_model`). Without a law of one's own, one is assumed whose optimum passes
through the middle of the grid: where it truly lies decides what is off-centre, but hardly how well
the runs tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from scaling.config import IsoflopDesign
from scaling.errors import ScalingError
from scaling.fit import identifiability
from scaling.fit.dataset import Dataset
from scaling.fit.document import Document, Interval, Real
from scaling.fit.frontier.budgets import MIN_SIZES, SAME_SIZE, WINDOW, distinct
from scaling.fit.frontier.frontier import Cost, fit_cost
from scaling.fit.frontier.isoflop import grid_bias
from scaling.fit.laws.laws import LAWS
from scaling.fit.laws.published import published
from scaling.formatting import format_count, format_flops
from scaling.plan import Plan
from scaling.points.points import Points
from scaling.predict.design.law_model import (
    RHO,
    LinearizedLaw,
    Runs,
    inflation,
    standard_errors,
)
from scaling.predict.law_source import load_law
from scaling.warning import ResultWarning, WarningCode, warn

# of log loss: replicates of sweeps/honest.toml differ by 1.0 %, at 10k and 40k parameters; without
# them it is not known
NOISE = 0.01
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


@dataclass(frozen=True)
class _AssumedLaw:
    """The law that the expectation rests on, in words too; `given` unless it was put through the
    middle of the grid.
    """

    model: LinearizedLaw
    words: str
    given: bool
    noise: float | None = None


def expected_of_plan(
    plan: Plan, target: float | None, law_from: str | None, noise: float | None
) -> Expectation:
    """`expected` of a plan. Cells that differ only in an axis count once: a fit takes the best of
    them, or one axis value at a time.
    """
    params = plan.sweep.design.params
    groups = {
        run.run_id: index for index, group in enumerate(plan.groups) for run in group.all_runs()
    }
    cells = {
        (item.n_params[params], item.run.tokens, item.run.seed): (item.flops, groups[item.run_id])
        for item in plan.runs
    }
    n, d, _ = np.array(list(cells), float).T
    c, group = np.array(list(cells.values())).T
    is_isoflop = isinstance(plan.sweep.design, IsoflopDesign)
    return expected(Runs(n, d, c, group), target, law_from, noise, is_isoflop)


@np.errstate(all="ignore")  # what is no number is refused by name
def expected(
    plan: Runs,
    target: float | None = None,
    law_from: str | None = None,
    noise: float | None = None,
    is_isoflop: bool = False,
) -> Expectation:
    """What a parametric fit to the runs of a plan, budgets by sizes if `is_isoflop`, will tell with
    the default objective.

    `law_from` is a fit or published:NAME, `noise` the sd of a run's log loss. Raises ScalingError
    for a bad option or law.
    """
    _check(target, noise)
    points, budgets = Points(np.ones(len(plan.n)), plan.n, plan.d, plan.flops), []
    if is_isoflop:  # the runs of each, cheapest first: those whose FLOPs follow without a gap
        order = np.argsort(plan.flops, kind="stable")
        gaps = np.diff(np.log(plan.flops[order])) > WINDOW
        budgets = np.split(order, np.flatnonzero(gaps) + 1)
    cost = fit_cost(points)
    middle = _law_centred_on_plan(plan, budgets, cost) if law_from is None else None
    assumed = middle or _law_from_source(str(law_from), cost)
    law, goal = assumed.model, target or DEFAULT_TARGET_FACTOR * float(plan.flops.max())
    sd_run, unavailable = noise or assumed.noise or NOISE, None
    try:
        identifiability.check(law.law, Dataset(points))
    except ScalingError as error:
        unavailable = error.what
    if unavailable is None and identifiability.collinear(law.law.logs(points.inputs("ND"))):
        unavailable = "one ratio D/N only: the two powers cannot be separated"
    warnings, bias = _warnings(plan, budgets, assumed), None
    intervals: dict[str, Any] = {}
    if unavailable is None:
        intervals = _intervals(plan, assumed, goal, sd_run)
        bias = grid_bias(points, law.law, law.theta, law.cost) if budgets else None
        if intervals["sd_log_n_star"] > 1:
            message = (
                "N* at the target will be unknown by more than a factor of e: train larger "
                "budgets, or more sizes per budget"
            )
            warnings.append(warn(WarningCode.IMPRECISE_TARGET, message))
    return Expectation(
        law=assumed.words,
        target=goal,
        noise=sd_run,
        rho=RHO,
        ci=CI,
        unavailable=unavailable,
        grid_bias=bias.message if bias else None,
        warnings=warnings,
        **intervals,
    )


def _intervals(plan: Runs, assumed: _AssumedLaw, goal: float, sd_run: float) -> dict[str, Any]:
    """The expected intervals of a, N* and L*, and their standard errors, as the document names
    them.
    """
    law = assumed.model
    gradients, optimum = law.gradients(goal), law.optimum()
    if not np.isfinite(gradients).all():
        raise ScalingError(
            f"{assumed.words} has no optimum that is a number at {goal:.3g} FLOPs",
            where="--law-from",
            remedy="name another law or a nearer --target",
        )
    errors = standard_errors(law.rows(plan.n, plan.d), gradients, sd_run, plan.prefix)
    sd_n, sd_loss, sd_a = (inflation(OBJECTIVE, DELTA, sd_run) * errors).tolist()
    z, a = float(ndtri((1 + CI) / 2)), float(optimum.a)

    def around(value: Any, sd: float) -> Interval:
        return Interval(value=value, lo=value * np.exp(-z * sd), hi=value * np.exp(z * sd))

    unknown = Interval(value=None, lo=None, hi=None)
    return {
        "a": Interval(value=a, lo=a - z * sd_a, hi=a + z * sd_a),
        "n_star": around(optimum.n_star(goal), sd_n),
        "loss": around(optimum.loss(goal), sd_loss) if assumed.given else unknown,
        "sd_log_n_star": sd_n,
        "sd_log_loss": sd_loss,
        "sd_a": sd_a,
    }


def _check(target: float | None, noise: float | None) -> None:
    for name, value in (("--target", target), ("--noise", noise)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ScalingError(
                f"{value:g} is not a positive number",
                where=name,
                remedy="FLOPs such as 1e15; noise in log loss, such as 0.007",
            )
    if noise is not None and not LEAST_NOISE <= noise <= 1:
        raise ScalingError(
            f"must be from {LEAST_NOISE:g} to 1, not {noise:g}",
            where="--noise",
            remedy="two seeds of a small model differ by about 0.007",
        )


def _law_from_source(source: str, cost: Cost) -> _AssumedLaw:
    """A fit, or a published law under the plan's own cost of a run."""
    fit = load_law(source)
    law = LAWS.get(fit.law)
    if law is None:
        raise ScalingError(
            f"{source} holds no law of the loss in N and D ({fit.law})",
            where="--law-from",
            remedy="name a parametric fit, or published:besiroglu2024",
        )
    theta = np.asarray(law.theta({name: np.asarray(fit.values[name]) for name in law.names}), float)
    model = LinearizedLaw(law, theta, fit.cost if Path(source).is_file() else cost)
    return _AssumedLaw(model, f"{fit.law} of {source}", True, fit.noise)


def _law_centred_on_plan(plan: Runs, budgets: Sequence[np.ndarray], cost: Cost) -> _AssumedLaw:
    """The exponents of SHAPE, with A and B such that the optimum of the middle budget is the middle
    size: of budgets the mean over their middle sizes, else the mean over runs. The loss there is 1.
    """
    shape, log_n, log_c = published(SHAPE), np.log(plan.n), np.log(plan.flops)
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
        f"{share:.0%} of the loss there reducible"
    )
    law = LAWS["chinchilla"]
    return _AssumedLaw(LinearizedLaw(law, np.asarray(law.theta(values), float), cost), words, False)


def _warnings(
    plan: Runs, budgets: Sequence[np.ndarray], assumed: _AssumedLaw
) -> list[ResultWarning]:
    """What is wrong with the grid wherever its optimum lies; and by a law of one's own, budgets
    whose optimum lies beyond their sizes or in the outer quarter of them.
    """
    ratio, warnings, few, off_centre = np.ptp(np.log(plan.d / plan.n)), [], [], []
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
        sizes, flops = plan.n[row], float(plan.flops[row].mean())
        if distinct(sizes) < MIN_SIZES:
            few.append(format_flops(flops))
        low, high, best = sizes.min(), sizes.max(), float(assumed.model.optimum().n_star(flops))
        place = np.log(best / low) / max(np.log(high / low), SAME_SIZE)
        if assumed.given and not 0.25 <= place <= 0.75:
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
