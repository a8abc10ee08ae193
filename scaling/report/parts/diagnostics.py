"""What checks a fit, as tables and figures: forecasts against measurements, hold-out, seed noise,
runs above the law.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scaling.fit.result import FitResult
from scaling.formatting import format_flops
from scaling.render.figure import Axis, Band, Figure, Line, Markers, Trace
from scaling.render.table import Table, number, pairs, record_table
from scaling.report.parts.drawing import answer_curve, answer_name, n_axis

if TYPE_CHECKING:
    from scaling.predict.law_source import FittedLaw
    from scaling.predict.verification import CheckedForecast


ROWS_LISTED = 200


def forecasts(checked: Sequence[CheckedForecast]) -> Table | None:
    """What the fit predicted for each run before it was trained, and its measured loss."""
    rows = [
        {
            "model": item.forecast.role,
            "N": item.n_params,
            "D": item.tokens,
            "C": item.forecast.flops,
            "predicted loss": (item.forecast.loss, item.forecast.lo, item.forecast.hi),
            "measured": ", ".join(f"{loss:.4f}" for loss in item.losses),
            "error": item.error,
            "inside": None if item.inside is None else f"{item.inside} of {len(item.losses)}",
        }
        for item in checked
    ]
    caption = "".join(
        f"Predicted by {item.forecast.source or 'a fit'} before training; "
        f"{100 * item.forecast.ci:g} % intervals are those of one run."
        for item in checked[:1]
    )
    title = "Forecasts made before training, and measured losses"
    return record_table("forecasts", title, rows, caption)


def forecast_figure(checked: Sequence[CheckedForecast]) -> Figure | None:
    """Loss against size at the predicted budget: the interval, the prediction, and the runs."""
    if not checked:
        return None
    ordered = sorted(checked, key=lambda item: item.n_params)
    predicted = [(item.n_params, item.forecast) for item in ordered]
    ends = [(n, f.loss, f.lo or f.loss, f.hi or f.loss) for n, f in predicted]
    n, loss, lo, hi = np.array(ends, float).T
    sizes, losses = zip(
        *((item.n_params, loss) for item in ordered for loss in item.losses), strict=True
    )
    traces: tuple[Trace, ...] = (
        Band(n, lo, hi, 0),
        Line(n, loss, "predicted", 0, "dash"),
        Markers(sizes, losses, "measured", 1, "circle", 9),
    )
    caption = (
        f"At {format_flops(predicted[0][1].flops)} FLOPs. The band is the interval for one run; "
        "it was recorded before training."
    )
    title = "Prediction against measurement"
    return Figure("forecasts", title, caption, n_axis(), Axis("loss (nats per token)"), traces)


def noise(fit: FitResult) -> Table | None:
    """What seeds change, what the law leaves, and whether that is more."""
    result = fit.noise
    if result is None:
        return None
    rows: list[tuple[str, str]] = []
    if result.basis == "seeds":
        sd, lo, hi = (100 * (value or 0.0) for value in (result.sd, result.lo, result.hi))
        text = f"{sd:.2f} % [{lo:.2f}, {hi:.2f}], from {result.cells} cells, "
        text += f"{result.degrees_of_freedom} degrees of freedom"
        rows.append(("loss of a run over seeds, standard deviation", text))
    if result.residual_sd is not None:
        text = f"{100 * result.residual_sd:.2f} %"
        rows.append(("runs about the law, standard deviation", text))
    if result.lack_of_fit and result.lack_of_fit.ratio is not None:
        text = f"{number(result.lack_of_fit.ratio, 3)} (p = {result.lack_of_fit.p or 0.0:.2g})"
        rows.append(("lack of fit: variance about the law over that of seeds", text))
    if result.basis != "seeds":
        text = "no cell has more than one: seed noise and errors of the law cannot be separated"
        rows.append(("seeds", text))
    return pairs("noise", "Noise", rows)


def above(fit: FitResult) -> Table | None:
    """Runs above the law with their likely cause."""
    columns = {
        "run_id": "run",
        "n_params": "N",
        "tokens": "D",
        "loss": "loss",
        "excess": "above the law",
        "cause": "likely cause",
    }
    caption = "A tuning error can only raise the loss: check these runs. They are kept in the fit."
    title, runs = "Runs above the law", fit.runs_above_law
    percent = ("above the law",)
    return record_table("above", title, runs, caption, columns=columns, percent=percent)


def over_frontier(fit: FitResult, law: FittedLaw | None) -> Table | None:
    """How far the best run of each budget lies above L*(C) as the fit answers."""
    isoflop = fit.approaches.get("isoflop")
    budgets = [each for each in isoflop.minima if each.loss] if isoflop else []
    flops = np.array([each.flops for each in budgets])
    best = answer_curve(law, "loss_star", flops) if len(flops) else None
    if law is None or best is None or not np.isfinite(best.value).all():
        return None
    rows = []
    for budget, optimal in zip(budgets, best.value.tolist(), strict=True):
        loss, n = min(zip(budget.loss or [], budget.n_params or [], strict=True))
        cells = {"C": budget.flops, "N of the best run": n, "its loss": loss}
        rows.append({**cells, "L*(C)": optimal, "excess": loss / optimal - 1})
    caption = (
        f"L*(C) by {answer_name(law)}. Far above it, no size of that budget was well tuned or "
        "well chosen."
    )
    title, count = "Best runs over the frontier", ("N of the best run",)
    return record_table("over-frontier", title, rows, caption, count=count)


def flagged(fit: FitResult) -> Table | None:
    """Suspicious points, by reason; the caption has the fit without them."""
    without, caption = fit.fit_without_flagged, ""
    if without:
        values = {"a": without.a, **(without.params or {})}
        which = "it" if without.left_out == 1 else f"these {without.left_out}"
        result = without.unavailable or ", ".join(
            f"{name} {number(value, 4)}" for name, value in values.items() if value is not None
        )
        caption = f"Kept in the fit. Without {which}: {result}."
    rows = [
        {
            "reason": item.reason,
            "points": item.count,
            "which": ", ".join(str(point.row) for point in item.points[:8]),
        }
        for item in fit.flagged
    ]
    return record_table("flagged", "Suspicious points", rows, caption)


def holdout(fit: FitResult) -> Table | None:
    """The runs of the budget that was left out, predicted from the others."""
    result = fit.holdout
    if result is None:
        return None
    rows = [
        {
            "N": row.n_params,
            "D": row.tokens,
            "measured": row.loss,
            "predicted": (row.predicted, row.lo, row.hi),
            "error": None if row.predicted is None else row.predicted / row.loss - 1,
        }
        for row in result.rows
    ]
    caption = (
        f"The budget of {format_flops(result.budget)} FLOPs was left out of this fit. "
        "Error: predicted / measured - 1."
    )
    listed = min(len(rows), ROWS_LISTED)
    if listed < result.n_test:
        caption += f" {listed} of {result.n_test:,} runs are listed."
    return record_table("holdout", "Hold-out", rows, caption, ROWS_LISTED)
