"""`scaling next`: the runs that most reduce the uncertainty of N* and L* at a target budget, for
what they cost, and the sweep file that trains them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from scaling.config import ListDesign, ListedCell, NConvention, Sweep, sweep_file
from scaling.errors import ScalingError
from scaling.fit.document import Document, FitStatus, Integer, Real
from scaling.fit.frontier.budgets import groups_by_gap
from scaling.fit.laws.laws import LAWS
from scaling.fit.result import WRITE_AGAIN, FitResult
from scaling.formatting import format_flops
from scaling.predict.design.candidates import COOLDOWN, ModelBuilder, candidates
from scaling.predict.design.law_model import (
    RHO,
    LinearizedLaw,
    Runs,
    inflation,
    standard_errors,
)
from scaling.predict.design.selection import MOST_COPIES, DesignState, choose
from scaling.predict.law_source import load_law, sweep_of
from scaling.units import flops_option
from scaling.warning import ResultWarning, WarningCode, warn

# in log N: runs this near are of one size, and of one prefix where prefixes are shared
SAME_SIZE = 1e-3
# the largest run costs up to this part of the money, unless such a run exists or another limit is
# set
ANCHOR = 0.5
SIMILAR = 0.5  # a run that cost this part of the anchor before makes another one needless
LONGEST_NAME = 64


class BeforeAfter(Document):
    """A standard error from the runs so far, and once the proposal is trained."""

    before: Real
    after: Real


class ProposalCost(Document):
    """FLOPs of the proposal as its runs share prefixes, and of each run alone."""

    as_planned: Real
    alone: Real


class ProposedRun(Document):
    """A cell to train once for each seed; `flops` is what one of its runs costs alone, `prefix`
    names the cells that share one, seed by seed.
    """

    n_params: Real
    tokens: Real
    flops: Real
    copies: Integer
    seeds: list[Integer]
    prefix: str | None


class Proposal(Document):
    """What `scaling next` proposes to train for at most `budget` FLOPs, cheapest cells first, with
    the standard errors of log N*, log L* and a at `target`.
    """

    source: str
    law: str
    budget: Real
    target: Real
    spent: Real
    noise: Real
    sd_log_n_star: BeforeAfter
    sd_log_loss: BeforeAfter
    sd_a: BeforeAfter
    schedule: str | None
    shared: bool
    rho: Real
    cost: ProposalCost
    params: NConvention | None
    runs: list[ProposedRun]
    warnings: list[ResultWarning]


@dataclass(frozen=True)
class DesignConstraints:
    """What the next runs may cost together and each (`largest`; None: no limit of its own), the
    budget they are to tell of, and whether runs of one size share a prefix, with the share
    `rho` of their noise.
    """

    budget: float
    target: float
    largest: float | None = None
    shared: bool = True
    rho: float = RHO


@dataclass(frozen=True)
class Designed:
    """The runs chosen, one by one, and as `copies` (K,) of each candidate of `pool`; what they cost
    as they share prefixes, and the standard errors (3,) of log N*, log L* and a at the target,
    before and after.
    """

    runs: Runs
    pool: Runs
    copies: np.ndarray
    spent: float
    before: np.ndarray
    after: np.ndarray


def designed(
    law: LinearizedLaw,
    runs: Runs,
    noise: float,
    terms: DesignConstraints,
    builder: ModelBuilder | None = None,
) -> Designed:
    """The runs to train after `runs`, by the law fitted to them, `noise` the sd of a run's log
    loss. Raises ScalingError when none is affordable.
    """
    most = min(terms.budget, terms.largest or terms.budget)
    pool = candidates(runs.n, runs.d, law.cost, terms.budget, most, builder, terms.shared)
    gradients, rho = law.gradients(terms.target), terms.rho if terms.shared else 0.0
    cooldown = builder.optim("cooldown_frac", COOLDOWN) if builder else COOLDOWN
    design = DesignState.start(pool, cooldown, law, runs, noise, gradients[:, :2], rho)
    anchor = most if terms.largest else ANCHOR * terms.budget
    if runs.flops.max() >= SIMILAR * anchor:
        anchor = 0.0  # there is a run about as large
    choose(design, terms.budget, anchor, law.optimum().n_star(pool.flops))
    cell, seed = np.array(sorted(design.taken)).T
    assert pool.prefix is not None
    prefix = pool.prefix[cell] + 1_000_000 * seed
    chosen = Runs(pool.n[cell], pool.d[cell], pool.flops[cell], prefix)
    seen = law.rows(runs.n, runs.d)
    old = np.arange(len(seen)) if runs.prefix is None else runs.prefix
    new = prefix if terms.shared else np.arange(len(cell))
    rows = np.concatenate([seen, law.rows(chosen.n, chosen.d)])
    both = np.concatenate([old, new + old.max() + 1])
    before = standard_errors(seen, gradients, noise, runs.prefix, rho)
    after = standard_errors(rows, gradients, noise, both, rho)
    return Designed(chosen, pool, design.copies, design.spent, before, after)


def next_runs(
    source: Path, budget: object, target: object, largest: object = None, rho: float = RHO
) -> Proposal:
    """Cells to train for `budget` FLOPs, with the expected standard errors at `target` before and
    after.

    `source` is a fit document or a results folder that holds one; the folder's sweep.toml says how
    models are built and whether runs of a size share prefixes. `largest` limits the cost of one
    run. Raises ScalingError.
    """
    path = _fit_path(Path(source))
    spend, goal = flops_option(budget, "--budget"), flops_option(target, "--target")
    if not 0 <= rho < 1:
        raise ScalingError(
            f"must be from 0 to below 1, not {rho}",
            where="--rho",
            remedy="0 treats the noise of all runs as independent",
        )
    result = FitResult.load(path)
    law, n, d = _law(path, result)
    builder = _builder(Path(source), result)
    shared = builder is not None and builder.schedule != "cosine"
    most = None if largest is None else flops_option(largest, "--largest")
    noise = result.noise.sd if result.noise else None
    if not noise:  # then the residuals tell it
        predicted = law.law.log_predict(law.theta, {"N": n, "D": d})
        residual = np.log(np.array(result.data["loss"], float)) - predicted
        noise = float(np.sqrt(np.sum(residual**2) / max(1, len(n) - len(law.theta))))
    sizes = groups_by_gap(np.log(n), SAME_SIZE) if shared else None  # one size, one prefix
    runs = Runs(n, d, law.cost.flops(n, d), sizes)
    terms = DesignConstraints(spend, goal, most, shared, rho)
    chosen = designed(law, runs, noise, terms, builder)
    wide = inflation(result.objective.name, result.objective.delta or 0.0, noise)
    errors = [
        BeforeAfter(before=wide * before, after=wide * after)
        for before, after in zip(chosen.before, chosen.after, strict=True)
    ]
    return Proposal(
        source=str(path),
        law=law.law.name,
        budget=spend,
        target=goal,
        spent=chosen.spent,
        noise=noise,
        sd_log_n_star=errors[0],
        sd_log_loss=errors[1],
        sd_a=errors[2],
        schedule=builder.schedule if builder else None,
        shared=shared,
        rho=rho if shared else 0.0,
        cost=ProposalCost(as_planned=chosen.spent, alone=float(chosen.copies @ chosen.pool.flops)),
        params=builder.params if builder else None,
        runs=_cells(chosen, shared, _first_seed(builder.sweep) if builder else 0),
        warnings=_warnings(result, errors[0].before, builder),
    )


def _cells(chosen: Designed, shared: bool, first_seed: int) -> list[ProposedRun]:
    pool, copies = chosen.pool, chosen.copies
    assert pool.prefix is not None
    labels = dict.fromkeys(pool.prefix[copies > 0]) if shared else {}
    names = {label: f"t{place}" for place, label in enumerate(labels)}
    return [
        ProposedRun(
            n_params=pool.n[row],
            tokens=pool.d[row],
            flops=pool.flops[row],
            copies=copies[row],
            seeds=list(range(first_seed, first_seed + copies[row])),
            prefix=names.get(pool.prefix[row]),
        )
        for row in sorted(np.flatnonzero(copies), key=lambda row: pool.flops[row])
    ]


def _fit_path(source: Path) -> Path:
    if not source.is_dir():
        return source
    fits = (source / "fits").glob("*.json")
    path = min(fits, key=lambda path: (path.stem != "chinchilla", path.stem), default=None)
    if path is None:
        raise ScalingError(
            "holds no fit", where=source, remedy=f"fit it first: scaling fit {source}"
        )
    return path


def _law(path: Path, result: FitResult) -> tuple[LinearizedLaw, np.ndarray, np.ndarray]:
    """The fitted law with its cost, and N and D of its runs. Raises ScalingError for a document
    without a parametric law of N and D, or without its runs.
    """
    law, data = LAWS.get(result.law), result.data
    is_law = law is not None and set(law.inputs) == {"N", "D"} and result.approach == "parametric"
    if law is None or not is_law or not all(map(data.get, ("n_params", "tokens", "loss"))):
        raise ScalingError(
            f"no parametric law of N and D ({result.law}, {result.approach})",
            where=path,
            remedy="fit with: --law chinchilla --approach parametric",
        )
    try:
        values = {name: np.asarray(entry.value, float) for name, entry in result.params.items()}
        theta = np.asarray(law.theta(values), float)
    except KeyError as error:
        raise ScalingError(
            f"the parameter {error} is missing", where=path, remedy=WRITE_AGAIN
        ) from None
    n, d = (np.array(data[name], float) for name in ("n_params", "tokens"))
    with np.errstate(all="ignore"):
        predicted = law.log_predict(theta, {"N": n, "D": d})
    if not (np.isfinite(predicted).all() and np.isfinite(theta).all()):
        raise ScalingError(
            "its law gives no number for its own runs",
            where=path,
            remedy="fit again, with more runs",
        )
    return LinearizedLaw(law, theta, load_law(str(path)).cost), n, d


def _builder(source: Path, result: FitResult) -> ModelBuilder | None:
    """How the folder's sweep builds its models; None for a bare fit, or where the fit does not say
    how its models were read.
    """
    sweep, model = sweep_of(source), result.source.model
    params = next((p for p in get_args(NConvention) if p == result.source.convention.params), None)
    if sweep is None or model.vocab_size is None or model.seq_len is None or params is None:
        return None
    return ModelBuilder(sweep, model.vocab_size, model.seq_len, params)


def _first_seed(sweep: Sweep) -> int:
    """One more than every seed of the sweep: a run of a seed already trained would repeat its
    noise.
    """
    used = {*sweep.seeds, *(seed for more in sweep.replicates for seed in more.seeds)}
    used |= {seed for cell in getattr(sweep.design, "cells", ()) for seed in cell.seeds or ()}
    if max(used) + 1 + MOST_COPIES >= 2**32:
        raise ScalingError(
            f"the seeds of the sweep reach {max(used)}, and new ones would pass 2^32",
            where=sweep.name,
            remedy="train the sweep with smaller seeds",
        )
    return max(used) + 1


def _warnings(
    result: FitResult, before: float, builder: ModelBuilder | None
) -> list[ResultWarning]:
    warnings = []
    if result.status is not FitStatus.OK:
        message = f"the fit's status is {result.status.value!r}: the proposal rests on it"
        warnings.append(warn(WarningCode.FIT_STATUS, message, status=result.status.value))
    if before > 1:
        message = (
            "N* at the target is unknown by more than a factor of e: the first-order error bars "
            "are rough"
        )
        warnings.append(warn(WarningCode.IMPRECISE_TARGET, message))
    axes = math.prod(len(axis.values) for axis in builder.sweep.axes) if builder else 1
    if axes > 1:
        message = f"the axes of the sweep train every cell {axes} times: so much more is the cost"
        warnings.append(warn(WarningCode.AXES_MULTIPLY_COST, message, runs=axes))
    return warnings


def write_sweep(proposal: Proposal, source: Path, out: Path) -> None:
    """Write the proposal of `next_runs` for `source` as a sweep that `scaling plan` and `scaling
    run` accept.

    Task, model, optimiser, recipe, axes and evaluation are those of the source's sweep, with the
    rules that were tuned for it. Raises ScalingError without a sweep, and where `out` is there
    already.
    """
    parent = sweep_of(source)
    if parent is None:
        raise ScalingError(
            f"{source} has no sweep.toml, so how its models are built is not known",
            where="--out",
            remedy="leave out --out, or name a results folder of `scaling run`",
        )
    if proposal.params is None:
        raise ScalingError(
            "the fit does not say how its N, vocabulary and window were",
            where=proposal.source,
            remedy="fit the results folder again: scaling fit DIR",
        )
    cells = tuple(
        ListedCell(size=run.n_params, tokens=run.tokens, seeds=tuple(run.seeds))
        for run in proposal.runs
    )
    stem, _, tail = parent.name.rpartition("-next")
    is_next = stem and (not tail or tail.isdigit())  # <source>-next, -next2, -next3
    sweep = Sweep(
        name=f"{stem}-next{int(tail or 1) + 1}"[:LONGEST_NAME]
        if is_next
        else f"{parent.name[: LONGEST_NAME - 5]}-next",
        question="The runs that say most about the optimum at "
        f"{format_flops(proposal.target)} FLOPs after {parent.name}.",
        design=ListDesign(kind="list", cells=cells, params=proposal.params),
        seeds=(proposal.runs[0].seeds[0],),
        **{name: getattr(parent, name) for name in ("base", "recipe", "axes", "evals")},
    )
    head = (
        f"{sweep.question}\n\n  scaling run {out}\n\nWritten by `scaling next`: "
        f"{format_flops(proposal.spent)} FLOPs."
    )
    sweep_file.write_sweep(sweep, out, head)
