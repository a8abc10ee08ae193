"""One peer's fit of one table, as JSON on stdout: `PYTHON benchmarks/fit_peers.py PEER runs.csv`.

PYTHON is any interpreter in which the peer is installed (`pip install chinchilla
simple-scaling-laws`, the latter from
Python 3.12 on); nothing of this project is imported. PEER is chinchilla, simple-scaling-laws or
draws (the latter with 1,000).
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from pathlib import Path

GRID = {"E": [1.0, 2.0], "a": [4.0, 8.0], "b": [4.0, 8.0], "alpha": [0.2, 0.5], "beta": [0.2, 0.5]}


def columns(path: Path) -> dict[str, list[float]]:
    """The table's columns N, D and loss."""
    with open(path, encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    return {name: [float(row[name]) for row in rows] for name in ("N", "D", "loss")}


def by_chinchilla(path: Path) -> tuple[float, dict[str, float]]:
    """`chinchilla` (Takano): BFGS from a grid of 32 starts, Huber loss of the log loss."""
    import numpy as np
    from chinchilla import Chinchilla
    from chinchilla._metrics import log_huber

    runs = columns(path)
    with tempfile.TemporaryDirectory() as folder:
        fitted = Chinchilla(folder, param_grid=GRID, loss_fn=log_huber, log_level=50)
        for n, d, loss in zip(runs["N"], runs["D"], runs["loss"], strict=True):
            fitted.database.append(C=6 * n * d, N=n, D=d, loss=loss)
        fitted.visualizer.optim = lambda *args, **options: (
            None
        )  # its plots are not what is measured
        begun = time.perf_counter()
        fitted.fit(parallel=True)
        seconds = time.perf_counter() - begun
    return seconds, {name: float(np.asarray(value)) for name, value in fitted.get_params().items()}


def by_simple(path: Path, draws: int) -> tuple[float, dict[str, float]]:
    """`simple-scaling-laws`: its separable power law of two predictors, with `draws` bootstrap
    draws.
    """
    import polars as pl
    from simple_scaling_laws import fit

    runs = columns(path)
    frame = pl.DataFrame(
        {
            "training_run_id": [str(index) for index in range(len(runs["N"]))],
            "test_set_id": ["validation"] * len(runs["N"]),
            "model_size__n_params": runs["N"],
            "dataset_size__n_tokens": runs["D"],
            "test_loss__cross_entropy": runs["loss"],
        }
    )
    begun = time.perf_counter()
    model = fit(frame, law="separable-power", n_draws=draws, seed=0)
    return time.perf_counter() - begun, {
        name: float(value) for name, value in model.params("test_loss__cross_entropy").items()
    }


def main() -> None:
    """Fit and print {seconds, params}."""
    peer, path = sys.argv[1], Path(sys.argv[2])
    seconds, params = (
        by_chinchilla(path)
        if peer == "chinchilla"
        else by_simple(path, 1000 if peer == "draws" else 2)
    )
    print(json.dumps({"seconds": seconds, "params": params}))


if __name__ == "__main__":
    main()
