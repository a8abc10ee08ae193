"""How the loss falls with the number of tokens before the predicted one, by model size: L(T) = E +
A T^-g.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.fit.document import FitStatus
from scaling.fit.estimate import estimate
from scaling.fit.law_fit import LawFit
from scaling.fit.laws.law import Law, Param, Term
from scaling.fit.laws.laws import LAWS
from scaling.fit.newton import Resample, continuation
from scaling.formatting import format_count
from scaling.points.comparability import has_variants
from scaling.points.points import Points
from scaling.render import table
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, Trace
from scaling.render.section import Section
from scaling.render.table import Column, Table, number
from scaling.studies import runs
from scaling.studies.claims import Claim, study_section

METRIC = "loss_at_position"
CI = 0.95
NEAR_FLOOR = 0.05  # nats
RESAMPLES = 400
MAX_CORRELATION = 0.99  # of the errors of neighbouring positions
MIN_LOSS = 1e-3  # nats: a resampled loss stays above 0
MIN_POSITIONS = 8
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
class PositionCurve:
    """The loss of one size at each position, and the law's fit from `first` tokens on.

    `context` (n,) counts the tokens before, `loss` (n,) is the mean over `seeds` in nats, `stderr`
    (n,) is over windows (all seeds see the same ones). `params` are E, A, g with 95 % intervals;
    `chi2` is the mean squared residual in standard errors (1: the law holds as far as can be seen);
    `by_seed` is g of each seed alone; `unavailable` says why there is no fit.
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
    unavailable: str = ""

    def predict(self, context: np.ndarray) -> np.ndarray:
        """The law at these numbers of tokens before, nats."""
        e, a, g = (self.params[name].value for name in LAW.names)
        return np.asarray(e + a * context**-g)

    @property
    def gain(self) -> float:
        """How much lower the loss is in the second half of the window than after the first token,
        nats.
        """
        return float(self.loss[0] - self.late_loss)

    @property
    def late_loss(self) -> float:
        """The mean loss in the second half of the window, nats: one position alone is noisy."""
        return float(self.loss[len(self.loss) // 2 :].mean())

    @property
    def tokens_to_floor(self) -> float:
        """After how many tokens the law lies within NEAR_FLOOR of its floor; may be infinite."""
        with np.errstate(over="ignore"):
            ratio = np.float64(self.params["A"].value / NEAR_FLOOR)
            return float(ratio ** (1 / self.params["g"].value))


def curves(rows: pd.DataFrame, first: int = 1) -> list[PositionCurve]:
    """One curve per size and horizon at the end of its runs, smallest first; empty without losses
    by position on text.
    """
    final = runs.final_rows(runs.without_diverged(rows[rows["task"] == "text"]), METRIC)
    final = final[np.isfinite(final["value"].astype(float)) & final["at"].notna()]
    if final.empty or has_variants(rows):  # variants are no seeds
        return []
    keys = ["n_params", "seq_len", "tokens", "lr", "batch_tokens"]
    return [
        _curve(cell, int(cell["n_params"].iloc[0]), int(cell["tokens"].iloc[0]), first)
        for _, cell in final.groupby(keys, sort=True)
    ]


def _curve(cell: pd.DataFrame, n_params: int, tokens: int, first: int) -> PositionCurve:
    """The mean over seeds at each position, and its fit."""
    by_seed = cell.pivot_table(index="at", columns="seed", values="value", aggfunc="mean").dropna()
    context, loss = by_seed.index.to_numpy(float), by_seed.mean(axis=1).to_numpy(float)
    stderr = cell.groupby("at")["stderr"].mean().reindex(by_seed.index).to_numpy(float)
    measured = n_params, tokens, by_seed.shape[1], context, loss, stderr, first
    kept = context >= first
    if kept.sum() < MIN_POSITIONS:
        reason = f"{int(kept.sum())} positions are fewer than {MIN_POSITIONS}"
        return PositionCurve(*measured, {}, unavailable=reason)
    context, loss, stderr = context[kept], loss[kept], stderr[kept]
    if not (np.isfinite(stderr) & (stderr > 0)).all():
        stderr = np.full_like(stderr, 1e-6)  # unknown, as from a single window: all weigh alike
    try:
        points = _points(context, loss, stderr)
        fit = estimate(LAW, points, "mse")
        exponents = tuple(
            estimate(LAW, _points(context, column[kept], stderr), "mse").values["g"]
            for column in by_seed.to_numpy(float).T
        )
    except ScalingError as error:
        return PositionCurve(*measured, {}, unavailable=error.what)
    if fit.status is FitStatus.NOT_IDENTIFIED:
        return PositionCurve(*measured, {}, unavailable="; ".join(map(str, fit.warnings)))
    residual = (points.loss - np.exp(LAW.log_predict(fit.theta, points.others))) / stderr
    chi2 = float(residual @ residual / (len(residual) - len(LAW.params)))
    return PositionCurve(*measured, _intervals(fit, points, stderr), chi2, exponents)


def _points(context: np.ndarray, loss: np.ndarray, stderr: np.ndarray) -> Points:
    """Positions weigh as the inverse of their variance over windows, relative to the mean."""
    weight = stderr**-2.0
    return Points(loss=loss, others={"T": context}, weight=weight / weight.mean())


def _intervals(fit: LawFit, points: Points, stderr: np.ndarray) -> dict[str, Interval]:
    """95 % intervals by a parametric bootstrap (Efron and Tibshirani 1993, section 6.5).

    Errors have the size of `stderr` (n,), more where the residuals are larger, and are correlated
    as the residuals of neighbouring positions are (first-order autoregression): the same windows
    stand behind all positions.
    """
    problem = fit.problem
    start = problem.centred(fit.theta)
    predicted = np.exp(LAW.log_predict(fit.theta, points.others))
    residual = (points.loss - predicted) / stderr
    squares = float(residual @ residual)
    scale = max(1.0, math.sqrt(squares / (len(residual) - len(LAW.params))))
    correlation = (
        float(np.clip(residual[1:] @ residual[:-1] / squares, 0.0, MAX_CORRELATION))
        if residual.any()
        else 0.0
    )
    noise = np.random.default_rng(0).standard_normal((RESAMPLES, len(residual)))
    for i in range(1, len(residual)):
        noise[:, i] = correlation * noise[:, i - 1] + math.sqrt(1 - correlation**2) * noise[:, i]
    resampled = np.maximum(predicted + scale * stderr * noise, MIN_LOSS)
    shift = np.log(resampled) - np.log(points.loss)
    starts = np.repeat(start[None], RESAMPLES, 0)
    refits = continuation(problem, starts, fit.delta, Resample(shift=shift))
    draws = LAW.values(problem.raw(refits.theta[refits.converged]))
    tail = 50 * (1 - CI)
    intervals = {}
    for name, value in fit.values.items():
        lo, hi = np.percentile(draws[name], [tail, 100 - tail])
        intervals[name] = Interval(value, float(lo), float(hi))
    return intervals


def claims(curves: Sequence[PositionCurve]) -> list[Claim]:
    """For each size the exponent with its interval and the fit of the law; whether larger models
    gain more from context.
    """
    made: list[Claim] = []
    for curve in curves:
        quantity = f"g, {format_count(curve.n_params)} parameters"
        first = f"{curve.first} token{'s' * (curve.first > 1)}"
        expected = f"L(T) = E + A T^-g from {first} on, with 95 % interval"
        if not curve.params:
            made.append(Claim(quantity, expected, f"not fitted: {curve.unavailable}", None))
            continue
        g = curve.params["g"]
        measured = f"{g.value:.3f} [{g.lo:.3f}, {g.hi:.3f}], chi2 {curve.chi2:.2f} per position"
        made.append(Claim(quantity, expected, measured, g.lo <= g.value <= g.hi and g.lo > 0))
    if len(curves) > 1:
        gains = [curve.gain for curve in curves]
        made.append(
            Claim(
                "loss after one token less that in the second half of the window, by size",
                "larger models gain more (Kaplan 2020, appendix D.5)",
                ", ".join(f"{gain:.3f}" for gain in gains) + " nats",
                gains == sorted(gains),
            )
        )
    return made


def section(rows: pd.DataFrame) -> Section | None:
    """The loss at each position by size, with its law; None without losses by position on text."""
    made = curves(rows)
    if not made:
        return None
    return study_section(
        "context", "Loss by position", claims(made), [_figure(made)], [_table(made)], _notes(made)
    )


def _figure(curves: Sequence[PositionCurve]) -> Figure:
    sizes = [curve.n_params for curve in curves]
    ramp = ColorScale("parameters", min(sizes), max(sizes))
    traces = tuple(trace for curve in curves for trace in _traces(curve, ramp))
    caption = (
        "Held-out loss of a token against the number of tokens before it in the window. Lines are "
        "E + A T^-g, fitted to each size by itself."
    )
    axes = Axis("tokens before the predicted one, T", log=True), Axis("loss, nats")
    shown_ramp = ramp if ramp.lo < ramp.hi else None
    return Figure("context", "Loss by position", caption, *axes, traces, shown_ramp, "wide")


def _traces(curve: PositionCurve, ramp: ColorScale) -> Iterator[Trace]:
    colour, size = ramp.at(curve.n_params), format_count(curve.n_params)
    tooltips = [
        f"{size}, T = {at:.0f}: {loss:.3f} nats"
        for at, loss in zip(curve.context, curve.loss, strict=True)
    ]
    yield Markers(curve.context, curve.loss, "", colour, "circle", 3, notes=tooltips)
    if curve.params:
        x = np.geomspace(curve.first, curve.context.max(), 80)
        e, a, g = (curve.params[name].value for name in LAW.names)
        yield Line(x, curve.predict(x), f"{size}: {e:.2f} + {a:.2f} T^−{g:.2f}", colour)


def _table(curves: Sequence[PositionCurve]) -> Table:
    def cell(interval: Interval | None) -> table.Estimate | None:
        return None if interval is None else (interval.value, interval.lo, interval.hi)

    rows = tuple(
        (
            curve.n_params,
            curve.tokens,
            curve.seeds,
            float(curve.loss[0]),
            curve.late_loss,
            *(cell(curve.params.get(name)) for name in LAW.names),
            None if np.isnan(curve.chi2) else curve.chi2,
            ", ".join(number(g, 3) for g in curve.by_seed),
            curve.unavailable,
        )
        for curve in curves
    )
    columns = (
        Column("N", "count"),
        Column("D", "count"),
        Column("seeds", "integer"),
        Column("loss after 1 token", "number"),
        Column("in the second half", "number"),
        Column("E", "number", True),
        Column("A", "number", True),
        Column("g", "number", True),
        Column("chi2 per position", "short"),
        Column("g by seed"),
        Column("note"),
    )
    caption = (
        "N counts all parameters. Positions weigh by their variance over windows. Intervals of "
        "95 % "
        "are from a parametric bootstrap: errors as large as over windows (or as the residuals, if "
        "larger), and correlated between neighbouring positions as the residuals are. All "
        "seeds see "
        "the same windows; chi2 is the squared residual in standard errors; g by seed shows what "
        "another seed changes."
    )
    return Table("context", "Loss by position, L(T) = E + A T^-g", columns, rows, caption)


def _notes(curves: Sequence[PositionCurve]) -> list[str]:
    """Three sentences: what is shown, the exponents, which size gains more from context."""
    largest, smallest = curves[-1], curves[0]
    shown = (
        f"The model of {format_count(largest.n_params)} parameters has a loss of "
        f"{largest.loss[0]:.2f} nats after one token, and of {largest.late_loss:.2f} in the second "
        f"half of its window of {largest.context[-1]:.0f}."
    )
    fitted = [curve for curve in curves if curve.params]
    if fitted:
        exponents = ", ".join(
            f"{g.value:.2f} [{g.lo:.2f}, {g.hi:.2f}]" for g in (c.params["g"] for c in fitted)
        )
        which = (
            f"the exponent g of {exponents}"
            if len(fitted) == 1
            else f"exponents g of {exponents} from the smallest size to the largest"
        )
        law = (
            f"The loss falls as a power of the context toward a floor, with {which}, and comes "
            f"within {NEAR_FLOOR:g} nats of its floor after about "
            f"{max(1.0, fitted[-1].tokens_to_floor):.0f} tokens."
        )
    else:
        law = "No power law of the context could be fitted."
    gained = f"The rest of the window lowers the loss by {largest.gain:.2f} nats"
    if largest is smallest:
        return [shown, law, f"{gained}."]
    more = "more" if largest.gain > smallest.gain else "less"
    gained += f" for the largest size and {smallest.gain:.2f} for the smallest"
    return [shown, law, f"{gained}, so the larger gains {more}."]
