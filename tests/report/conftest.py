"""A synthetic sweep (Chinchilla losses with noise, 5 budgets x 6 sizes) and a fit document computed
by hand.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling import accounting
from scaling.config import OptimConfig, RunConfig, SyntheticTask
from scaling.store.rows import Measurement, Provenance, rows
from scaling.store.run_files import write_run
from tests.models import small_model

E, A, B, ALPHA, BETA = 1.1, 12.0, 45.0, 0.31, 0.35
BUDGETS = (1e11, 3e11, 1e12, 3e12, 1e13)
WIDTHS = (16, 24, 32, 48, 64, 96)

WARNING = {"code": "other", "data": {}}


def law(n: Any, d: Any) -> Any:
    return E + A / n**ALPHA + B / d**BETA


def sweep_runs() -> list[tuple[float, RunConfig]]:
    found = []
    for budget in BUDGETS:
        for width in WIDTHS:
            heads = max(1, width // 32)
            model = small_model(width, heads, d_head=32)
            task = SyntheticTask(kind="synthetic")
            per_step = accounting.train_flops(model, task.seq_len, 8 * task.seq_len)
            steps = round(budget / per_step)
            if steps >= 20:
                found.append(
                    (
                        budget,
                        RunConfig(
                            model=model,
                            task=task,
                            optim=OptimConfig(lr=0.01),
                            batch_size=8,
                            n_steps=steps,
                        ),
                    )
                )
    return found


def size(run: RunConfig) -> int:
    return accounting.n_params(run.model, run.task.seq_len)


@pytest.fixture(scope="session")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with intermediate evaluations, as `scaling run` writes it."""
    folder = tmp_path_factory.mktemp("results") / "synthetic"
    noise = np.random.default_rng(0)
    for _, run in sweep_runs():
        measured = []
        for step in np.unique(np.geomspace(1, run.n_steps, 12).round().astype(int)):
            decay = 0.12 * (1 - step / run.n_steps)  # a constant rate has not cooled down yet
            value = min(5.5, law(size(run), run.batch_tokens * int(step)) + decay) * math.exp(
                noise.normal(0, 0.003)
            )
            measured.append(Measurement(int(step), "val", "loss", value, 0.004))
        write_run(folder, rows("synthetic", run, measured, Provenance("cpu x2", "0" * 40, "0.1.0")))
    return folder


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    """What `scaling fit` would say of such a sweep."""
    noise = np.random.default_rng(1)
    runs = sweep_runs()
    n, d = (
        np.array([size(run) for _, run in runs], float),
        np.array([run.tokens for _, run in runs], float),
    )
    c = np.array([budget for budget, _ in runs])
    loss = law(n, d) * np.exp(noise.normal(0, 0.004, len(n)))
    names = {"E": E, "A": A, "B": B, "alpha": ALPHA, "beta": BETA}
    spread = {name: value * np.exp(noise.normal(0, 0.05, 300)) for name, value in names.items()}
    a, b = BETA / (ALPHA + BETA), ALPHA / (ALPHA + BETA)
    roads = {
        "parametric": road(a, b, 0.0),
        "isoflop": road(a + 0.02, b - 0.01, 0.05)
        | {"minima": [valley(budget, runs, loss) for budget in BUDGETS]},
        "envelope": road(a - 0.03, b + 0.02, 0.1)
        | {"warnings": [WARNING | {"message": "the envelope rests on 14 points"}]},
    }
    held = [i for i, (budget, _) in enumerate(runs) if budget == BUDGETS[-1]]
    return {
        "schema": 3,
        "law": "chinchilla",
        "approach": "parametric",
        "objective": {"name": "huber-log", "delta": 1e-3, "value": 8.4e-4},
        "params": {name: interval(value) for name, value in names.items()},
        "derived": {"a": interval(a), "b": interval(b)},
        "status": "ok",
        "warnings": [WARNING | {"message": "E = 1.1 lies close to the lowest loss"}],
        "n_points": len(n),
        "excluded": [{"reason": "diverged", "count": 2}],
        "holdout": {
            "budget": BUDGETS[-1],
            "n_train": len(n) - len(held),
            "n_test": len(held),
            "mean_abs_rel_error": 0.011,
            "covered": 1.0,
            "rows": [
                {
                    "n_params": n[i],
                    "tokens": d[i],
                    "flops": c[i],
                    "loss": loss[i],
                    "predicted": law(n[i], d[i]),
                    "lo": 0.985 * law(n[i], d[i]),
                    "hi": 1.015 * law(n[i], d[i]),
                }
                for i in held
            ],
        },
        "source": {
            "paths": ["results/synthetic"],
            "digest": "sha256:" + "ab" * 32,
            "columns": {},
            "convention": {"params": "with_head", "flops": "exact"},
        },
        "version": "0.1.0",
        "ci": 0.95,
        "cost": {"c0": 6.0, "p": 1.0},
        "bootstrap": {
            "kind": "pairs",
            "resamples": 300,
            "seed": 0,
            "failed": 0,
            "draws": {k: v.tolist() for k, v in spread.items()},
        },
        "range": {
            "n_params": [n.min(), n.max()],
            "tokens": [d.min(), d.max()],
            "flops": [c.min(), c.max()],
            "loss": [loss.min(), loss.max()],
        },
        "data": {
            "n_params": n.tolist(),
            "tokens": d.tolist(),
            "flops": c.tolist(),
            "loss": loss.tolist(),
        },
        "identification": {
            "profile": {"E": {"lo": 0.4, "hi": None, "identified": False}},
        },
        "approaches": roads,
        "approaches_agree": {
            "verdict": "agree",
            "message": "The approaches agree: a lies between 0.50 and 0.55.",
        },
    }


def interval(value: float) -> dict[str, float]:
    return {"value": value, "se": 0.05 * value, "lo": 0.9 * value, "hi": 1.1 * value}


def road(a: float, b: float, shift: float) -> dict[str, Any]:
    g = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (1 + shift)
    return {
        "a": interval(a),
        "b": interval(b),
        "a_plus_b": a + b,
        "warnings": [],
        "powers": {"a": a, "n_coef": g * 6**-a, "b": b, "d_coef": 6**-b / g},
    }


def valley(budget: float, runs: list[tuple[float, RunConfig]], loss: np.ndarray) -> dict[str, Any]:
    mine = [i for i, (other, _) in enumerate(runs) if other == budget]
    sizes, losses = [float(size(runs[i][1])) for i in mine], [float(loss[i]) for i in mine]
    found: dict[str, Any] = {"flops": budget, "n_params": sizes, "loss": losses}
    found |= dict.fromkeys(("n_star", "d_star", "loss_star"))
    if budget == BUDGETS[0]:
        return found | {"unavailable": "the minimum lies at the edge, below the smallest size"}
    bend = np.polyfit(np.log(sizes), losses, 2)
    x = np.linspace(math.log(sizes[0]), math.log(sizes[-1]), 40)
    star = float(np.exp(-bend[1] / (2 * bend[0])))
    return found | {
        "curve": {"n_params": np.exp(x).tolist(), "loss": np.polyval(bend, x).tolist()},
        "n_star": star,
        "d_star": budget / 6 / star,
        "loss_star": float(np.polyval(bend, math.log(star))),
    }
