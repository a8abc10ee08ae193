"""Runs above the law get their likely cause."""

import numpy as np
import pandas as pd
import pytest

from scaling.fit.diagnostics.runs_above_law import runs_above_law
from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import LAWS
from scaling.points.points import Points

SHARES = (0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.65, 0.78)
TRUTH = {"E": 1.8, "A": 480.0, "B": 2000.0, "alpha": 0.34, "beta": 0.36}
CHINCHILLA = LAWS["chinchilla"]
BUDGETS = np.geomspace(1e17, 1e20, 5)
SD = 0.002


def sweep(seed=0):
    """Five budgets of six sizes about their optima, with their configurations and the evaluations
    of every run.
    """
    c = np.repeat(BUDGETS, 6)
    n = 0.09 * c**0.51 * np.tile(np.geomspace(0.25, 4, 6), 5)
    d = c / (6 * n)
    log_loss = CHINCHILLA.log_predict(CHINCHILLA.theta(TRUTH), {"N": n, "D": d})
    loss = np.exp(log_loss + SD * np.random.default_rng(seed).standard_normal(len(n)))
    config = {"n_steps": 5000, "optim": {"lr": 0.01, "warmup_steps": 100}, "task": {"kind": "text"}}
    runs = pd.DataFrame(
        {
            "run_id": [f"run{row}" for row in range(len(n))],
            "lr": 0.3 / np.sqrt(n),
            "d_model": np.sqrt(n),
            "batch_tokens": 4096,
            "config": [dict(config) for _ in n],
        }
    )
    return Points(loss, n, d, c), runs


def loss_curves(points, shape=lambda share, row: share**-0.3):
    """Evaluations whose excess over E is `shape` times the final one."""
    shares = np.array([*SHARES, 1.0])
    rows = np.repeat(np.arange(len(points)), len(shares))
    share = np.tile(shares, len(points))
    factor = np.array(
        [shape(at, row) / shape(1.0, row) for at, row in zip(share, rows, strict=True)]
    )
    loss = np.where(
        share == 1.0, points.loss[rows], TRUTH["E"] + (points.loss[rows] - TRUTH["E"]) * factor
    )
    return Points(
        loss,
        points.n[rows],
        points.d[rows] * share,
        points.c[rows] * share,
        group=np.array([f"run{row}" for row in rows]),
    )


CASES = {
    "too few steps: 60": lambda points, runs, row: runs["config"].iloc[row].update(n_steps=60),
    "30 % of its steps are warm-up": lambda points, runs, row: (
        runs["config"].iloc[row].update(optim={"warmup_steps": 1500})
    ),
    "untuned: its learning rate, by width, is 8 times its neighbours'": lambda points, runs, row: (
        runs.__setitem__("lr", runs["lr"].where(runs.index != row, 8 * runs["lr"]))
    ),
    "its batch is 16 times its neighbours'": lambda points, runs, row: runs.__setitem__(
        "batch_tokens", runs["batch_tokens"].where(runs.index != row, 16 * 4096)
    ),
    "no known cause: rerun it with another seed": lambda points, runs, row: None,
}


@pytest.mark.parametrize("cause", CASES)
def test_a_run_above_the_law_is_named_with_its_cause(cause):
    points, runs = sweep()
    points.loss[14] *= 1.05
    CASES[cause](points, runs, 14)
    law_fit = estimate(CHINCHILLA, points)
    (only,), (warning,) = runs_above_law(law_fit, runs, loss_curves(points))
    assert (only.run_id, only.cause) == ("run14", cause)
    assert only.excess == pytest.approx(0.05, abs=0.01)
    assert (warning.code, warning.data) == ("runs_above_law", {"run_ids": ["run14"]})
    assert cause in warning.message


def test_a_loss_that_rose_is_unstable_or_over_fitted():
    points, runs = sweep()
    points.loss[14] *= 1.05
    rising = loss_curves(points, lambda share, row: share ** (0.2 if row == 14 else -0.3))
    (only,), _ = runs_above_law(estimate(CHINCHILLA, points), runs, rising)
    assert "unstable, the learning rate is too high" in only.cause
    runs["config"].iloc[14].update(task={"kind": "text", "unique_tokens": 1e3})
    (only,), _ = runs_above_law(estimate(CHINCHILLA, points), runs, rising)
    assert "over-fitted to repeated data" in only.cause


def test_a_clean_sweep_has_no_run_above():
    points, runs = sweep()
    law_fit = estimate(CHINCHILLA, points)
    assert runs_above_law(law_fit, runs, loss_curves(points)) == ([], [])
