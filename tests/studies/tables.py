"""Results tables made without training: what a study would find in the folder of a sweep."""

from pathlib import Path

import pandas as pd

from scaling.config.sweep_file import load_sweep
from scaling.plan import plan
from scaling.store.rows import Provenance, rows

SWEEPS = Path(__file__).parents[2] / "sweeps"


def runs_of(name, digest=None):
    """The runs of a shipped sweep; `digest` stands for a corpus of bytes."""
    sweep = load_sweep(SWEEPS / f"{name}.toml")
    task = sweep.base.task
    if digest is not None:
        return [p.run for p in plan(sweep, task.model_copy(update={"digest": digest}), 256).runs]
    return [planned.run for planned in plan(sweep, task, task.fixed_vocab_size).runs]


def table_of(measured, sweep="test"):
    """The rows of (run, its measurements)."""
    source = Provenance("cpu", None, "0")
    return pd.concat(
        [rows(sweep, run, list(values), source).to_pandas() for run, values in measured],
        ignore_index=True,
    )
