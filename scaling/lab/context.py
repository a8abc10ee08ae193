"""How the loss falls with what stands before the predicted token, by size of the model: L(T) = E + A T^-g."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.fit.bootstrap import bootstrap
from scaling.fit.estimate import Estimate, estimate
from scaling.fit.laws import LAWS, Law, Param, Term
from scaling.lab import rows
from scaling.lab.finding import Finding
from scaling.quantity import format_count
from scaling.results import Points

METRIC = "loss_at_position"
LEVEL = 0.95
RESAMPLES = 400
BLOCKS = 24  # runs of neighbouring positions whose errors turn together
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

    `params` are E, A, g with 95 % intervals; `r2` is of the fitted positions, weighted; `by_seed` is g of each seed alone;
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
    r2: float = math.nan
    by_seed: tuple[float, ...] = ()
    refused: str = ""

    def fitted(self, context: np.ndarray) -> np.ndarray:
        """The law at some numbers of tokens before, nats."""
        e, a, g = (self.params[name].value for name in LAW.names)
        return np.asarray(e + a * context**-g)

    @property
    def gain(self) -> float:
        """How much lower the loss is at the end of the window than after the first token, nats."""
        return float(self.loss[0] - self.loss[-1])


def curves(table: pd.DataFrame, first: int = 1) -> list[Curve]:
    """One curve for each size and horizon at the end of its runs, smallest first; empty without losses by position on text."""
    text = table[table["task"] == "text"]
    found = rows.last(text, METRIC)
    if found.empty:
        return []
    keys = ["n_params", "seq_len", "tokens"]
    return [_curve(cell, int(n), int(tokens), first) for (n, _, tokens), cell in found.groupby(keys, sort=True)]  # type: ignore[call-overload]


def _curve(cell: pd.DataFrame, n_params: int, tokens: int, first: int) -> Curve:
    """The mean over seeds at each position, and its fit."""
    by_seed = cell.pivot_table(index="at", columns="seed", values="value", aggfunc="mean").dropna()
    context, loss = by_seed.index.to_numpy(float), by_seed.mean(axis=1).to_numpy(float)
    stderr = cell.groupby("at")["stderr"].mean().reindex(by_seed.index).to_numpy(float)
    seen = n_params, tokens, by_seed.shape[1], context, loss, stderr, first
    kept = context >= first
    if kept.sum() < FEWEST:
        return Curve(*seen, {}, refused=f"{int(kept.sum())} positions are fewer than {FEWEST}")
    try:
        points = _points(context[kept], loss[kept], stderr[kept])
        found = estimate(LAW, points, "mse")
        alone = tuple(_exponent_of(_points(context[kept], column[kept], stderr[kept])) for column in by_seed.to_numpy(float).T)
    except ScalingError as error:
        return Curve(*seen, {}, refused=error.what)
    if found.status == "not-identified":
        return Curve(*seen, {}, refused="; ".join(found.warnings))
    return Curve(*seen, _intervals(found, points), _r2(found, points), alone)


def _points(context: np.ndarray, loss: np.ndarray, stderr: np.ndarray) -> Points:
    """Positions weigh as the inverse of their variance over windows, relative to the mean; alike where it is not known."""
    known = bool((np.isfinite(stderr) & (stderr > 0)).all())
    weight = stderr**-2.0 if known else np.ones_like(loss)
    return Points(loss=loss, others={"T": context}, weight=weight / weight.mean())


def _exponent_of(points: Points) -> float:
    return estimate(LAW, points, "mse").values["g"]


def _intervals(found: Estimate, points: Points) -> dict[str, Interval]:
    """95 % intervals: wild bootstrap of the residuals, whose signs turn together in blocks of neighbouring positions.

    Positions of one window share its difficulty, so that the errors of neighbours are alike (Kuensch 1989 on blocks).
    """
    context = points.others["T"]
    edges = np.geomspace(context.min(), context.max() * 1.001, BLOCKS + 1)
    drawn = bootstrap(found, points, RESAMPLES, cluster=np.digitize(context, edges), kind="wild")
    tail = 50 * (1 - LEVEL)
    spread = {name: np.percentile(draws, [tail, 100 - tail]) for name, draws in LAW.values(drawn.theta).items()}
    return {name: Interval(value, float(spread[name][0]), float(spread[name][1])) for name, value in found.values.items()}


def _r2(found: Estimate, points: Points) -> float:
    predicted = np.exp(LAW.log_predict(found.theta, points.others))
    weight = np.ones_like(points.loss) if points.weight is None else points.weight
    left = weight @ (points.loss - predicted) ** 2
    return float(1 - left / (weight @ (points.loss - np.average(points.loss, weights=weight)) ** 2))


def findings(found: Sequence[Curve]) -> list[Finding]:
    """Of each size the exponent with its interval and how well the law holds; whether larger models gain more from what they have read."""
    told: list[Finding] = []
    for curve in found:
        name = f"{format_count(curve.n_params)} parameters"
        target = f"L(T) = E + A T^-g from {curve.first} token{'s' * (curve.first > 1)} on, with 95 % interval"
        if not curve.params:
            told.append(Finding(f"g, {name}", target, f"not fitted: {curve.refused}", None))
            continue
        g = curve.params["g"]
        reached = f"{g.value:.3f} [{g.lo:.3f}, {g.hi:.3f}], R2 {curve.r2:.4f}"
        told.append(Finding(f"g, {name}", target, reached, g.lo <= g.value <= g.hi and g.lo > 0))
    if len(found) > 1:
        gains = [curve.gain for curve in found]
        reached = ", ".join(f"{gain:.3f}" for gain in gains) + " nats"
        target = "larger models gain more (Kaplan 2020, appendix D.5)"
        told.append(Finding("loss after one token less loss at the window's end, by size", target, reached, gains == sorted(gains)))
    return told
