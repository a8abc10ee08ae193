"""`scaling next`: the runs that most reduce the uncertainty of N* and L* at a target budget, for
what they cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from scaling.config import NConvention, Sweep
from scaling.errors import ScalingError
from scaling.fit.document import FitStatus
from scaling.fit.laws.laws import LAWS
from scaling.fit.result import WRITE_AGAIN, FitResult
from scaling.formatting import count_option
from scaling.predict.design.candidates import Candidates, ModelBuilder, candidates
from scaling.predict.design.law_model import (
    RHO,
    LinearizedLaw,
    check_share,
    inflation,
    standard_errors,
)
from scaling.predict.design.selection import ANCHOR, MOST_COPIES, SIMILAR, PriorRuns, choose, start
from scaling.predict.design.sweep_out import sweep_of
from scaling.warning import ResultWarning, WarningCode, warn

DATA = ("n_params", "tokens", "loss")
SAME_SIZE = (
    1e-3  # in log N: runs this near are of one size, and of one prefix where prefixes are shared
)


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
class Runs:
    """The runs that a law was fitted to: N, D (n,), the sd of a run's log loss, the prefix of each
    (None: none is shared).
    """

    n: np.ndarray
    d: np.ndarray
    noise: float
    prefix: np.ndarray | None = None


@dataclass(frozen=True)
class Designed:
    """The runs chosen: `copies` (K,) of each candidate of `pool`, what they cost as they share
    prefixes, and the standard errors (3,) of log N*, log L* and a at the target, before and after.
    """

    pool: Candidates
    copies: np.ndarray
    spent: float
    before: np.ndarray
    after: np.ndarray

    def listed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """N, D and the label of the shared prefix (m,) of each run, repeats apart."""
        cell = np.repeat(np.arange(len(self.copies)), self.copies)
        seed = np.concatenate([np.arange(count) for count in self.copies[self.copies > 0]])
        return self.pool.n[cell], self.pool.d[cell], self.pool.prefix[cell] + 1_000_000 * seed


def designed(
    belief: LinearizedLaw, runs: Runs, terms: DesignConstraints, builder: ModelBuilder | None = None
) -> Designed:
    """The runs to train after `runs`, by the law fitted to them. Raises ScalingError when none is
    affordable.
    """
    most = min(terms.budget, terms.largest or terms.budget)
    pool = candidates(runs.n, runs.d, belief.cost, terms.budget, most, builder, terms.shared)
    gradients = belief.gradients(terms.target)
    seen, offered = belief.rows(runs.n, runs.d), belief.rows(pool.n, pool.d)
    rho = terms.rho if terms.shared else 0.0
    prior = PriorRuns(seen, _logs(runs.n, runs.d), runs.prefix, runs.noise)
    design = start(pool, offered, _logs(pool.n, pool.d), prior, gradients[:, :2], rho)
    anchor = most if terms.largest else ANCHOR * terms.budget
    if belief.cost.flops(runs.n, runs.d).max() >= SIMILAR * anchor:
        anchor = 0.0  # there is a run about as large
    choose(design, terms.budget, anchor, belief.optimum().n_star(pool.price))
    before = standard_errors(seen, gradients, runs.noise, runs.prefix, rho)
    proposal = Designed(pool, design.copies, design.spent, before, before)
    n, d, prefix = proposal.listed()
    rows = np.concatenate([seen, belief.rows(n, d)])
    old = np.arange(len(seen)) if runs.prefix is None else runs.prefix
    new = prefix if terms.shared else np.arange(len(n))
    return replace(
        proposal,
        after=standard_errors(
            rows, gradients, runs.noise, np.concatenate([old, new + old.max() + 1]), rho
        ),
    )


def next_runs(
    source: Path, budget: object, target: object, largest: object = None, rho: float = RHO
) -> dict[str, Any]:
    """The document of `scaling next`: cells to train for `budget` FLOPs, with the expected standard
    errors at `target` before and after.

    `source` is a fit document or a results folder that holds one; the folder's sweep.toml says how
    models are built and whether runs of a size share prefixes. `largest` limits the cost of one
    run. Raises ScalingError.
    """
    path = _fit_path(Path(source))
    spend, goal = _flops(budget, "--budget"), _flops(target, "--target")
    check_share(rho)
    result = FitResult.load(path)
    belief, (n, d) = _belief(path, result), _inputs(result)
    builder = _builder(Path(source), result)
    shared = builder is not None and builder.schedule != "cosine"
    terms = DesignConstraints(
        spend, goal, None if largest is None else _flops(largest, "--largest"), shared, rho
    )
    noise = (result.noise.sd if result.noise else None) or _scatter(belief, result, n, d)
    wide = inflation(result.objective.name, result.objective.delta or 0.0, noise)
    proposal = designed(belief, Runs(n, d, noise, _sizes(n) if shared else None), terms, builder)
    first = _first_seed(builder.sweep) if builder else 0
    alone = float(proposal.copies @ proposal.pool.price)
    return {
        "source": str(path),
        "law": belief.law.name,
        "budget": spend,
        "target": goal,
        "spent": proposal.spent,
        "noise": noise,
        "sd_log_n_star": _before_after(proposal, 0, wide),
        "sd_log_loss": _before_after(proposal, 1, wide),
        "sd_a": _before_after(proposal, 2, wide),
        "schedule": builder.schedule if builder else None,
        "shared": shared,
        "rho": rho if shared else 0.0,
        "cost": {"as_planned": proposal.spent, "alone": alone},
        "params": builder.params if builder else None,
        "runs": _listed(proposal, first),
        "warnings": [
            warning.model_dump(mode="json")
            for warning in _warnings(result, proposal.before[0] * wide, builder)
        ],
    }


def _logs(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.log(np.stack([n, d], 1))


def _before_after(proposal: Designed, place: int, wide: float) -> dict[str, float]:
    return {
        "before": float(wide * proposal.before[place]),
        "after": float(wide * proposal.after[place]),
    }


def _listed(proposal: Designed, first: int) -> list[dict[str, Any]]:
    """The cells, cheapest first; `flops` is what one of the runs of a cell costs alone, `prefix`
    names those that share one, seed by seed.
    """
    pool = proposal.pool
    names = (
        {
            label: f"t{place}"
            for place, label in enumerate(dict.fromkeys(pool.prefix[proposal.copies > 0]))
        }
        if pool.shared
        else {}
    )
    rows = sorted(np.flatnonzero(proposal.copies), key=lambda row: pool.price[row])
    return [
        {
            "n_params": float(pool.n[row]),
            "tokens": float(pool.d[row]),
            "flops": float(pool.price[row]),
            "copies": int(proposal.copies[row]),
            "seeds": [first + k for k in range(proposal.copies[row])],
            "prefix": names.get(pool.prefix[row]),
        }
        for row in rows
    ]


def _flops(value: object, where: str) -> float:
    return count_option(value, where, "give a positive number of FLOPs, such as 1e15")


def _fit_path(source: Path) -> Path:
    if not source.is_dir():
        return source
    fits = sorted(
        (source / "fits").glob("*.json"), key=lambda path: (path.stem != "chinchilla", path.stem)
    )
    if not fits:
        raise ScalingError(
            "holds no fit", where=str(source), remedy=f"fit it first: scaling fit {source}"
        )
    return fits[0]


def _belief(path: Path, result: FitResult) -> LinearizedLaw:
    """The fitted law with its cost. Raises ScalingError for a document without a parametric law of
    N and D, or without its runs.
    """
    law = LAWS.get(result.law)
    if (
        result.approach != "parametric"
        or law is None
        or set(law.inputs) != {"N", "D"}
        or not all(result.data.get(name) for name in DATA)
    ):
        raise ScalingError(
            f"no parametric law of N and D ({result.law}, {result.approach})",
            where=str(path),
            remedy="fit with: --law chinchilla --approach parametric",
        )
    try:
        values = {name: np.asarray(entry.value, float) for name, entry in result.params.items()}
        theta = np.asarray(law.theta(values), float)
    except KeyError as error:
        raise ScalingError(
            f"the parameter {error} is missing", where=str(path), remedy=WRITE_AGAIN
        ) from None
    n, d = _inputs(result)
    with np.errstate(all="ignore"):
        is_finite = np.isfinite(law.log_predict(theta, {"N": n, "D": d})).all()
    if not (is_finite and np.isfinite(theta).all()):
        raise ScalingError(
            "its law gives no number for its own runs",
            where=str(path),
            remedy="fit again, with more runs",
        )
    return LinearizedLaw(law, theta, result.cost)


def _inputs(result: FitResult) -> tuple[np.ndarray, np.ndarray]:
    return np.array(result.data["n_params"], float), np.array(result.data["tokens"], float)


def _scatter(belief: LinearizedLaw, result: FitResult, n: np.ndarray, d: np.ndarray) -> float:
    """The noise of one run's log loss, from the residuals of a fit that does not tell it."""
    residual = np.log(np.array(result.data["loss"], float)) - belief.law.log_predict(
        belief.theta, {"N": n, "D": d}
    )
    return float(np.sqrt(np.sum(residual**2) / max(1, len(n) - len(belief.theta))))


def _sizes(n: np.ndarray) -> np.ndarray:
    """A number for each size (n,): runs of one size are branches of one prefix."""
    order = np.argsort(n)
    label = np.cumsum(np.r_[0, np.diff(np.log(n[order])) > SAME_SIZE])
    labels = np.empty(len(n), int)
    labels[order] = label
    return labels


def _builder(source: Path, result: FitResult) -> ModelBuilder | None:
    """How the folder's sweep builds its models; None for a bare fit, or where the fit does not say
    how its models were read.
    """
    sweep, model, params = sweep_of(source), result.source.model, result.source.convention.params
    if sweep is None or model.vocab_size is None or model.seq_len is None:
        return None
    if params not in get_args(NConvention):
        return None
    return ModelBuilder(sweep, model.vocab_size, model.seq_len, params)  # type: ignore[arg-type]


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
    axes = int(np.prod([len(axis.values) for axis in builder.sweep.axes])) if builder else 1
    if axes > 1:
        message = f"the axes of the sweep train every cell {axes} times: so much more is the cost"
        warnings.append(warn(WarningCode.AXES_MULTIPLY_COST, message, runs=axes))
    return warnings
