"""The gradient noise scale of runs that measured it, and their batch size: how large a batch still
pays (McCandlish 2018).

A batch at the noise scale takes twice the least tokens and twice the least steps; one far below
wastes no tokens.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.fit.special.critical_batch import fitted_critical_batch
from scaling.formatting import format_count
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Table, record_table

METRIC = "noise_scale"
RUNS_SHOWN = 60
MIN_MEASUREMENTS = 3  # for a line


def noise_scales(rows: pd.DataFrame) -> pd.DataFrame | None:
    """run_id, step, N (total), loss, noise scale and batch (tokens) wherever a results table holds
    both; None where nothing was measured.
    """
    scales = rows[rows["metric"] == METRIC].rename(columns={"value": METRIC})
    loss = rows[(rows["metric"] == "loss") & (rows["split"] == "val")]
    loss = loss.rename(columns={"value": "loss"})[["run_id", "step", "loss"]]
    columns = ["run_id", "step", METRIC, "n_params", "batch_tokens"]
    joined = scales[columns].merge(loss, on=["run_id", "step"])
    joined = joined.sort_values(["n_params", "run_id", "step"], ignore_index=True)
    return joined if len(joined) else None


def table(measured: pd.DataFrame | None) -> Table | None:
    """Each run at its end: its noise scale, its batch, and their ratio."""
    if measured is None:
        return None
    last = measured.groupby("run_id", sort=False).tail(1).head(RUNS_SHOWN)
    last = last.assign(ratio=last["batch_tokens"] / last[METRIC])
    columns = {
        "run_id": "run",
        "n_params": "N (total)",
        "loss": "loss",
        METRIC: "noise scale (tokens)",
        "batch_tokens": "batch (tokens)",
        "ratio": "batch over noise scale",
    }
    share = (measured["batch_tokens"] > measured[METRIC]).mean()
    caption = (
        f"{100 * share:.0f} % of the measurements have a batch above the noise scale, where a "
        "larger batch saves few steps and costs tokens."
    )
    return record_table(
        "noise-scale",
        "Gradient noise scale at the end of each run",
        last.to_dict("records"),
        caption,
        columns=columns,
        count=("N (total)", "noise scale (tokens)", "batch (tokens)"),
        rough=("batch over noise scale",),
    )


def figure(measured: pd.DataFrame | None) -> Figure | None:
    """Noise scale against loss, coloured by size, the batch as a line, and B = B* L^(-1/alpha_B)
    through the points.
    """
    if measured is None:
        return None
    n, loss, noise = (measured[name].to_numpy(float) for name in ("n_params", "loss", METRIC))
    ramp = ColorScale.of(n)
    notes = [
        f"{format_count(size)}: loss {at:.4g}, {format_count(scale)} tokens"
        for size, at, scale in zip(n, loss, noise, strict=True)
    ]
    traces: list[Trace] = [Markers(loss, noise, "", ramp.at(n), notes=notes)]
    caption = (
        "Each point is one evaluation; the line across is the smallest batch that was trained with."
    )
    if len(loss) >= MIN_MEASUREMENTS and np.ptp(loss) > 0:
        star, alpha = fitted_critical_batch(loss, noise)
        x = np.geomspace(loss.min(), loss.max(), 50)
        traces.append(Line(x, star * x ** (-1 / alpha), "", "ink", "dash", 1.6))
        caption += (
            f" Dashed: B = {star:.3g} / L^{1 / alpha:.2f} tokens (Kaplan 2020, eq. 5.3, has 1 "
            "/ 0.21 = 4.8)."
        )
    batch = float(measured["batch_tokens"].min())
    traces.append(ReferenceLine(y=batch, label=f"batch {format_count(batch)}"))
    axes = Axis("loss (nats per token)", True), Axis("noise scale (tokens)", True, "count")
    return Figure("noise-scale", "Gradient noise scale", caption, *axes, traces, ramp)
