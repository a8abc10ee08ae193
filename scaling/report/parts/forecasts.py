"""Forecasts that were made before training, against measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scaling.formatting import format_flops
from scaling.render.figure import Axis, Band, Figure, Line, Markers
from scaling.render.section import Section, section
from scaling.render.table import record_table
from scaling.report.parts.drawing import n_axis

if TYPE_CHECKING:
    from scaling.predict.verification import CheckedForecast

TITLE = "Prediction against measurement"


def forecasts(checked: Sequence[CheckedForecast]) -> Section:
    """What the fit predicted for each run before it was trained, and its measured loss."""
    from scaling.predict.verification import sentence

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
    table = record_table("forecasts", title, rows, caption)
    return section("verified", TITLE, [], [table], summary=sentence(checked) if checked else "")


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
    traces = (
        Band(n, lo, hi, 0),
        Line(n, loss, "predicted", 0, "dash"),
        Markers(sizes, losses, "measured", 1, "circle", 9),
    )
    caption = (
        f"At {format_flops(predicted[0][1].flops)} FLOPs. The band is the interval for one run; "
        "it was recorded before training."
    )
    return Figure("forecasts", TITLE, caption, n_axis(), Axis("loss (nats per token)"), traces)
