"""How the loss falls with what stands before the predicted token, by size of the model: L(T) = E + A T^-g."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.fit.document import FitStatus
from scaling.fit.estimate import PointEstimate, estimate, problem_of
from scaling.fit.laws.laws import LAWS, Law, Param, Term
from scaling.fit.newton import Resample, continuation
from scaling.formatting import format_count
from scaling.points.points import Points
from scaling.studies import runs
from scaling.studies.findings import Claim

METRIC = "loss_at_position"
LEVEL = 0.95
NEAR = 0.05  # nats above the floor
RESAMPLES = 400
STEADIEST = 0.99  # correlation of the errors of neighbouring positions
LEAST = 1e-3  # nats: a drawn loss stays above 0
FEWEST = 8  # positions that a fit needs
EXPONENT = next(param for param in LAWS["power"].params if param.name == "alpha")
LAW = Law(
    name="context",
    formula="L(T) = E + A T^-g, T the tokens before the predicted one",
    reference="Kaplan et al. 2020, appendix D.5",
    inputs=("T",),
    params=(*LAWS["power"].params[:2], Param("g", EXPONENT.bounds, grid=EXPONENT.grid)),
    terms=(Term("A", {"g": {"T": -1}}),),
    floor="E",
)


@dataclass(frozen=True)
class Interval:
    """A parameter with its interval."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Curve:
    """The loss of one size at each position: `context` (n,) tokens before, `loss` (n,) nats, the mean over `seeds`, with `stderr` (n,)
    over windows (all seeds see the same ones), and the law's fit from `first` tokens on.

    `params` are E, A, g with 95 % intervals; `chi2` is the mean squared residual in standard errors (1: the law
    holds as far as can be seen); `by_seed` is g of each seed alone;
    `refused` says why there is no fit.
    """

    n_params: int
    tokens: int
    seeds: int
    context: np.ndarray
    loss: np.ndarray
    stderr: np.ndarray
    first: int
    params: dict[str, Interval]
    chi2: float = math.nan
    by_seed: tuple[float, ...] = ()
    refused: str = ""

    def fitted(self, context: np.ndarray) -> np.ndarray:
        """The law at some numbers of tokens before, nats."""
        e, a, g = (self.params[name].value for name in LAW.names)
        return np.asarray(e + a * context**-g)

    @property
    def gain(self) -> float:
        """How much lower the loss is in the second half of the window than after the first token, nats."""
        return float(self.loss[0] - self.late)

    @property
    def late(self) -> float:
        """The mean loss in the second half of the window, nats: one position alone is noisy."""
        return float(self.loss[len(self.loss) // 2 :].mean())

    @property
    def reach(self) -> float:
        """After how many tokens the law lies within NEAR of its floor."""
        with np.errstate(
            over="ignore"
        ):  # a law that hardly falls comes near its floor after infinitely many
            return float(np.float64(self.params["A"].value / NEAR) ** (1 / self.params["g"].value))


def curves(table: pd.DataFrame, first: int = 1) -> list[Curve]:
    """One curve for each size and horizon at the end of its runs, smallest first; empty without losses by position on text."""
    found = runs.last(runs.ended(table[table["task"] == "text"]), METRIC)
    found = found[np.isfinite(found["value"].astype(float)) & found["at"].notna()]
    if found.empty or runs.has_variants(table):  # variants are no seeds
        return []
    keys = ["n_params", "seq_len", "tokens", "lr", "batch_tokens"]
    return [
        _curve(cell, int(n), int(tokens), first)  # type: ignore[call-overload]
        for (n, _, tokens, *_), cell in found.groupby(keys, sort=True)
    ]  # type: ignore[call-overload]


def _curve(cell: pd.DataFrame, n_params: int, tokens: int, first: int) -> Curve:
    """The mean over seeds at each position, and its fit."""
    by_seed = cell.pivot_table(index="at", columns="seed", values="value", aggfunc="mean").dropna()
    context, loss = by_seed.index.to_numpy(float), by_seed.mean(axis=1).to_numpy(float)
    stderr = cell.groupby("at")["stderr"].mean().reindex(by_seed.index).to_numpy(float)
    seen = n_params, tokens, by_seed.shape[1], context, loss, stderr, first
    kept = context >= first
    if kept.sum() < FEWEST:
        return Curve(*seen, {}, refused=f"{int(kept.sum())} positions are fewer than {FEWEST}")
    context, loss, stderr = context[kept], loss[kept], _known(stderr[kept])
    try:
        points = _points(context, loss, stderr)
        found = estimate(LAW, points, "mse")
        alone = tuple(
            estimate(LAW, _points(context, column[kept], stderr), "mse").values["g"]
            for column in by_seed.to_numpy(float).T
        )
    except ScalingError as error:
        return Curve(*seen, {}, refused=error.what)
    if found.status is FitStatus.NOT_IDENTIFIED:
        return Curve(*seen, {}, refused="; ".join(map(str, found.warnings)))
    return Curve(*seen, _intervals(found, points, stderr), _chi2(found, points, stderr), alone)


def _known(stderr: np.ndarray) -> np.ndarray:
    """Standard errors over windows (n,); where one is not known, as from a single window, all count as small and alike."""
    return stderr if (np.isfinite(stderr) & (stderr > 0)).all() else np.full_like(stderr, 1e-6)


def _points(context: np.ndarray, loss: np.ndarray, stderr: np.ndarray) -> Points:
    """Positions weigh as the inverse of their variance over windows, relative to the mean."""
    weight = stderr**-2.0
    return Points(loss=loss, others={"T": context}, weight=weight / weight.mean())


def _intervals(found: PointEstimate, points: Points, stderr: np.ndarray) -> dict[str, Interval]:
    """95 % intervals: a parametric bootstrap (Efron and Tibshirani 1993, section 6.5) about the fit.

    Errors have the size of `stderr` (n,), more where the residuals are larger than that, and follow one another as the residuals of
    neighbouring positions do (first-order autoregression): the same windows stand behind all positions.
    """
    task = problem_of(LAW, points, found.objective, found.delta)
    start = task.centred(found.theta)
    fitted = np.exp(LAW.log_predict(found.theta, points.others))
    left = (points.loss - fitted) / stderr
    size = max(1.0, math.sqrt(float(left @ left) / (len(left) - len(LAW.params))))
    alike = (
        float(np.clip(left[1:] @ left[:-1] / (left @ left), 0.0, STEADIEST)) if left.any() else 0.0
    )
    drawn = np.random.default_rng(0).standard_normal((RESAMPLES, len(left)))
    for place in range(1, len(left)):
        drawn[:, place] = alike * drawn[:, place - 1] + math.sqrt(1 - alike**2) * drawn[:, place]
    shift = np.log(np.maximum(fitted + size * stderr * drawn, LEAST)) - np.log(points.loss)
    ends = continuation(
        task, np.repeat(start[None], RESAMPLES, 0), found.delta, Resample(shift=shift)
    )
    values = LAW.values(task.raw(ends.theta[ends.converged]))
    tail = 50 * (1 - LEVEL)
    spread = {name: np.percentile(draws, [tail, 100 - tail]) for name, draws in values.items()}
    return {
        name: Interval(value, float(spread[name][0]), float(spread[name][1]))
        for name, value in found.values.items()
    }


def _chi2(found: PointEstimate, points: Points, stderr: np.ndarray) -> float:
    left = (points.loss - np.exp(LAW.log_predict(found.theta, points.others))) / stderr
    return float(left @ left / (len(left) - len(LAW.params)))


def findings(found: Sequence[Curve]) -> list[Claim]:
    """Of each size the exponent with its interval and how well the law holds; whether larger models gain more from what they have read."""
    told: list[Claim] = []
    for curve in found:
        name = f"{format_count(curve.n_params)} parameters"
        target = f"L(T) = E + A T^-g from {curve.first} token{'s' * (curve.first > 1)} on, with 95 % interval"
        if not curve.params:
            told.append(Claim(f"g, {name}", target, f"not fitted: {curve.refused}", None))
            continue
        g = curve.params["g"]
        reached = f"{g.value:.3f} [{g.lo:.3f}, {g.hi:.3f}], chi2 {curve.chi2:.2f} a position"
        told.append(Claim(f"g, {name}", target, reached, g.lo <= g.value <= g.hi and g.lo > 0))
    if len(found) > 1:
        gains = [curve.gain for curve in found]
        reached = ", ".join(f"{gain:.3f}" for gain in gains) + " nats"
        target = "larger models gain more (Kaplan 2020, appendix D.5)"
        told.append(
            Claim(
                "loss after one token less that in the second half of the window, by size",
                target,
                reached,
                gains == sorted(gains),
            )
        )
    return told
