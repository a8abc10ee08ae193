"""Two sweeps compared: do their laws differ, and how much compute does one need for the loss of the
other?

Each side brings the bootstrap draws of its own fit. Sides are independent, so draws of one are
paired with draws of the other at random, and what is asked of both (a difference, a ratio of
compute) is computed on every pair: a joint bootstrap (Efron and Tibshirani 1993, sections 8.3 and
16.2). p-values are those of the percentile intervals: an interval of 1 - p just touches no
difference.

At equal loss L the first needs C_A(L) FLOPs and the other C_B(L), both along their compute-optimal
frontiers. C_B / C_A is the share that the other needs; C_A / C_B is the compute multiplier, or
compute-equivalent gain (Davidson et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import Estimate, Interval
from scaling.fit.frontier.frontier import Frontier
from scaling.fit.laws.laws import LAWS
from scaling.fit.result import FitResult
from scaling.fit.significance import holm, open_interval, two_sided
from scaling.points.comparability import comparable
from scaling.predict.compared_sweep import (
    ComparedSweep,
    check_comparable,
    compared_fit,
    compared_sweep,
    fitting_notes,
)
from scaling.predict.comparison import (
    Band,
    Comparison,
    ComputeMultiplier,
    ComputeRow,
    DifferenceTest,
    FrontierCurves,
    GainCurve,
    LossComparability,
)

Array = np.ndarray
SCHEMA = 2
PAIRS = 10_000  # pairs of draws for a number
BAND_PAIRS = 2_000  # pairs of draws for each point of a curve
LEVEL = 0.05
BUDGETS, CURVE = 5, 60
NEVER = "does not reach this loss with any compute"


def compare(
    fits: Mapping[str, FitResult], budgets: Sequence[float] = (), seed: int = 0
) -> Comparison:
    """The comparison of the first fit with each other one. `budgets` are FLOPs of the first at
    which the other's compute for the same loss is asked, in addition to those that both trained.

    Raises ScalingError for fits of one source, of different conventions, without draws or without a
    frontier.
    """
    with np.errstate(all="ignore"):  # draws may lie anywhere
        return _compared([compared_sweep(name, fit) for name, fit in fits.items()], budgets, seed)


def _compared(sides: Sequence[ComparedSweep], budgets: Sequence[float], seed: int) -> Comparison:
    check_comparable(sides)
    first, others = sides[0], sides[1:]
    random = np.random.default_rng(seed)
    losses = {other.name: comparable(first.fit.to_dict(), other.fit.to_dict()) for other in others}
    multipliers = {
        other.name: _equal_loss_compute(first, other, budgets, random)
        for other in others
        if losses[other.name].compare is not False
    }
    tests = [
        test
        for other in others
        for test in _tests(
            first,
            other,
            multipliers.get(other.name),
            losses[other.name].compare is not False,
            random,
        )
    ]
    adjusted = holm([test.p for test in tests])
    return Comparison(
        schema_version=SCHEMA,
        baseline=first.name,
        ci=first.law.ci,
        level=LEVEL,
        sides=[compared_fit(side) for side in sides],
        losses={
            name: LossComparability(compare=each.compare, why=each.why)
            for name, each in losses.items()
        },
        tests=[
            test.model_copy(update={"p_holm": p, "significant": p < LEVEL})
            for test, p in zip(tests, adjusted, strict=True)
        ],
        multipliers=multipliers,
        frontiers={side.name: _curves(side, sides, random) for side in sides},
        notes=[note for side in others for note in fitting_notes(first, side)],
    )


def _tests(
    first: ComparedSweep,
    other: ComparedSweep,
    multiplier: ComputeMultiplier | None,
    losses: bool,
    random: np.random.Generator,
) -> list[DifferenceTest]:
    """The difference of each exponent (and of E where losses compare), and of the compute for one
    loss, with its p.
    """
    tests = []
    for name in _asked(first, other, losses):
        ours, theirs = first.parameter(name), other.parameter(name)
        if np.ptp(ours[1]) == 0 and np.ptp(theirs[1]) == 0:
            continue  # fixed at a value in both: nothing was estimated
        drawn = _paired(ours[1], random, PAIRS, theirs[1])
        difference = Estimate.of(theirs[0] - ours[0], drawn[1] - drawn[0], first.law.ci)
        p = two_sided(drawn[1] - drawn[0], len(ours[1]) * len(theirs[1]))
        tests.append(
            DifferenceTest(
                other=other.name,
                quantity=name,
                first=Estimate.of(*ours, first.law.ci),
                second=Estimate.of(*theirs, first.law.ci),
                difference=difference,
                p=p,
                p_holm=p,
                significant=p < LEVEL,
            )
        )
    if multiplier is not None and multiplier.at_top.p is not None:
        p = multiplier.at_top.p
        tests.append(
            DifferenceTest(
                other=other.name,
                quantity="compute",
                first=None,
                second=None,
                difference=multiplier.at_top.share,
                p=p,
                p_holm=p,
                significant=p < LEVEL,
            )
        )
    return tests


def _asked(first: ComparedSweep, other: ComparedSweep, losses: bool) -> list[str]:
    """a and b, and of one law its exponents and, where losses compare, its floor: coefficients
    follow the units of N and D.
    """
    if first.fit.law != other.fit.law or {first.fit.approach, other.fit.approach} != {"parametric"}:
        return ["a", "b"]
    law = LAWS[first.fit.law]
    kept = [param.name for param in law.params if not (param.log or param.crossing or param.place)]
    return ["a", "b", *(name for name in kept if losses or name != law.floor)]


def _paired(one: Array, random: np.random.Generator, count: int, two: Array) -> tuple[Array, Array]:
    """`count` pairs of finite draws at random: draws of one seed must not meet in their order, for
    they share its errors.
    """
    kept = [column[np.isfinite(column)] for column in (one, two)]
    return kept[0][random.integers(0, len(kept[0]), count)], kept[1][
        random.integers(0, len(kept[1]), count)
    ]


def _taken(draws: Frontier, rows: Array) -> Frontier:
    def picked(name: str) -> Array | None:
        column = getattr(draws, name)
        return None if column is None else np.broadcast_to(column, np.shape(draws.a))[rows]

    a, log_n, b, log_d = (np.asarray(picked(name)) for name in ("a", "log_n", "b", "log_d"))
    return Frontier(a, log_n, b, log_d, picked("floor"), picked("log_gap"), picked("gamma"))


def compute_ratio(first: Frontier, other: Frontier, flops: Array) -> Array:
    """C_B / C_A: FLOPs of `other`, in units of `flops` (K, 1) or (K,), for the loss that `first`
    reaches with them, both along their frontiers; inf where that loss is not above the floor of
    `other`, nan where a draw has no frontier.
    """
    loss = np.asarray(first.loss(flops), float)
    needed = other.flops_for(loss) / flops
    floor = np.asarray(other.floor, float)
    never = np.isfinite(loss) & np.isfinite(floor) & (loss <= floor)
    return np.where(never | (needed > 0), np.where(never, np.inf, needed), np.nan)


def _equal_loss_compute(
    first: ComparedSweep,
    other: ComparedSweep,
    budgets: Sequence[float],
    random: np.random.Generator,
) -> ComputeMultiplier | None:
    """What `other` spends for the loss of `first`: at budgets both trained, at those asked for, and
    as a curve.
    """
    if first.optimum.gamma is None or other.optimum.gamma is None:
        return None
    low, high = (max(first.budgets[0], other.budgets[0]), min(first.budgets[1], other.budgets[1]))
    both = low <= high
    low, high = min(low, high), max(low, high)
    asked = np.unique(
        [*(np.geomspace(low, high, BUDGETS) if high > low else [low]), *map(float, budgets)]
    )
    line = np.geomspace(min(first.budgets[0], other.budgets[0]), 10 * high, CURVE)
    share, drawn = _shares(first, other, asked, PAIRS, random)
    rows = [_row(first, other, *each) for each in zip(asked, share, drawn, strict=True)]
    top = int(np.argmin(np.abs(asked - high)))
    p = _p_of_share(first, other, drawn[top])
    return ComputeMultiplier(
        both_trained=both,
        range=(low, high),
        at_top=rows[top].model_copy(update={"p": p}),
        rows=rows,
        curve=_band(line, *_shares(first, other, line, BAND_PAIRS, random), first.law.ci),
    )


def _shares(
    first: ComparedSweep,
    other: ComparedSweep,
    flops: Array,
    count: int,
    random: np.random.Generator,
) -> tuple[Array, Array]:
    """The share at each budget (K,), and its draws (K, M <= count); inf where the loss is out of
    reach. Pairs with a draw that has no frontier are left out.
    """
    rows = [random.integers(0, np.size(side.draws.a), count) for side in (first, other)]
    drawn = compute_ratio(
        _taken(first.draws, rows[0]), _taken(other.draws, rows[1]), flops[:, None]
    )
    whole = drawn[:, ~np.isnan(drawn).any(axis=0)]
    if not whole.size:
        raise ScalingError(
            "no pair of refits has a frontier",
            where=other.name,
            remedy="fit it again with more draws: scaling fit SOURCE --bootstrap 1000",
        )
    return compute_ratio(first.optimum, other.optimum, flops), whole


def _p_of_share(first: ComparedSweep, other: ComparedSweep, drawn: Array) -> float:
    return two_sided(
        np.log(np.maximum(drawn, 1e-300)), np.size(first.draws.a) * np.size(other.draws.a)
    )


def _row(
    first: ComparedSweep, other: ComparedSweep, flops: float, share: float, drawn: Array
) -> ComputeRow:
    """One budget of the first: its loss, what the other needs for it, and whether that lies beyond
    what was trained.
    """
    ends = open_interval(share, drawn, first.law.ci)
    beyond = [
        side.name
        for side, spent in ((first, flops), (other, share * flops))
        if not side.budgets[0] / 1.01 <= spent <= side.budgets[1] * 1.01
    ]
    loss = first.optimum.loss(flops)
    return ComputeRow(
        flops=float(flops),
        loss=float(loss),  # type: ignore[arg-type]
        needed=float(share * flops),
        share=ends,
        gain=Interval(value=_inverse(ends.value), lo=_inverse(ends.hi), hi=_inverse(ends.lo)),
        beyond=beyond,
        never=None if np.isfinite(share) else f"{other.name} {NEVER}",
        unreached=float(np.mean(~np.isfinite(drawn))),
    )


def _inverse(value: float | None) -> float | None:
    """1 / share; an interval that is open above ends at a gain of nothing."""
    return 0.0 if value is None else 1 / value if value > 0 else None


def _band(flops: Array, share: Array, drawn: Array, ci: float) -> GainCurve:
    """The gain C_A / C_B over budgets of the first, with its band (all (K,)); 0 where the loss is
    out of reach.
    """
    lo, hi = np.quantile(1 / drawn, [(1 - ci) / 2, (1 + ci) / 2], axis=1, method="inverted_cdf")
    return GainCurve(
        flops=flops.tolist(),
        gain=(1 / share).tolist(),
        lo=np.minimum(lo, 1 / share).tolist(),
        hi=np.maximum(hi, 1 / share).tolist(),
    )


def _curves(
    side: ComparedSweep, sides: Sequence[ComparedSweep], random: np.random.Generator
) -> FrontierCurves:
    """L*(C) and N*(C) with bands, over the budgets of all sides and ten times beyond
    the largest.
    """
    line = np.geomspace(
        min(each.budgets[0] for each in sides), 10 * max(each.budgets[1] for each in sides), CURVE
    )
    bands: dict[str, Band] = {}
    for name in ("n_star", "loss"):
        value, drawn = getattr(side.optimum, name)(line), getattr(side.draws, name)(line[:, None])
        if value is not None:
            whole = drawn[:, np.isfinite(drawn).all(axis=0)]
            lo, hi = (
                np.quantile(whole, [(1 - side.law.ci) / 2, (1 + side.law.ci) / 2], axis=1)
                if whole.size
                else (value, value)
            )
            ends = np.minimum(lo, value), np.maximum(hi, value)
            bands[name] = Band(value=value.tolist(), lo=ends[0].tolist(), hi=ends[1].tolist())
    return FrontierCurves(flops=line.tolist(), n_star=bands.get("n_star"), loss=bands.get("loss"))
