"""`scaling next DIR`: the runs that most reduce the uncertainty of N* and L* at a target budget,
for what they cost, and the sweep file that trains them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.linalg import block_diag

from scaling.config import ListDesign, ListedCell, Sweep, sweep_file
from scaling.errors import ScalingError
from scaling.fit.document import Document, Real
from scaling.fit.frontier.budgets import groups_by_gap
from scaling.fit.frontier.frontier import Cost
from scaling.fit.result import WRITE_AGAIN, FitResult, fit_paths
from scaling.formatting import format_flops
from scaling.plan import plan
from scaling.predict.design.law_model import (
    NOISE,
    RHO,
    LinearizedLaw,
    Runs,
    covariance,
    inflation,
    standard_errors,
)
from scaling.predict.design.selection import Belief, choose, precisions
from scaling.predict.law_source import FittedLaw, load_law
from scaling.units import flops_option
from scaling.warning import ResultWarning, WarningCode, warn

SIZES, RATIOS = 48, 17  # of the candidates: of models, and of tokens per parameter of each
LARGER = 100  # times the largest size so far is the largest candidate
# no run is cheaper than this part of the budget: a hundred tiny runs would rest on the law being
# exact
CHEAPEST = 64
LARGEST_SHARE = 0.5  # of the budget is the most that one run costs, unless another limit is set
MAX_RUNS = 64
SAME_SIZE = 1e-3  # in log N: runs this near are of one size, and of one prefix


class BeforeAfter(Document):
    """A standard error from the runs so far, and once the proposal is trained."""

    before: Real
    after: Real


class ProposedRun(Document):
    """A run to train; `flops` is what it costs alone."""

    n_params: Real
    tokens: Real
    flops: Real


class Proposal(Document):
    """What `scaling next` proposes to train for at most `budget` FLOPs, cheapest runs first, with
    the standard errors of log N*, log L* and a at `target`; `flops_alone` is what the runs cost
    without shared prefixes.
    """

    source: str
    law: str
    budget: Real
    target: Real
    spent: Real
    flops_alone: Real
    noise: Real
    sd_log_n_star: BeforeAfter
    sd_log_loss: BeforeAfter
    sd_a: BeforeAfter
    runs: list[ProposedRun]
    warnings: list[ResultWarning]


@dataclass(frozen=True)
class Designed:
    """The runs chosen, cheapest first, what they cost as they share prefixes, and the standard
    errors (3,) of log N*, log L* and a at the target, before and after.
    """

    runs: Runs
    spent: float
    before: np.ndarray
    after: np.ndarray


def candidates(n: np.ndarray, d: np.ndarray, cost: Cost) -> Runs:
    """Runs from the smallest size trained upwards, at the D/N of the runs so far (n,): beyond it
    the law has not been seen to hold. Those of one size share a prefix.
    """
    ratios = d / n
    sizes, ratios = (
        grid.ravel()
        for grid in np.meshgrid(
            np.geomspace(n.min(), n.max() * LARGER, SIZES),
            np.geomspace(ratios.min(), ratios.max(), RATIOS),
            indexing="ij",
        )
    )
    prefix = np.repeat(np.arange(SIZES), RATIOS)
    return Runs(sizes, sizes * ratios, cost.flops(sizes, sizes * ratios), prefix)


def designed(
    law: LinearizedLaw,
    runs: Runs,
    noise: float,
    pool: Runs,
    budget: float,
    target: float,
    largest: float | None = None,
    cooldown: float = 1.0,
) -> Designed:
    """The runs of a pool to train after `runs`, whose log losses have the sd `noise`, for `budget`
    FLOPs together and `largest` each. Of runs that share a prefix all but the longest cost the
    share `cooldown` of theirs. Raises ScalingError when none is affordable.
    """
    lowest, highest = budget / CHEAPEST, min(budget, largest or LARGEST_SHARE * budget)
    if highest < lowest:
        raise ScalingError(
            f"{highest:.3g} FLOPs are less than {lowest:.3g}, a {CHEAPEST}th of the budget, which "
            "the cheapest proposed run costs",
            where="--largest",
            remedy="raise it, or lower --budget",
        )
    pool = pool.take((pool.flops >= lowest) & (pool.flops <= highest * (1 + 1e-9)))
    if not len(pool.n):
        raise ScalingError(
            f"no run of a size that was trained costs between {lowest:.3g} and {highest:.3g} FLOPs",
            where="--budget",
            remedy="give a budget nearer to that of the runs",
        )
    gradients, known, optimum = law.gradients(target), law.rows(runs), law.optimum()
    there = {
        "N": np.atleast_1d(optimum.n_star(target)),
        "D": np.atleast_1d(optimum.d_star(target)),
    }
    old, new = (precisions({"N": each.n, "D": each.d}, there) for each in (runs, pool))
    before = standard_errors(known, gradients, noise, runs.prefix)
    # what the runs of a prefix have in common is one more unknown
    labels, prefix = np.unique(pool.prefix, return_inverse=True)
    is_shared = len(labels) < len(prefix)
    rho, common = (
        (RHO, np.eye(len(labels))[prefix]) if is_shared else (0.0, np.zeros((len(prefix), 0)))
    )
    slopes = np.concatenate([law.rows(pool), common], 1)
    unknown = block_diag(covariance(known, old), rho * np.eye(common.shape[1]))
    asked = np.zeros((slopes.shape[1], 2))
    asked[: len(gradients)] = gradients[:, :2] / before[:2]
    belief = Belief(
        weight=np.ones(1),
        covariance=noise**2 * unknown[None],
        noise=noise * (1 - rho) ** 0.5,
        value=np.zeros((1, len(slopes))),
        slopes=slopes.T[None],
        target_value=np.zeros((1, 2)),
        target_slopes=asked[None],
    )

    def costs(chosen: list[int]) -> np.ndarray:
        """Of each candidate: a longer run of a prefix costs what it adds."""
        longest = np.zeros(len(labels))
        np.maximum.at(longest, prefix[chosen], pool.flops[chosen])
        longest = longest[prefix]
        added = pool.flops - (1 - cooldown) * longest
        return np.where(pool.flops > longest, added, cooldown * pool.flops)

    picks = choose([belief], new, costs, budget, MAX_RUNS)
    chosen = pool.take(np.array(sorted((pick.row for pick in picks), key=pool.flops.__getitem__)))
    rows = np.concatenate([known, law.rows(chosen)])
    both = np.r_[runs.prefix, chosen.prefix + runs.prefix.max() + 1]
    after = standard_errors(rows, gradients, noise, both)
    return Designed(chosen, sum(pick.cost for pick in picks), before, after)


def next_runs(
    source: Path,
    budget: object,
    target: object,
    largest: object = None,
    out: Path | None = None,
) -> Proposal:
    """Runs to train for `budget` FLOPs, with the expected standard errors at `target` before and
    after.

    `source` is a fit document or a results folder that holds one; the folder's sweep.toml says how
    models are built and whether runs of a size share prefixes. `largest` limits the cost of one
    run; `out` becomes the sweep of the runs. Raises ScalingError.
    """
    path = source
    if source.is_dir():
        path = next(iter(fit_paths(source)), source)  # which the message names where it has none
    spend, goal = flops_option(budget, "--budget"), flops_option(target, "--target")
    most = None if largest is None else flops_option(largest, "--largest")
    fit, result = load_law(str(path)), FitResult.load(path)
    parent = fit.sweep()
    law, vocab_size = LinearizedLaw.of_fit(fit), fit.model.vocab_size
    n, d = (np.array(result.data.get(name) or (), float) for name in ("n_params", "tokens"))
    if not len(n) == len(d) > 0:
        raise ScalingError("does not hold its runs", where=path, remedy=WRITE_AGAIN)
    runs, noise = Runs(n, d, law.cost.flops(n, d), np.arange(len(n))), fit.noise or NOISE
    pool, cooldown = candidates(n, d, law.cost), 1.0
    if parent is not None and vocab_size is not None:
        sweep = _next_sweep(parent, fit, pool, goal).model_copy(update={"axes": ()})
        planned = plan(sweep, sweep.base.task, vocab_size)
        pool, cooldown = Runs.of_plan(planned), planned.runs[0].run.optim.cooldown_frac
    else:  # whether runs share prefixes is not known
        pool = replace(pool, prefix=np.arange(len(pool.n)))
    if len(np.unique(pool.prefix)) < len(pool.prefix):
        runs = replace(runs, prefix=groups_by_gap(np.log(n), SAME_SIZE))
    design = designed(law, runs, noise, pool, spend, goal, most, cooldown)
    if out is not None:
        _write(out, source, parent if vocab_size else None, fit, design, goal)
    wide = inflation(result.objective.name, result.objective.delta or 0.0, noise)
    errors = [
        BeforeAfter(before=wide * before, after=wide * after)
        for before, after in zip(design.before, design.after, strict=True)
    ]
    chosen = design.runs
    return Proposal(
        source=str(path),
        law=law.law.name,
        budget=spend,
        target=goal,
        spent=design.spent,
        flops_alone=float(chosen.flops.sum()),
        noise=noise,
        sd_log_n_star=errors[0],
        sd_log_loss=errors[1],
        sd_a=errors[2],
        runs=[
            ProposedRun(n_params=size, tokens=tokens, flops=flops)
            for size, tokens, flops in zip(chosen.n, chosen.d, chosen.flops, strict=True)
        ],
        warnings=[*fit.warnings, *_warnings(errors[0].before, parent)],
    )


def _write(
    out: Path, source: Path, parent: Sweep | None, fit: FittedLaw, design: Designed, target: float
) -> None:
    if parent is None:
        raise ScalingError(
            "no sweep.toml, or a fit that does not say how its models were counted: they cannot be "
            "built again",
            where=source,
            remedy="leave out --out, or fit the folder of `scaling run` again: scaling fit DIR",
        )
    sweep = _next_sweep(parent, fit, design.runs, target)
    head = f"{sweep.question}\n\n  scaling run {out}\n\nWritten by `scaling next`: "
    sweep_file.write_sweep(sweep, out, f"{head}{format_flops(design.spent)} FLOPs.")


def _next_sweep(parent: Sweep, fit: FittedLaw, runs: Runs, target: float) -> Sweep:
    """The sweep of some runs. Task, model, optimiser, recipe, axes and evaluation are those of its
    parent, with the rules that were tuned for it; the seed is a new one, since a run of a seed
    already trained would repeat its noise.
    """
    used = {*parent.seeds, *(seed for more in parent.replicates for seed in more.seeds)}
    used |= {seed for cell in getattr(parent.design, "cells", ()) for seed in cell.seeds or ()}
    cells = tuple(
        ListedCell(size=size, tokens=tokens)
        for size, tokens in zip(runs.n.tolist(), runs.d.tolist(), strict=True)
    )
    return Sweep(
        name=f"{parent.name[:59]}-next",
        question="The runs that say most about the optimum at "
        f"{format_flops(target)} FLOPs after {parent.name}.",
        design=ListDesign(kind="list", cells=cells, params=fit.counting()[0]),
        seeds=((max(used) + 1) % 2**32,),
        **{name: getattr(parent, name) for name in ("base", "recipe", "axes", "evals")},
    )


def _warnings(sd_log_n_star: float, parent: Sweep | None) -> Iterator[ResultWarning]:
    if sd_log_n_star > 1:
        message = (
            "N* at the target is unknown by more than a factor of e: the first-order error bars "
            "are rough"
        )
        yield warn(WarningCode.IMPRECISE_TARGET, message)
    axes = math.prod(len(axis.values) for axis in parent.axes) if parent else 1
    if axes > 1:
        message = f"the axes of the sweep train every cell {axes} times: so much more is the cost"
        yield warn(WarningCode.AXES_MULTIPLY_COST, message, runs=axes)
