"""Runs above the fitted law, each with the likely cause: a law is the best that a size and its
tokens can do, and poor tuning only adds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics.results import RunAboveLaw
from scaling.fit.estimate import LawFit
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

FEW_STEPS = 200
LONG_WARMUP = 0.15  # of the steps
OTHER_RATE = 1.6  # times the neighbours' learning rate x width
OTHER_BATCH = 3.0
ROSE = 0.005  # relative, from the lowest evaluation to the last
NEIGHBOURS = 6
SHOWN = 50


def runs_above_law(
    fit: LawFit, runs: pd.DataFrame, loss_curves: Points
) -> tuple[list[RunAboveLaw], list[ResultWarning]]:
    """Runs whose loss lies above the law by more than noise, the worst first, and a warning for
    them. `runs` has one row a point with its configuration.
    """
    data, residual = fit.data, fit.residuals
    if not data.has("ND"):
        return [], []
    rows = np.flatnonzero(residual > fit.noise.excess(len(data)))
    rows = rows[np.argsort(-residual[rows], kind="stable")][:SHOWN]
    above = [
        RunAboveLaw(
            run_id=str(runs["run_id"].iloc[row]),
            n_params=data.n[row],
            tokens=data.d[row],
            loss=data.points.loss[row],
            excess=np.expm1(residual[row]),
            cause=_cause(int(row), data, runs, loss_curves),
        )
        for row in rows
    ]
    if not above:
        return [], []
    worst, lie = above[0], "s lie" if len(above) > 1 else " lies"
    message = (
        f"{len(above)} run{lie} above the fitted law by more than noise, the worst by "
        f"{100 * worst.excess:.1f} % ({worst.run_id}: {worst.cause})"
    )
    run_ids = [run.run_id for run in above]
    return above, [warn(WarningCode.RUNS_ABOVE_LAW, message, run_ids=run_ids)]


def _cause(row: int, data: Dataset, runs: pd.DataFrame, loss_curves: Points) -> str:
    """The first of the usual causes that the run shows."""
    config = runs["config"].iloc[row]
    steps, optim = int(config["n_steps"]), config["optim"]
    curve = loss_curves.take(np.asarray(loss_curves.group) == str(runs["run_id"].iloc[row]))
    losses = curve.loss[np.argsort(np.asarray(curve.d))]
    rose = float(losses[-1] / losses.min() - 1) if len(losses) else 0.0
    if rose > ROSE:
        is_repeated = (config["task"].get("unique_tokens") or np.inf) < data.d[row]
        unstable = "unstable, the learning rate is too high"
        why = "over-fitted to repeated data" if is_repeated else unstable
        return f"its loss rose by {100 * rose:.1f} % towards the end: {why}"
    if steps < FEW_STEPS:
        return f"too few steps: {steps}"
    warmup = int(optim.get("warmup_steps", 0)) / steps
    if warmup > LONG_WARMUP:
        return f"{100 * warmup:.0f} % of its steps are warm-up"
    # against the median of the runs nearest in log N and log D, itself left out
    logs = np.log([data.n, data.d])
    away = np.hypot(*(logs - logs[:, row, None]))
    away[row] = -1.0
    near = np.argsort(away, kind="stable")[1 : NEIGHBOURS + 1]
    if len(near):
        # comparable between sizes: times the width, or with transfer times that of the base
        transfers = [each.get("model", {}).get("transfer") or {} for each in runs["config"]]
        bases = zip(transfers, runs["d_model"], strict=True)
        widths = [transfer.get("base_width") or width for transfer, width in bases]
        rates = runs["lr"].to_numpy(float) * np.array(widths, float)
        batches = runs["batch_tokens"].to_numpy(float)
        rate = rates[row] / np.median(rates[near])
        if max(rate, 1 / rate) > OTHER_RATE:
            return f"untuned: its learning rate, by width, is {rate:.2g} times its neighbours'"
        batch = batches[row] / np.median(batches[near])
        if max(batch, 1 / batch) > OTHER_BATCH:
            return f"its batch is {batch:.2g} times its neighbours'"
    return "no known cause: rerun it with another seed"
