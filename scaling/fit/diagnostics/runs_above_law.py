"""Runs above the fitted law, each with the likely cause: a law is the best that a size and its
tokens can do, and poor tuning only adds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.fit.diagnostics.results import RunAboveLaw
from scaling.fit.law_fit import LawFit
from scaling.points.points import Points
from scaling.warning import ResultWarning, WarningCode, warn

FEW_STEPS = 200
LONG_WARMUP = 0.15  # of the steps
OTHER_RATE = 1.6  # times the neighbours' learning rate x width
OTHER_BATCH = 3.0
ROSE = 0.005  # relative, from the lowest evaluation to the last
NEIGHBOURS = 6
SHOWN = 50


def runs_above_law(fit: LawFit, runs: pd.DataFrame, loss_curves: Points) -> list[RunAboveLaw]:
    """Runs whose loss lies above the law by more than noise, the worst first.

    `runs` has one row a point with its configuration.
    """
    points, residual = fit.data.points, fit.residuals
    if points.n is None or points.d is None:
        return []
    rows = np.flatnonzero(residual > fit.noise.excess(len(points)))
    rows = rows[np.argsort(-residual[rows], kind="stable")][:SHOWN]
    return [
        RunAboveLaw(
            run_id=str(runs["run_id"].iloc[row]),
            n_params=float(points.n[row]),
            tokens=float(points.d[row]),
            loss=float(points.loss[row]),
            excess=float(np.expm1(residual[row])),
            cause=_cause(int(row), points, runs, loss_curves),
        )
        for row in rows
    ]


def diverged(runs: pd.DataFrame, gone: pd.DataFrame) -> list[RunAboveLaw]:
    """Entries for runs that diverged: without a loss, and with their learning rate against that of
    the others.
    """
    usual = float(np.median(runs["lr"].to_numpy(float) * _widths(runs))) if len(runs) else np.nan
    rates = gone["lr"].to_numpy(float) * _widths(gone) / usual if len(gone) else []
    columns = (gone[name].tolist()[:SHOWN] for name in ("run_id", "n", "d", "step"))
    return [
        RunAboveLaw(
            run_id=run_id,
            n_params=float(n),
            tokens=float(d),
            loss=None,
            excess=None,
            cause=(
                f"diverged at step {step}; its learning rate, by width, is {rate:.2g} times "
                "the others'"
            ),
        )
        for run_id, n, d, step, rate in zip(*columns, rates, strict=False)
    ]


def _cause(row: int, points: Points, runs: pd.DataFrame, loss_curves: Points) -> str:
    """The first of the usual causes that the run shows."""
    config = runs["config"].iloc[row]
    steps, optim = int(config["n_steps"]), config["optim"]
    curve = loss_curves.take(np.asarray(loss_curves.group) == str(runs["run_id"].iloc[row]))
    losses = curve.loss[np.argsort(np.asarray(curve.d))]
    rose = float(losses[-1] / losses.min() - 1) if len(losses) else 0.0
    if rose > ROSE:
        repeats = (config["task"].get("unique_tokens") or np.inf) < np.asarray(points.d)[row]
        why = "unstable, the learning rate is too high"
        if repeats:
            why = "over-fitted to repeated data"
        return f"its loss rose by {100 * rose:.1f} % towards the end: {why}"
    if steps < FEW_STEPS:
        return f"too few steps: {steps}"
    warmup = int(optim.get("warmup_steps", 0)) / steps
    if warmup > LONG_WARMUP:
        return f"{100 * warmup:.0f} % of its steps are warm-up"
    # against the median of the runs nearest in log N and log D, itself left out
    logs = np.log(np.stack([np.asarray(points.n), np.asarray(points.d)]))
    away = np.hypot(*(logs - logs[:, row, None]))
    away[row] = -1.0
    near = np.argsort(away, kind="stable")[1 : NEIGHBOURS + 1]
    if len(near):
        rates, batches = runs["lr"].to_numpy(float) * _widths(runs), runs["batch_tokens"]
        rate = float(rates[row] / np.median(rates[near]))
        if max(rate, 1 / rate) > OTHER_RATE:
            return f"untuned: its learning rate, by width, is {rate:.2g} times its neighbours'"
        batch = float(batches.iloc[row] / np.median(batches.to_numpy(float)[near]))
        if max(batch, 1 / batch) > OTHER_BATCH:
            return f"its batch is {batch:.2g} times its neighbours'"
    return "no known cause: rerun it with another seed"


def _widths(runs: pd.DataFrame) -> np.ndarray:
    """What a learning rate is to be multiplied by to compare sizes: their width, or with transfer
    that of the base, whose rate it is.
    """
    bases = [
        (config.get("model", {}).get("transfer") or {}).get("base_width")
        for config in runs["config"]
    ]
    return np.array(
        [base or width for base, width in zip(bases, runs["d_model"], strict=True)], float
    )


def warnings(above: list[RunAboveLaw]) -> list[ResultWarning]:
    """One warning for all of them."""
    if not above:
        return []
    worst = above[0]
    message = (
        f"{len(above)} run{'s lie' if len(above) > 1 else ' lies'} above the fitted law by more "
        f"than noise, the worst by {100 * (worst.excess or 0.0):.1f} % "
        f"({worst.run_id}: {worst.cause})"
    )
    return [warn(WarningCode.RUNS_ABOVE_LAW, message, run_ids=[run.run_id for run in above])]
