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
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import Estimate, Interval
from scaling.fit.frontier.frontier import Frontier
from scaling.fit.laws.laws import LAWS
from scaling.fit.result import FitResult
from scaling.fit.significance import holm, open_interval, two_sided
from scaling.points.comparability import LossComparability, comparable
from scaling.predict.comparison import (
    ComparedFit,
    Comparison,
    ComputeMultiplier,
    ComputeRow,
    DifferenceTest,
    GainCurve,
)
from scaling.predict.law_source import FittedLaw, load_law

Array = np.ndarray
SCHEMA = 2
PAIRS = 10_000  # pairs of draws for a number
BAND_PAIRS = 2_000  # pairs of draws for each point of a curve
LEVEL = 0.05
BUDGETS, CURVE = 5, 60
NEVER = "does not reach this loss with any compute"
UNKNOWN = "as given"


@dataclass(frozen=True)
class ComparedSweep:
    """One sweep: its name, fit, law and frontier, draws (R,) of the frontier, and the smallest and
    largest FLOPs trained.
    """

    name: str
    fit: FitResult
    law: FittedLaw
    optimum: Frontier
    draws: Frontier
    budgets: tuple[float, float]

    @property
    def fitted(self) -> dict[str, str]:
        """How it was fitted: law, approach, and objective with its delta."""
        objective = self.fit.objective
        text = objective.name
        if objective.delta:
            is_chosen = objective.delta_from_noise
            text += f" (delta {'from the noise' if is_chosen else f'{objective.delta:g}'})"
        return {"law": self.fit.law, "approach": self.fit.approach, "objective": text}

    @property
    def counted(self) -> dict[str, str]:
        """How it counts N and C, by the option that says so."""
        convention = self.law.convention
        return {"params": convention.params or UNKNOWN, "flops": convention.flops or UNKNOWN}


@np.errstate(all="ignore")  # draws may lie anywhere
def compare(
    fits: Mapping[str, FitResult], budgets: Sequence[float] = (), seed: int = 0
) -> Comparison:
    """The comparison of the first fit with each other one. `budgets` are FLOPs of the first at
    which the other's compute for the same loss is asked, in addition to those that both trained.

    Raises ScalingError for fits of one source, of different conventions, without draws or without a
    frontier.
    """
    sides = [_compared_sweep(name, fit) for name, fit in fits.items()]
    _check_comparable(sides)
    first, *others = sides
    random = np.random.default_rng(seed)
    losses, multipliers = {}, {}
    for other in others:
        losses[other.name] = comparable(first.fit.to_dict(), other.fit.to_dict())
        if losses[other.name].compare is not False:
            multipliers[other.name] = _multiplier(first, other, budgets, random)
    tests = [
        test
        for other in others
        for test in _tests(first, other, multipliers.get(other.name), losses[other.name], random)
    ]
    adjusted = holm([test.p for test in tests])
    return Comparison(
        schema_version=SCHEMA,
        baseline=first.name,
        ci=first.law.ci,
        level=LEVEL,
        sides=[
            ComparedFit(
                **{name: value for name, value in side.fit if name in ComparedFit.model_fields}
                | {"name": side.name, "objective": side.fitted["objective"]}
            )
            for side in sides
        ],
        losses=losses,
        tests=[
            test.model_copy(update={"p_holm": p, "significant": p < LEVEL})
            for test, p in zip(tests, adjusted, strict=True)
        ],
        multipliers=multipliers,
        notes=[note for side in others for note in _fitting_notes(first, side)],
    )


def _compared_sweep(name: str, fit: FitResult) -> ComparedSweep:
    """A fit as a side. Raises ScalingError for one without a frontier, draws or budgets."""
    law = load_law(fit)
    if law.optimum is None or law.frontier is None:
        raise ScalingError(
            f"the law {fit.law} has no compute-optimal N and D to compare",
            where=name,
            remedy="fit another law",
        )
    if law.draws is None or np.size(law.frontier.a) < 3:
        raise ScalingError(
            "the fit holds no bootstrap draws, so nothing can be tested",
            where=name,
            remedy="fit it again with draws: scaling fit SOURCE --bootstrap 1000",
        )
    if "flops" not in law.range:
        raise ScalingError(
            "the fit does not say which budgets were trained",
            where=name,
            remedy="fit a table that holds N, D and C",
        )
    draws = _rows(law.frontier, slice(1, None))
    return ComparedSweep(name, fit, law, law.optimum, draws, law.range["flops"])


def _rows(frontier: Frontier, rows: Any) -> Frontier:
    """Some rows of a frontier."""
    taken = {
        name: np.broadcast_to(column, frontier.a.shape)[rows]
        for name, column in frontier.columns.items()
        if column is not None
    }
    return Frontier(**taken, cost=frontier.cost)


def _check_comparable(sides: Sequence[ComparedSweep]) -> None:
    """Raise ScalingError where sides rest on the same runs, or count N or C differently."""
    if len(sides) < 2:
        raise ScalingError(
            "one source cannot be compared", remedy="name two or more: scaling report A B"
        )
    seen: dict[str, str] = {}
    first = sides[0]
    for side in sides:
        digest = side.fit.source.digest or side.name
        if digest in seen:
            what = (
                f"rests on the same runs as {seen[digest]}: their draws are not independent, "
                "and a test would say nothing"
            )
            raise ScalingError(what, where=side.name, remedy="name one fit of each sweep")
        seen[digest] = side.name
        for (option, ours), theirs in zip(
            first.counted.items(), side.counted.values(), strict=True
        ):
            if UNKNOWN not in (ours, theirs) and ours != theirs:
                letter = "N" if option == "params" else "C"
                raise ScalingError(
                    f"its fit counts {letter} as {theirs}, that of {first.name} as {ours}",
                    where=side.name,
                    remedy=f"fit it again: scaling fit SOURCE --{option} {ours} --out FIT.json",
                )


def _fitting_notes(first: ComparedSweep, other: ComparedSweep) -> list[str]:
    """What the reader must know of how the two were fitted."""
    notes = [
        f"{other.name} was fitted with the {key} {other.fitted[key]}, {first.name} with {ours}."
        for key, ours in first.fitted.items()
        if other.fitted[key] != ours
    ]
    unknown = [side.name for side in (first, other) if UNKNOWN in side.counted.values()]
    if unknown:
        notes.append(
            f"How N and C are counted is not known for {' and '.join(unknown)}: the same "
            "counting is assumed."
        )
    return notes


def _tests(
    first: ComparedSweep,
    other: ComparedSweep,
    multiplier: ComputeMultiplier | None,
    losses: LossComparability,
    random: np.random.Generator,
) -> list[DifferenceTest]:
    """The difference of a and b, of one law also of its exponents and, where losses compare, its
    floor (coefficients follow the units of N and D), and of the compute for one loss, with its p;
    not yet adjusted for the number of tests.
    """
    ci, tests, names = first.law.ci, [], ["a", "b"]
    if first.fit.law == other.fit.law and first.fit.approach == other.fit.approach == "parametric":
        law = LAWS[first.fit.law]
        names += [
            param.name
            for param in law.params
            if not param.log and (losses.compare is not False or param.name != law.floor)
        ]
    for name in names:
        (ours, our_draws), (theirs, their_draws) = (
            (float(getattr(side.optimum, name)), np.asarray(getattr(side.draws, name)))
            if name in ("a", "b")
            else (float(side.law.values[name]), side.law.parameters[name][1:])
            for side in (first, other)
        )
        if np.ptp(our_draws) == 0 and np.ptp(their_draws) == 0:
            continue  # fixed at a value in both: nothing was estimated
        # pairs at random: draws of one seed must not meet in their order, for they share its errors
        drawn = [
            kept[random.integers(0, len(kept), PAIRS)]
            for kept in (draws[np.isfinite(draws)] for draws in (our_draws, their_draws))
        ]
        gap = drawn[1] - drawn[0]
        tests.append(
            DifferenceTest(
                other=other.name,
                quantity=name,
                first=Estimate.of(ours, our_draws, ci),
                second=Estimate.of(theirs, their_draws, ci),
                difference=Estimate.of(theirs - ours, gap, ci),
                p=two_sided(gap, len(our_draws) * len(their_draws)),
            )
        )
    if multiplier is not None and (p := multiplier.at_top.p) is not None:
        tests.append(
            DifferenceTest(
                other=other.name,
                quantity="compute",
                first=None,
                second=None,
                difference=multiplier.at_top.share,
                p=p,
            )
        )
    return tests


def compute_ratio(first: Frontier, other: Frontier, flops: Array) -> Array:
    """C_B / C_A: FLOPs of `other`, in units of `flops` (K, 1) or (K,), for the loss that `first`
    reaches with them, both along their frontiers; inf where that loss is not above the floor of
    `other`, nan where a draw has no frontier.
    """
    loss = np.asarray(first.loss(flops), float)
    needed = other.flops_of("L", loss) / flops
    floor = np.asarray(other.floor, float)
    never = np.isfinite(loss) & np.isfinite(floor) & (loss <= floor)
    return np.where(never, np.inf, np.where(needed > 0, needed, np.nan))


def _multiplier(
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
    (lowest, low), (high, _) = (
        sorted(ends) for ends in zip(first.budgets, other.budgets, strict=True)
    )
    low, high = sorted((low, high))
    asked = np.unique([*np.geomspace(low, high, BUDGETS if high > low else 1), *budgets])
    share, drawn = _shares(first, other, asked, PAIRS, random)
    rows = [_row(first, other, *each) for each in zip(asked, share, drawn, strict=True)]
    top = int(np.argmin(np.abs(asked - high)))
    pairs = np.size(first.draws.a) * np.size(other.draws.a)
    p = two_sided(np.log(np.maximum(drawn[top], 1e-300)), pairs)
    line = np.geomspace(lowest, 10 * high, CURVE)
    share, drawn = _shares(first, other, line, BAND_PAIRS, random)
    levels = [(1 - first.law.ci) / 2, (1 + first.law.ci) / 2]
    gain, ends = 1 / share, np.quantile(1 / drawn, levels, axis=1, method="inverted_cdf")
    return ComputeMultiplier(
        both_trained=max(first.budgets[0], other.budgets[0])
        <= min(first.budgets[1], other.budgets[1]),
        range=(low, high),
        at_top=rows[top].model_copy(update={"p": p}),
        rows=rows,
        curve=GainCurve(
            flops=line.tolist(),
            gain=gain.tolist(),
            lo=np.minimum(ends[0], gain).tolist(),
            hi=np.maximum(ends[1], gain).tolist(),
        ),
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
    ours, theirs = (
        _rows(side.draws, random.integers(0, np.size(side.draws.a), count))
        for side in (first, other)
    )
    drawn = compute_ratio(ours, theirs, flops[:, None])
    whole = drawn[:, ~np.isnan(drawn).any(axis=0)]
    if not whole.size:
        raise ScalingError(
            "no pair of refits has a frontier",
            where=other.name,
            remedy="fit it again with more draws: scaling fit SOURCE --bootstrap 1000",
        )
    return compute_ratio(first.optimum, other.optimum, flops), whole


def _row(
    first: ComparedSweep, other: ComparedSweep, flops: float, share: float, drawn: Array
) -> ComputeRow:
    """One budget of the first: its loss, what the other needs for it, and whether that lies beyond
    what was trained.
    """
    ends = open_interval(share, drawn, first.law.ci)
    spent = ((first, flops), (other, share * flops))
    # an interval that is open above ends at a gain of nothing
    value, lo, hi = (
        0.0 if end is None else 1 / end if end > 0 else None
        for end in (ends.value, ends.hi, ends.lo)
    )
    return ComputeRow(
        flops=flops,
        loss=float(np.asarray(first.optimum.loss(flops))),
        needed=share * flops,
        share=ends,
        gain=Interval(value=value, lo=lo, hi=hi),
        beyond=[
            side.name
            for side, c in spent
            if not side.budgets[0] / 1.01 <= c <= side.budgets[1] * 1.01
        ],
        never=None if np.isfinite(share) else f"{other.name} {NEVER}",
        unreached=np.mean(~np.isfinite(drawn)),
    )
