"""What a plan will be able to tell, before a run is trained: the expected intervals of the exponent
and of N* and L* at a target.

The runs' N, D and prefixes are known, and so is the design matrix under an assumed law; the losses
are not needed (`belief`). Without a law of one's own, one is assumed whose optimum passes through
the middle of the grid: where it truly lies decides what is off-centre, but hardly how well the runs
tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from scaling.config import IsoflopDesign
from scaling.errors import ScalingError
from scaling.fit import identifiability
from scaling.fit.dataset import Dataset
from scaling.fit.document import to_jsonable
from scaling.fit.frontier.budgets import MIN_SIZES, SAME_SIZE, WINDOW, distinct
from scaling.fit.frontier.frontier import fit_cost
from scaling.fit.frontier.isoflop import grid_bias
from scaling.fit.laws.laws import LAWS
from scaling.fit.laws.published import published
from scaling.formatting import format_count, format_flops
from scaling.plan import Plan
from scaling.points.points import Points
from scaling.predict.design.law_model import (
    RHO,
    LinearizedLaw,
    check_share,
    inflation,
    standard_errors,
)
from scaling.predict.law_source import load_law
from scaling.warning import ResultWarning, WarningCode, warn

# of log loss: replicates of sweeps/honest.toml differ by 1.0 %, at 10k and 40k parameters; without
# them it is not known
NOISE = 0.01
LEAST_NOISE = 1e-9
REACH = 10.0  # the target, unless said otherwise, in largest budgets
MIN_BUDGETS = 4
NARROW = 4.0  # a range of D/N below which the two powers are hardly separable
SHAPE = "besiroglu2024"
# of the loss that is not yet E, at the middle of an assumed law: small models' is larger, and tells
# more
LARGEST_SHARE = 0.5


@dataclass(frozen=True)
class Planned:
    """The runs of a plan (n,): N, D, C, the prefix of each; `isoflop` says whether they are budgets
    by sizes.
    """

    n: np.ndarray
    d: np.ndarray
    c: np.ndarray
    prefix: np.ndarray
    isoflop: bool = False


@dataclass(frozen=True)
class _AssumedLaw:
    """The law that the expectation rests on, in words too; `given` unless it was put through the
    middle of the grid.
    """

    belief: LinearizedLaw
    words: str
    given: bool
    noise: float | None = None


def expected_of_plan(
    plan: Plan, target: float | None, law_from: str | None, noise: float | None
) -> dict[str, Any]:
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
    n, d, _ = (np.array(column, float) for column in zip(*cells, strict=True))
    c, group = (np.array(column) for column in zip(*cells.values(), strict=True))
    is_isoflop = isinstance(plan.sweep.design, IsoflopDesign)
    return expected(Planned(n, d, c.astype(float), group, is_isoflop), target, law_from, noise)


@np.errstate(all="ignore")  # what is no number is refused by name
def expected(
    plan: Planned,
    target: float | None = None,
    law_from: str | None = None,
    noise: float | None = None,
    *,
    rho: float = RHO,
    objective: str = "huber-log",
    delta: float = 1e-3,
    ci: float = 0.95,
) -> dict[str, Any]:
    """{law, target, noise, rho, ci, a, n_star, loss (each {value, lo, hi}), sd_a, sd_log_n_star,
    sd_log_loss, grid_bias, unavailable, warnings} of a parametric fit to the runs of a plan.
    `n_star` is under the assumed law; the loss of a law assumed here has no value.

    `law_from` is a fit or published:NAME, `noise` the sd of a run's log loss. Raises ScalingError
    for a bad option or law.
    """
    _check(target, noise, rho)
    assumed = _given(plan, law_from) if law_from is not None else _through_the_middle(plan)
    sd_run = noise or assumed.noise or NOISE
    goal = target or REACH * float(plan.c.max())
    head = {
        "law": assumed.words,
        "target": goal,
        "noise": sd_run,
        "rho": rho,
        "ci": ci,
        "unavailable": _unavailable(plan, assumed.belief),
    }
    warnings = [
        *_shape_warnings(plan),
        *(_place_warnings(plan, assumed.belief) if assumed.given else []),
    ]
    if head["unavailable"]:
        return to_jsonable(
            {**head, "warnings": [each.model_dump(mode="json") for each in warnings]}
        )
    if not np.isfinite(assumed.belief.gradients(goal)).all():
        raise ScalingError(
            f"{assumed.words} has no optimum that is a number at {goal:.3g} FLOPs",
            where="--law-from",
            remedy="name another law or a nearer --target",
        )
    rows, wide = assumed.belief.rows(plan.n, plan.d), inflation(objective, delta, sd_run)
    sd = wide * standard_errors(rows, assumed.belief.gradients(goal), sd_run, plan.prefix, rho)
    if sd[0] > 1:
        message = (
            "N* at the target will be unknown by more than a factor of e: train larger budgets, or "
            "more sizes per budget"
        )
        warnings.append(warn(WarningCode.IMPRECISE_TARGET, message))
    return to_jsonable(
        {
            **head,
            **_intervals(assumed, goal, sd, float(ndtri((1 + ci) / 2))),
            "sd_log_n_star": sd[0],
            "sd_log_loss": sd[1],
            "sd_a": sd[2],
            "grid_bias": _bias(plan, assumed.belief) if plan.isoflop else None,
            "warnings": [warning.model_dump(mode="json") for warning in warnings],
        }
    )


def _check(target: float | None, noise: float | None, rho: float) -> None:
    for name, value in (("--target", target), ("--noise", noise)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ScalingError(
                f"{value:g} is not a positive number",
                where=name,
                remedy="FLOPs such as 1e15; noise in log loss, such as 0.007",
            )
    if noise is not None and not LEAST_NOISE <= noise <= 1:
        raise ScalingError(
            f"{noise:g} is no noise of a log loss",
            where="--noise",
            remedy=f"give a number from {LEAST_NOISE:g} to 1, such as 0.007",
        )
    check_share(rho)


def _given(plan: Planned, source: str) -> _AssumedLaw:
    """A fit, or a published law under the plan's own cost of a run."""
    source_law = load_law(source)
    law = LAWS.get(source_law.law)
    if law is None:
        raise ScalingError(
            f"{source} holds no law of the loss in N and D ({source_law.law})",
            where="--law-from",
            remedy="name a parametric fit, or published:besiroglu2024",
        )
    theta = np.asarray(
        law.theta({name: np.asarray(value) for name, value in source_law.values.items()}), float
    )
    cost = (
        source_law.cost
        if Path(source).is_file()
        else fit_cost(Points(np.ones(len(plan.n)), plan.n, plan.d, plan.c))
    )
    return _AssumedLaw(
        LinearizedLaw(law, theta, cost), f"{source_law.law} of {source}", True, source_law.noise
    )


def _through_the_middle(plan: Planned) -> _AssumedLaw:
    """The exponents of SHAPE, with A and B such that the optimum of the middle budget is the middle
    size. The loss there is 1.
    """
    shape, cost = published(SHAPE), fit_cost(Points(np.ones(len(plan.n)), plan.n, plan.d, plan.c))
    alpha, beta = shape.values["alpha"], shape.values["beta"]
    n, c = np.exp(_middle(plan))
    d = float(cost.tokens(np.asarray(n), np.asarray(c)))
    optimum = shape.frontier()
    reducible = float(optimum.loss(c)) - shape.values["E"]  # type: ignore[arg-type]
    share = min(LARGEST_SHARE, reducible / (reducible + shape.values["E"]))
    part = (
        cost.p * beta / (alpha + cost.p * beta)
    )  # of the reducible loss that A N^-alpha is at the optimum
    values = {
        "E": 1 - share,
        "A": share * part * n**alpha,
        "B": share * (1 - part) * d**beta,
        "alpha": alpha,
        "beta": beta,
    }
    words = (
        f"assumed: exponents of {SHAPE}, optimum through the middle of the plan, "
        f"{share:.0%} of the loss there reducible"
    )
    law = LAWS["chinchilla"]
    return _AssumedLaw(LinearizedLaw(law, np.asarray(law.theta(values), float), cost), words, False)


def _middle(plan: Planned) -> np.ndarray:
    """(log N, log C) of the middle: of budgets the mean over their middle sizes, else the mean over
    runs.
    """
    if not plan.isoflop:
        return np.array([np.log(plan.n).mean(), np.log(plan.c).mean()])
    rows = list(_by_budget(plan.c))
    middles = [(np.log(plan.n[row]).min() + np.log(plan.n[row]).max()) / 2 for row in rows]
    return np.array([np.mean(middles), np.mean([np.log(plan.c[row]).mean() for row in rows])])


def _by_budget(c: np.ndarray) -> Iterator[np.ndarray]:
    """The runs of each budget, cheapest first: those whose FLOPs follow each other
    without a gap.
    """
    order = np.argsort(c, kind="stable")
    cuts = np.flatnonzero(np.diff(np.log(c[order])) > WINDOW) + 1
    yield from np.split(order, cuts)


def _unavailable(plan: Planned, belief: LinearizedLaw) -> str | None:
    """Why nothing can be expected of a fit to such runs, if so."""
    try:
        points = Points(np.ones(len(plan.n)), plan.n, plan.d, plan.c)
        identifiability.check(belief.law, Dataset(points))
    except ScalingError as error:
        return error.what
    if identifiability.collinear({"N": np.log(plan.n), "D": np.log(plan.d)}):
        return "one ratio D/N only: the two powers cannot be separated"
    return None


def _intervals(
    assumed: _AssumedLaw, goal: float, sd: np.ndarray, z: float
) -> dict[str, dict[str, float | None]]:
    optimum = assumed.belief.optimum()
    n, loss, a = float(optimum.n_star(goal)), optimum.loss(goal), float(optimum.a)
    assert loss is not None
    ends = [
        {"value": each, "lo": each * np.exp(-z * s), "hi": each * np.exp(z * s)}
        for each, s in ((n, sd[0]), (float(loss), sd[1]))
    ]
    unknown: dict[str, float | None] = {"value": None, "lo": None, "hi": None}
    return {
        "a": {"value": a, "lo": a - z * sd[2], "hi": a + z * sd[2]},
        "n_star": ends[0],
        "loss": ends[1] if assumed.given else unknown,
    }


def _bias(plan: Planned, belief: LinearizedLaw) -> str | None:
    points = Points(np.ones(len(plan.n)), plan.n, plan.d, plan.c)
    bias = grid_bias(points, belief.law, belief.theta, belief.cost)
    return bias.message if bias else None


def _shape_warnings(plan: Planned) -> list[ResultWarning]:
    """What is wrong with the grid wherever its optimum lies."""
    ratio, warnings = plan.d / plan.n, []
    if ratio.max() < NARROW * ratio.min():
        message = (
            f"D/N varies by a factor of {ratio.max() / ratio.min():.2g} only: the powers "
            "of N and D "
            "will hardly be separable"
        )
        warnings.append(warn(WarningCode.NARROW_RATIO, message))
    if not plan.isoflop:
        return warnings
    rows = list(_by_budget(plan.c))
    if len(rows) < MIN_BUDGETS:
        message = (
            f"{len(rows)} budget{'s' * (len(rows) > 1)}: an exponent with an honest interval needs "
            f"{MIN_BUDGETS} or more"
        )
        warnings.append(warn(WarningCode.FEW_BUDGETS, message, budgets=len(rows)))
    few = [
        format_flops(float(plan.c[row].mean())) for row in rows if distinct(plan.n[row]) < MIN_SIZES
    ]
    if few:
        message = (
            f"fewer than {MIN_SIZES} sizes at {', '.join(few)} FLOPs: no minimum can be fitted"
        )
        warnings.append(warn(WarningCode.FEW_SIZES, message))
    return warnings


def _place_warnings(plan: Planned, belief: LinearizedLaw) -> list[ResultWarning]:
    """Budgets whose optimum, by a law of one's own, lies beyond their sizes or in the outer quarter
    of them.
    """
    if not plan.isoflop:
        return []
    warnings = []
    for row in _by_budget(plan.c):
        flops = float(plan.c[row].mean())
        low, high = np.log(plan.n[row]).min(), np.log(plan.n[row]).max()
        best = float(belief.optimum().n_star(flops))
        place = (np.log(best) - low) / max(high - low, SAME_SIZE)
        where = (
            "beyond the sizes"
            if not 0 <= place <= 1
            else "in the outer quarter of the sizes"
            if not 0.25 <= place <= 0.75
            else ""
        )
        if where:
            ends = f"{format_count(float(np.exp(low)))} to {format_count(float(np.exp(high)))}"
            message = (
                f"off-centre at {format_flops(flops)} FLOPs: N* = {format_count(best)} lies "
                f"{where} "
                f"({ends})"
            )
            warnings.append(warn(WarningCode.OFF_CENTRE, message, flops=flops))
    return warnings
