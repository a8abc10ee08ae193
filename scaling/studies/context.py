"""How the loss falls with the tokens before the predicted one, by model size: E + A T^-g."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.fit.document import FitStatus
from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import LAWS
from scaling.fit.newton import continuation
from scaling.formatting import format_count
from scaling.points.points import Points
from scaling.points.run_tables import variant_fields
from scaling.render.figure import SIZES, Axis, Figure, Line, Markers, Trace
from scaling.studies import runs
from scaling.studies.study import Claim, Findings, Interval, Study

Array = np.ndarray

METRIC = "loss_at_position"
RESAMPLES = 400
MAX_CORRELATION = 0.99  # of the errors of neighbouring positions
MIN_LOSS = 1e-3  # nats: a resampled loss stays above 0
MIN_POSITIONS = 8
LAW = replace(
    LAWS["L(T) = E + A/T^g"],
    name="context",
    formula="L(T) = E + A T^-g, T the tokens before the predicted one",
    reference="Kaplan et al. 2020, appendix D.5",
)


@dataclass(frozen=True)
class PositionCurve:
    """The loss of one size at each position, and the law's fit.

    `context` (n,) counts the tokens before, `loss` (n,) is the mean over seeds in nats. `params`
    are E, A, g with 95 % intervals; `chi2` is the mean squared residual in standard errors over
    windows (1: the law holds as far as can be seen); `unavailable` says why there is no fit.
    """

    n_params: int
    context: Array
    loss: Array
    params: Mapping[str, Interval] = field(default_factory=dict)
    chi2: float = math.nan
    unavailable: str = ""


def position_curves(rows: pd.DataFrame) -> list[PositionCurve]:
    """One curve per size and horizon at the end of its runs, smallest first; none without losses by
    position on text, or where runs are variants, which are no seeds.
    """
    text = runs.without_diverged(rows[rows["task"] == "text"])
    final = runs.at_end(runs.metric_rows(text, METRIC))
    final = final[np.isfinite(final["value"].astype(float)) & final["at"].notna()]
    if final.empty or variant_fields(rows):
        return []
    keys = ["n_params", "seq_len", "tokens", "lr", "batch_tokens"]
    return [_fit_curve(cell) for _, cell in final.groupby(keys, sort=True)]


def _fit_curve(cell: pd.DataFrame) -> PositionCurve:
    """The mean over seeds at each position, and its fit. Positions weigh as the inverse of their
    variance over windows (all seeds see the same ones), relative to the mean.
    """
    by_seed = cell.pivot_table(index="at", columns="seed", values="value", aggfunc="mean").dropna()
    context, loss = by_seed.index.to_numpy(float), by_seed.mean(axis=1).to_numpy(float)
    curve = PositionCurve(int(cell["n_params"].iloc[0]), context, loss)
    if len(context) < MIN_POSITIONS:
        reason = f"{len(context)} positions are fewer than {MIN_POSITIONS}"
        return replace(curve, unavailable=reason)
    stderr = cell.groupby("at")["stderr"].mean().reindex(by_seed.index).to_numpy(float)
    if not (np.isfinite(stderr) & (stderr > 0)).all():
        stderr = np.full_like(stderr, 1e-6)  # unknown, as from a single window: all weigh alike
    weight = stderr**-2.0 / (stderr**-2.0).mean()
    points = Points(loss=loss, others={"T": context}, weight=weight)
    try:
        fit = estimate(LAW, points, "mse")
    except ScalingError as error:
        return replace(curve, unavailable=error.what)
    if fit.status is FitStatus.NOT_IDENTIFIED:
        return replace(curve, unavailable="; ".join(map(str, fit.warnings)))
    predicted = LAW.predict(fit.theta, points.others)
    residual = (points.loss - predicted) / stderr
    squares, n_free = float(residual @ residual), len(residual) - len(LAW.params)
    noise = stderr * max(1.0, math.sqrt(squares / n_free)) * _correlated_noise(residual)
    # a parametric bootstrap (Efron and Tibshirani 1993, section 6.5): refits to drawn losses
    shift = np.log(np.maximum(predicted + noise, MIN_LOSS)) - np.log(points.loss)
    problem = fit.problem
    starts = np.repeat(problem.centred(fit.theta)[None], RESAMPLES, 0)
    refits = continuation(problem.resampled(shift=shift), starts, fit.delta)
    draws = LAW.values(problem.raw(refits.theta[refits.converged]))
    params = {name: Interval.of_draws(value, draws[name]) for name, value in fit.values.items()}
    return replace(curve, params=params, chi2=squares / n_free)


def _correlated_noise(residual: Array) -> Array:
    """Normal errors (RESAMPLES, n), correlated as the residuals (n,) of neighbouring positions are
    (first-order autoregression): the same windows stand behind all positions.
    """
    neighbours = residual[1:] @ residual[:-1] / max(float(residual @ residual), 1e-300)
    correlation = float(np.clip(neighbours, 0.0, MAX_CORRELATION))
    noise = np.random.default_rng(0).standard_normal((RESAMPLES, len(residual)))
    for i in range(1, len(residual)):
        noise[:, i] = correlation * noise[:, i - 1] + math.sqrt(1 - correlation**2) * noise[:, i]
    return noise


def analyze(rows: pd.DataFrame) -> Findings | None:
    """The law of each size, and whether larger models gain more from context."""
    curves = position_curves(rows)
    return Findings(list(_claims(curves)), [_figure(curves)]) if curves else None


def _claims(curves: Sequence[PositionCurve]) -> Iterator[Claim]:
    for curve in curves:
        measured, holds = f"not fitted: {curve.unavailable}", None
        if curve.params:
            g = curve.params["g"]
            measured = f"{g:.3f}, chi2 {curve.chi2:.2f} per position"
            holds = g.lo <= g.value <= g.hi and g.lo > 0
        quantity = f"g, {format_count(curve.n_params)} parameters"
        expected = "L(T) = E + A T^-g from 1 token on, with 95 % interval"
        yield Claim(quantity, expected, measured, holds)
    # the mean of half a window: one late position alone is noisy
    gains = [float(each.loss[0] - each.loss[len(each.loss) // 2 :].mean()) for each in curves]
    if len(gains) > 1:
        yield Claim(
            "loss after one token less that in the second half of the window, by size",
            "larger models gain more (Kaplan 2020, appendix D.5)",
            ", ".join(f"{gain:.3f}" for gain in gains) + " nats",
            gains == sorted(gains),
        )


def _figure(curves: Sequence[PositionCurve]) -> Figure:
    """The loss at each position by size, with its law."""
    traces: list[Trace] = []
    for curve in curves:
        colour, size = float(curve.n_params), format_count(curve.n_params)
        traces.append(Markers(curve.context, curve.loss, "", colour, "circle", 3))
        if curve.params:
            x = np.geomspace(1, curve.context.max(), 80)
            e, a, g = (curve.params[name].value for name in LAW.names)
            law = np.asarray(e + a * x**-g)
            traces.append(Line(x, law, f"{size}: {e:.2f} + {a:.2f} T^−{g:.2f}", colour))
    caption = (
        "Held-out loss of a token against the number of tokens before it in the window. Lines are "
        "E + A T^-g, fitted to each size by itself; intervals of g are from a parametric bootstrap."
    )
    axes = Axis("tokens before the predicted one, T", log=True), Axis("loss, nats")
    return Figure("context", "Loss by position", caption, *axes, traces, SIZES)


STUDY = Study("context", "Loss by position", analyze)
