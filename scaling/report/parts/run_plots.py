"""Figures of the runs themselves: loss curves and hold-out; isoflop_figure.py has the first one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from scaling.fit.result import FitResult, SourceInfo
from scaling.formatting import format_flops
from scaling.points.points import Points
from scaling.render.figure import Axis, Band, ColorScale, Figure, Line, Markers
from scaling.report.parts.drawing import c_axis, drawn_share_note, loss_axis, n_axis, notes, thinned

CURVES_SHOWN = 240
HOLDOUT_SHOWN = 300
GRID = 400  # budgets at which the lowest of the loss curves is read


def training_curves(curves: Points | None, source: SourceInfo | None = None) -> Figure | None:
    """Loss against compute, one line a run, and the lowest of these lines (approach 1).

    `curves` holds every evaluation of every run; its `group` is the run. Axes say how the `source`
    of the fit counts.
    """
    sources = [source] if source else []
    if curves is None or not len(curves):
        return None
    table = pd.DataFrame(
        {"run": curves.group, "n": curves.n, "d": curves.d, "c": curves.c, "loss": curves.loss}
    )
    last = table.sort_values("c").groupby("run", sort=False).tail(1).sort_values(["n", "c"])
    kept = last["run"].to_numpy()[thinned(len(last), CURVES_SHOWN)]
    kept = np.union1d(kept, last.nsmallest(10, "loss")["run"])
    drawn = table[table["run"].isin(kept)].sort_values(["n", "run", "c"])
    ramp = ColorScale.of(table["n"].to_numpy(), n_axis(*sources).label)
    grid = np.geomspace(drawn["c"].min(), drawn["c"].max(), GRID)
    lowest, lines = np.full(GRID, np.inf), []
    for name, run in drawn.groupby("run", sort=False):
        c, loss = (run[column].to_numpy(float) for column in ("c", "loss"))
        read = np.interp(np.log(grid), np.log(c), np.log(loss), left=np.inf, right=np.inf)
        lowest = np.fmin(lowest, np.exp(read))
        (note,), colour = notes(n=run["n"][-1:], d=run["d"][-1:]), ramp.at(run["n"].iloc[0])
        lines.append(Line(c, loss, "", colour, "solid", 1.3, f"{note}, run {name}"))
    reached = np.isfinite(lowest)
    front = Line(grid[reached], lowest[reached], "lowest curve", "ink", "dash", 1.8)
    caption = (
        "Each line is one run, coloured by its size; the dashed line follows the lowest of the "
        "lines at each compute." + drawn_share_note(len(kept), len(last))
    )
    top = float(np.quantile(table["loss"], 0.995)) * 1.02
    y_axis = Axis("loss (nats per token)", True, range=(float(table["loss"].min()) * 0.97, top))
    title = "Loss against compute"
    return Figure(
        "training-curves", title, caption, c_axis(*sources), y_axis, (*lines, front), ramp
    )


def holdout(fit: FitResult) -> Figure | None:
    """Predicted against measured loss of the budget that was left out; on the diagonal the
    prediction is exact.
    """
    result = fit.holdout
    known = [row for row in result.rows if row.predicted is not None] if result else []
    if result is None or not known:
        return None
    rows = [known[i] for i in thinned(len(known), HOLDOUT_SHOWN)]
    columns = [(row.n_params, row.loss, row.predicted, row.lo, row.hi) for row in rows]
    n, measured, predicted, low, high = np.array(columns, float).T
    both = np.concatenate([measured, predicted, low, high])
    start, end = float(np.nanmin(both)), float(np.nanmax(both))
    margin = 0.06 * (end - start) or 0.05 * end
    limits = (start - margin, end + margin)
    diagonal = np.array(limits)
    lo, hi = (low, high) if np.isfinite(both).all() else (None, None)
    at = notes(n=n, loss=measured, predicted=predicted)
    traces = (
        Band(diagonal, diagonal * 0.99, diagonal * 1.01, "muted"),
        Line(limits, limits, "exact", "muted", "dash", 1.4),
        Markers(
            measured,
            predicted,
            f"left-out runs, {100 * fit.ci:g} % intervals",
            1,
            "circle",
            9,
            lo,
            hi,
            at,
        ),
    )
    caption = (
        f"The {format_flops(result.budget)}-FLOP runs were left out, then predicted from "
        "the cheaper ones. The grey band is ±1 %." + drawn_share_note(len(rows), result.n_test)
    )
    measures = (loss_axis(fit.source, name=f"{name} loss") for name in ("measured", "predicted"))
    x_axis, y_axis = (replace(axis, log=False, range=limits) for axis in measures)
    return Figure("holdout", "Hold-out prediction", caption, x_axis, y_axis, traces)
